"""The cache's folder: names from content, each file read once, room made by removing what was not used."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

import brats_fl.cases.cache_folder as cache_folder
from brats_fl.cases.cache_folder import (
    FileHashes,
    cache_limit,
    content_of,
    list_scratch,
    make_room,
)
from brats_fl.errors import CacheError
from brats_fl.files import appearing


@pytest.fixture
def scan(tmp_path: Path) -> Path:
    path = tmp_path / "scans" / "scan.nii"
    path.parent.mkdir()
    path.write_bytes(b"voxels")
    return path


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files that are read to their end from now on."""
    names: list[str] = []
    hash_file = cache_folder.hash_file

    def noting(path: str) -> str:
        names.append(Path(path).name)
        return hash_file(path)

    monkeypatch.setattr(cache_folder, "hash_file", noting)
    return names


def add_entries(folder: Path, *used_at_s: int, size: int = 100) -> list[Path]:
    folder.mkdir(exist_ok=True)
    paths = [folder / f"{number:032x}-{0:08x}.pt" for number in range(len(used_at_s))]
    for path, used in zip(paths, used_at_s, strict=True):
        path.write_bytes(bytes(size))
        os.utime(path, (used, used))
    return paths


# --- Names ---


def test_file_is_read_once_by_all_processes_together(scan, tmp_path, read):
    first = FileHashes(tmp_path / "cache").read([scan])
    again = FileHashes(tmp_path / "cache").read([scan])

    # printf voxels | sha256sum
    assert first == again == ["38d11342e7802dc460247dcec95b945557f05a1bcc74a4db37f42d7e2b8b43de"]
    assert read == ["scan.nii"]


def test_changed_file_is_read_again_even_with_its_old_size_and_time(scan, tmp_path, read):
    hashes = FileHashes(tmp_path / "cache")
    before, times = hashes.read([scan]), scan.stat()
    time.sleep(0.02)  # Linux counts a file's times in steps of up to 10 ms

    scan.write_bytes(b"VOXELS")
    os.utime(scan, ns=(times.st_atime_ns, times.st_mtime_ns))

    assert hashes.read([scan]) != before
    assert read == ["scan.nii"] * 2


@pytest.mark.parametrize("damage", [b"", b"[1]", b"\xff{"])
def test_what_was_kept_of_files_may_be_damaged(scan, tmp_path, read, damage):
    first = FileHashes(tmp_path / "cache").read([scan])
    (kept,) = (tmp_path / "cache" / "hashes").iterdir()
    kept.write_bytes(damage)

    assert FileHashes(tmp_path / "cache").read([scan]) == first
    assert len(read) == 2


def test_folder_that_cannot_be_written_costs_one_reading_a_process(scan, tmp_path, read):
    (tmp_path / "file").write_text("in the way")
    hashes = FileHashes(tmp_path / "file")

    assert hashes.read([scan]) == hashes.read([scan])
    assert read == ["scan.nii"]


def test_volumes_of_a_4d_file_are_told_apart_by_their_numbers_and_read_once(scan, tmp_path, read):
    hashes = FileHashes(tmp_path / "cache")
    contents = [content_of({"image": [f"{scan}#{k}" for k in order]}, hashes) for order in ([0, 1, 2, 3], [3, 1, 2, 0])]

    assert contents[0] != contents[1]
    assert None not in contents
    assert read == ["scan.nii"]


def test_case_with_a_missing_file_has_no_content(scan, tmp_path):
    assert content_of({"image": [str(scan), "/absent.nii"]}, FileHashes(tmp_path / "cache")) is None


# --- Room ---


def test_least_recently_used_entries_go_and_no_more_than_must(tmp_path):
    newest, oldest, middle = add_entries(tmp_path / "cache", 30, 10, 20)

    assert make_room(tmp_path / "cache", size=150, limit=350)  # 300 + 150 - 350: one of 100 must go

    assert not oldest.exists()
    assert middle.exists()
    assert newest.exists()


def test_nothing_goes_in_vain_and_nothing_that_this_process_used(tmp_path):
    paths = add_entries(tmp_path / "cache", 10, 20, 30)

    assert not make_room(tmp_path / "cache", size=250, limit=300, used_since_ns=25 * 10**9)  # two may go, three must

    assert all(path.exists() for path in paths)


def test_other_files_are_neither_counted_nor_removed(tmp_path):
    (tmp_path / "model.pt").write_bytes(bytes(1000))

    assert make_room(tmp_path, size=100, limit=100)
    assert (tmp_path / "model.pt").exists()


@pytest.mark.parametrize("text", ["0", "-1", "nan", "inf", "many"])
def test_wrong_limit_is_refused_with_variable_rule_and_mend(text):
    with pytest.raises(CacheError, match=rf"BRATS_FL_CACHE_LIMIT_GB must be .* \(got '{text}'\); set it to 100"):
        cache_limit({"BRATS_FL_CACHE_LIMIT_GB": text})


def test_limit_is_in_gb_and_has_a_default():
    assert cache_limit({"BRATS_FL_CACHE_LIMIT_GB": "0.5"}) == 5e8
    assert cache_limit({}) == 100e9


# --- Scratch ---


def test_scratch_is_a_killed_process_s_after_a_day(tmp_path):
    with appearing(tmp_path / "x") as scratch:
        scratch.touch()
        assert list_scratch(tmp_path) == []
        os.utime(scratch, (time.time() - 25 * 3600,) * 2)
        assert [file.path for file in list_scratch(tmp_path)] == [scratch]


@pytest.mark.parametrize(
    "module", ["brats_fl_tools.data.cache_command", "brats_fl_tools.data.import_cases", "brats_fl.gate"]
)
def test_looking_into_a_cache_a_download_or_a_list_needs_no_torch(module: str):
    program = f"import sys, {module}; sys.exit('torch' in sys.modules)"

    assert subprocess.run([sys.executable, "-W", "ignore", "-c", program], check=False).returncode == 0
