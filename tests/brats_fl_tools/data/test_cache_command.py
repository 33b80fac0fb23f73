"""``brats-fl cache``: what is said of a cache, and that clearing it removes nothing else."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
import torch
from monai.transforms import Compose
from typer.testing import CliRunner

from brats_fl.cases.cache import CaseCache
from brats_fl.cases.cache_folder import list_entries
from brats_fl.cases.datalists import load_split
from brats_fl.cases.transforms import LoadCased, TumourVoxelsd
from brats_fl.errors import DataListError
from brats_fl_tools.cli import app


def run(*arguments: str | Path) -> tuple[int, str]:
    """Exit code and output of ``brats-fl cache``; an error of ours is raised as it is."""
    result = CliRunner().invoke(app, ["cache", *map(str, arguments)], catch_exceptions=False)
    return result.exit_code, result.output


@pytest.fixture
def cache(shared_sites: Path, tmp_path: Path) -> Path:
    """The cache of every site: two of hospital-1's six cases, and one of them with other settings, too."""
    datalist = shared_sites / "hospital-1" / "datalist.json"
    for steps, split in (([LoadCased()], "training"), ([LoadCased(), TumourVoxelsd()], "training")):
        dataset = CaseCache(load_split(datalist, split), Compose(steps), tmp_path / "cache")
        dataset[0]
    dataset[1]
    for entry, day in zip(list_entries(tmp_path / "cache"), (1, 2, 3), strict=True):
        os.utime(entry.path, (time.mktime((2026, 1, day, 12, 0, 0, 0, 0, -1)),) * 2)
    return tmp_path / "cache"


def names(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def test_info_tells_entries_size_limit_use_and_the_cases_that_are_in_it(cache, shared_sites, monkeypatch):
    monkeypatch.setenv("BRATS_FL_CACHE_LIMIT_GB", "2")
    size = sum(path.stat().st_size for path in cache.glob("*.pt"))
    before = names(cache)

    code, text = run("info", shared_sites)

    assert code == 0
    assert text.splitlines() == [
        str(cache),
        "  entries    3, made with 2 settings (profiles, versions)",
        f"  size       {size / 1e6:.1f} MB of at most 2 GB",
        "  last used  2026-01-01 12:00 to 2026-01-03 12:00",
        "  data list  2 of 6 cases of hospital-1",
        "  data list  0 of 1 case of hospital-2",
    ]
    assert names(cache) == before


def test_cache_is_found_from_the_variable_its_folder_a_data_list_or_the_sites(cache, shared_sites, monkeypatch):
    assert run("info")[1].startswith(str(cache))
    assert "  data list  2 of 6" in run("info", shared_sites / "hospital-1" / "datalist.json")[1]
    assert "entries    3," in run("info", cache)[1]
    monkeypatch.delenv("BRATS_FL_CACHE")
    assert [line for line in run("info", shared_sites)[1].splitlines() if line[0] != " "] == [
        str(shared_sites / site / "cache") for site in ("hospital-1", "hospital-2")
    ]


def test_wrong_usage_exits_with_2_and_says_what_to_give(tmp_path, monkeypatch):
    monkeypatch.delenv("BRATS_FL_CACHE")

    code, text = run("clear")

    assert code == 2
    assert "give PATH" in text
    assert "BRATS_FL_CACHE" in text
    assert run("info", tmp_path / "absent")[0] == 2
    (tmp_path / "notes.txt").write_text("no data list")
    with pytest.raises(DataListError, match="cannot be read as JSON"):
        run("clear", tmp_path / "notes.txt")


def test_clear_removes_what_the_cache_wrote_and_nothing_else(cache):
    foreign = ["model.pt", "datalist.tmp", "hashes/notes.json", f"{0:032x}.pt", "scans/x.nii.gz"]
    for name in foreign:
        (cache / name).parent.mkdir(exist_ok=True)
        (cache / name).write_bytes(b"mine")
    (cache / f"{0:032x}-{0:08x}.pt").symlink_to(cache / "model.pt")
    (cache / "brats-fl-abcd1234.tmp").write_bytes(b"half")
    mapped = torch.load(list_entries(cache)[0].path, mmap=True)["image"]

    code, text = run("clear", cache)

    assert code == 0
    assert text.startswith(f"{cache}: removed 3 entries and 1 half-written file, ")
    assert text.endswith("; 0 entries left\n")
    assert names(cache) == {*foreign, "hashes", "scans", f"{0:032x}-{0:08x}.pt"}
    assert float(mapped.max()) > 0  # who has an entry open still reads it
    assert run("clear", cache)[1] == f"{cache}: removed 0 entries, 0.0 MB; 0 entries left\n"


def test_clear_older_than_keeps_what_was_used_since(cache):
    (newest,) = [entry.path for entry in list_entries(cache)][2:]
    newest.touch()

    assert ": removed 2 entries, " in run("clear", cache, "--older-than", 1)[1]

    assert list(cache.glob("*.pt")) == [newest]
    assert any((cache / "hashes").iterdir())
