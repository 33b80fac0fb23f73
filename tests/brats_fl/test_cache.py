from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from monai.data import DataLoader
from monai.transforms import CastToTyped, Compose, RandFlipd, Spacingd
from tests.tiny_sites import write_tiny_case

import brats_fl.transforms as transforms
from brats_fl.cache import CaseCache, default_cache_dir, describe, fingerprint
from brats_fl.datalists import load_split


@pytest.fixture
def items(tmp_path: Path) -> list[dict[str, Any]]:
    """Two cases that a test may change."""
    cases = [write_tiny_case(tmp_path / "hospital-1", f"case-{number}") for number in (1, 2)]
    return [{"case": c.case, "image": list(c.image), "label": c.label, "labels": c.labels} for c in cases]


def chain(spacing_mm: float = 2.0, image_dtype: torch.dtype = torch.float16) -> Compose:
    steps = [
        transforms.LoadCased(),
        Spacingd(["image", "label"], [spacing_mm] * 3, mode=["bilinear", "nearest"]),
        transforms.TumourVoxelsd(),
        CastToTyped(["image", "label"], dtype=[image_dtype, torch.uint8]),
        transforms.UncachedBoundaryd(),
    ]
    return Compose(steps)


def count_reads(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Paths of the volumes that are decompressed from now on."""
    reads: list[Path] = []
    read = transforms.read_volume

    def counting(case: str, name: str, path: Path) -> Any:
        reads.append(path)
        return read(case, name, path)

    monkeypatch.setattr(transforms, "read_volume", counting)
    return reads


def entries(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_second_read_decompresses_nothing_and_gives_the_same(items, tmp_path, monkeypatch):
    reads = count_reads(monkeypatch)
    dataset = CaseCache(items, chain(), tmp_path / "cache")

    first = dataset[0]
    assert len(reads) == 5  # four scans and the label
    second = dataset[0]
    third = CaseCache(items, chain(), tmp_path / "cache")[0]

    assert len(reads) == 5
    for again in (second, third):
        assert again["case"] == "case-1"
        assert torch.equal(again["image"], first["image"])
        assert torch.equal(again["label"], first["label"])


def test_cached_item_equals_the_uncached_one_to_float16(items, tmp_path):
    cached = CaseCache(items, chain(), tmp_path / "cache")
    cached[1]
    exact = CaseCache(items, chain(image_dtype=torch.float32), None)[1]

    # float16 has 11 significant bits.
    np.testing.assert_allclose(cached[1]["image"], exact["image"], rtol=2**-11)
    assert torch.equal(cached[1]["label"], torch.as_tensor(exact["label"]))
    assert torch.equal(cached[1]["tumour_voxels"], exact["tumour_voxels"])


def test_without_a_folder_nothing_is_kept(items, tmp_path, monkeypatch):
    reads = count_reads(monkeypatch)
    dataset = CaseCache(items, chain(), None)

    dataset[0]
    dataset[0]

    assert len(reads) == 10
    assert not (tmp_path / "cache").exists()


def test_changed_scan_makes_a_new_entry_and_removes_the_one_it_replaces(items, tmp_path):
    cache = tmp_path / "cache"
    dataset = CaseCache(items, chain(), cache)
    dataset[0], dataset[1]
    before = entries(cache)

    write_new = write_tiny_case(tmp_path / "hospital-2", "case-1")
    Path(write_new.image[0]).replace(items[0]["image"][0])
    changed = dataset[0]

    after = entries(cache)
    assert len(before) == len(after) == 2
    assert before[0] != after[0]
    assert before[1] == after[1]  # the other case's
    assert torch.equal(changed["image"], dataset[0]["image"])
    assert torch.equal(changed["image"], CaseCache(items, chain(), None)[0]["image"])


def test_changed_label_or_convention_makes_a_new_entry_too(items):
    before = fingerprint(items[0])

    assert fingerprint({**items[0], "labels": "brats2023"}) != before
    Path(items[0]["label"]).touch()
    assert fingerprint(items[0]) != before


@pytest.mark.parametrize("changed", [chain(spacing_mm=1.0), chain(image_dtype=torch.float32)])
def test_changed_setting_of_a_transform_makes_a_new_entry_beside_the_old_one(items, tmp_path, changed):
    CaseCache(items, chain(), tmp_path / "cache")[0]

    fresh = CaseCache(items, changed, None)[0]["image"]
    cached = CaseCache(items, changed, tmp_path / "cache")[0]["image"]

    assert cached.shape == fresh.shape
    assert len(entries(tmp_path / "cache")) == 2


def test_settings_are_told_apart_whatever_their_type():
    assert describe(Spacingd("image", [1, 1, 2])) != describe(Spacingd("image", [1, 1, 1]))
    assert describe(torch.float16) != describe(torch.float32)
    assert describe(np.array([1.0])) == [1.0]
    assert describe(torch.tensor([[1, 2]])) == [[1, 2]]
    assert describe({"a": (1, None, "x")}) == {"a": [1, None, "x"]}
    assert describe(transforms.is_not_zero) == "is_not_zero"


def test_two_sites_that_share_a_cache_and_a_case_name_keep_an_entry_each(tmp_path):
    cases = [write_tiny_case(tmp_path / f"hospital-{number}", "case-1") for number in (1, 2)]
    items = [{"case": c.case, "image": list(c.image), "label": c.label} for c in cases]
    dataset = CaseCache(items, chain(), tmp_path / "cache")

    first, second = dataset[0], dataset[1]

    assert len(entries(tmp_path / "cache")) == 2
    assert not torch.equal(first["image"], second["image"])
    assert torch.equal(dataset[0]["image"], first["image"])


@pytest.mark.parametrize("content", [b"", b"no tensors at all", None])
def test_damaged_entry_is_made_again_with_a_warning(items, tmp_path, content):
    dataset = CaseCache(items, chain(), tmp_path / "cache")
    good = dataset[0]["image"]
    (entry,) = (tmp_path / "cache").iterdir()
    entry.write_bytes(entry.read_bytes()[:1000] if content is None else content)

    with pytest.warns(UserWarning, match=r"case-1-.* in the cache is damaged .* it is made again"):
        again = dataset[0]["image"]

    assert torch.equal(again, good)
    assert torch.equal(dataset[0]["image"], good)  # without a warning: it is whole again


def test_full_disk_is_a_warning_and_the_data_are_right_all_the_same(items, tmp_path, monkeypatch):
    def full(*_: Any) -> None:
        raise RuntimeError("PytorchStreamWriter failed writing file data/0: file write failed")

    dataset = CaseCache(items, chain(), tmp_path / "cache")
    monkeypatch.setattr(torch, "save", full)

    with pytest.warns(UserWarning, match=r"could not be cached .* Free some space or set BRATS_FL_CACHE"):
        image = dataset[0]["image"]

    assert torch.equal(image, CaseCache(items, chain(), None)[0]["image"])
    assert entries(tmp_path / "cache") == []  # nothing half-written stays


def test_folder_that_cannot_be_made_is_a_warning_and_the_data_are_right_all_the_same(items, tmp_path):
    (tmp_path / "file").write_text("in the way")

    with pytest.warns(UserWarning, match="could not be cached"):
        image = CaseCache(items, chain(), tmp_path / "file" / "cache")[0]["image"]

    assert torch.equal(image, CaseCache(items, chain(), None)[0]["image"])


def test_two_threads_that_fill_one_cache_read_the_same(items, tmp_path):
    results: list[torch.Tensor] = []

    def fill() -> None:
        results.append(CaseCache(items, chain(), tmp_path / "cache")[0]["image"])

    threads = [threading.Thread(target=fill) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(results) == 4
    assert all(torch.equal(result, results[0]) for result in results)
    assert len(entries(tmp_path / "cache")) == 1


SETTINGS_OF_THE_BUNDLE = """
import sys
from monai.bundle import ConfigParser
from brats_fl.cache import CaseCache, fingerprint
parser = ConfigParser()
parser.read_config(sys.argv[1])
parser["data_list_file_path"] = sys.argv[2]
dataset = parser.get_parsed_content("train#dataset")
print(dataset.settings, fingerprint(dataset.data[0]))
"""


def test_another_process_finds_the_entries_of_this_one(shared_sites):
    config = str(Path(__file__).parents[2] / "bundles" / "brats_unet" / "configs" / "train.json")
    command = [sys.executable, "-W", "ignore", "-c", SETTINGS_OF_THE_BUNDLE, config]
    datalist = str(shared_sites / "hospital-1" / "datalist.json")

    other = subprocess.run([*command, datalist], capture_output=True, text=True, check=True).stdout.split()

    from monai.bundle import ConfigParser

    parser = ConfigParser()
    parser.read_config(config)
    parser["data_list_file_path"] = datalist
    assert other[0] == parser.get_parsed_content("train#dataset").settings
    assert other[1] == fingerprint(load_split(datalist, "training")[0])


def with_patches(seed: int) -> Compose:
    inner = Compose([transforms.RandTumourPatchd([16, 16, 16], 0.5)])
    return Compose([*chain().transforms[:-1], inner]).set_random_state(seed)


def test_random_transforms_are_redone_each_time_and_only_they(items, tmp_path):
    dataset = CaseCache(items, with_patches(0), tmp_path / "cache")

    assert len(dataset.fixed) == 4
    assert [type(step).__name__ for step in dataset.random] == ["RandTumourPatchd"]
    assert not torch.equal(dataset[0]["image"], dataset[0]["image"])


def test_random_state_decides_what_is_drawn_whether_the_case_was_cached_or_not(items, tmp_path):
    first, again = (CaseCache(items, with_patches(7), tmp_path / "cache") for _ in range(2))
    other = CaseCache(items, with_patches(8), tmp_path / "cache")

    for _ in range(3):
        drawn = first[0]["image"]
        assert torch.equal(drawn, again[0]["image"])
        assert not torch.equal(drawn, other[0]["image"])


def test_loader_gives_each_random_transform_its_own_seed(items):
    flips = [RandFlipd("image", prob=0.5, spatial_axis=axis) for axis in range(3)]
    dataset = CaseCache(items, Compose([transforms.LoadCased(), *flips]), None)

    DataLoader(dataset, num_workers=0)  # MONAI seeds the dataset's transforms here and in each worker

    draws = [[flip.R.random_sample() for _ in range(3)] for flip in flips]
    assert draws[0] != draws[1] != draws[2] != draws[0]


def test_cache_lies_beside_the_data_list_unless_the_variable_says_otherwise(tmp_path, monkeypatch):
    assert default_cache_dir(tmp_path / "datalist.json") == str(tmp_path / "cache")  # set for every test
    monkeypatch.setenv("BRATS_FL_CACHE", "/fast/disk")
    assert default_cache_dir(tmp_path / "datalist.json") == "/fast/disk"
    monkeypatch.delenv("BRATS_FL_CACHE")
    assert default_cache_dir(tmp_path / "site" / "datalist.json") == str(tmp_path.resolve() / "site" / "cache")
