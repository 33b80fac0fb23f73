from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import DataLoader
from monai.transforms import CastToTyped, Compose, RandFlipd, Spacingd
from tests.tiny_sites import save, write_tiny_case

import brats_fl.cases.cache as cache
import brats_fl.cases.scans as scans
import brats_fl.cases.transforms as transforms
from brats_fl.cases.cache import CaseCache, default_cache_dir, describe
from brats_fl.cases.cache_folder import list_entries
from brats_fl.errors import CacheError, CaseError, ScanValuesError


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
    load = scans.load_image

    def counting(path: Path) -> Any:
        reads.append(path)
        return load(path)

    monkeypatch.setattr(scans, "load_image", counting)
    return reads


def entries(folder: Path) -> list[str]:
    return sorted(entry.path.name for entry in list_entries(folder))


def use_long_ago(folder: Path, *numbers: int) -> list[str]:
    """Names of the entries, in the order of their last use, which is now some seconds after 1970."""
    names = [entry.path.name for entry in list_entries(folder)]
    for name, number in zip(names, numbers, strict=True):
        os.utime(folder / name, (number, number))
    return names


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


def spoil(item: dict[str, Any], change: Callable[[np.ndarray], np.ndarray]) -> None:
    """Change the case's t2w."""
    image = nib.load(item["image"][2])
    save(change(np.asarray(image.dataobj)), item["image"][2], image.affine)


def with_a_hot_voxel(voxels: np.ndarray) -> np.ndarray:
    hot = voxels.astype(np.int32)
    hot[20, 24, 20] = 10**6
    return hot


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        (np.zeros_like, "G22-constant: every voxel is 0"),
        (lambda voxels: voxels + 12, "G31-not-stripped: around the brain is 12, not 0"),
        (with_a_hot_voxel, "G27-hot-voxels: one voxel at least is "),
    ],
)
def test_case_that_was_refused_is_refused_again_without_being_read(items, tmp_path, monkeypatch, change, rule):
    reads = count_reads(monkeypatch)
    spoil(items[0], change)
    with pytest.raises(ScanValuesError, match=rule) as first:
        CaseCache(items, chain(), tmp_path / "cache")[0]
    assert reads != []
    reads.clear()

    with pytest.raises(ScanValuesError) as again:
        CaseCache(items, chain(), tmp_path / "cache")[0]

    assert reads == []
    assert str(again.value) == str(first.value)


def test_refusal_names_the_case_and_the_file_of_today(items, tmp_path):
    spoil(items[0], np.zeros_like)
    with pytest.raises(ScanValuesError):
        CaseCache(items, chain(), tmp_path / "cache")[0]
    moved = Path(shutil.copytree(tmp_path / "hospital-1", tmp_path / "moved"))
    image = [str(moved / Path(scan).relative_to(tmp_path / "hospital-1")) for scan in items[0]["image"]]
    label = str(moved / Path(items[0]["label"]).relative_to(tmp_path / "hospital-1"))

    with pytest.raises(ScanValuesError) as refused:
        CaseCache([{**items[0], "case": "other", "image": image, "label": label}], chain(), tmp_path / "cache")[0]

    assert str(refused.value) == f"other: t2w: G22-constant: every voxel is 0 ({image[2]}); export the scan again"


def test_case_that_is_mended_is_read_anew(items, tmp_path):
    sound = Path(items[0]["image"][2]).read_bytes()
    spoil(items[0], np.zeros_like)
    with pytest.raises(ScanValuesError):
        CaseCache(items, chain(), tmp_path / "cache")[0]

    Path(items[0]["image"][2]).write_bytes(sound)

    assert CaseCache(items, chain(), tmp_path / "cache")[0]["image"].shape[0] == 4


def test_checks_at_reading_are_done_once_for_a_sound_case(items, tmp_path, monkeypatch):
    looked_at: list[str] = []
    refuse = transforms.refuse_at_a_glance

    def counting(case: str, name: str, *args: Any) -> None:
        looked_at.append(name)
        refuse(case, name, *args)

    monkeypatch.setattr(transforms, "refuse_at_a_glance", counting)
    dataset = CaseCache(items, chain(), tmp_path / "cache")

    for _ in range(3):
        dataset[0]

    assert looked_at == ["t1c", "t1n", "t2w", "t2f"]


def test_file_that_cannot_be_read_is_tried_again(items, tmp_path, monkeypatch):
    sound = Path(items[0]["image"][2]).read_bytes()
    Path(items[0]["image"][2]).write_bytes(sound[:-100])
    for _ in range(2):
        reads = count_reads(monkeypatch)
        with pytest.raises(CaseError, match="is cut short"):
            CaseCache(items, chain(), tmp_path / "cache")[0]
        assert reads != []


def test_without_a_folder_nothing_is_kept(items, tmp_path, monkeypatch):
    reads = count_reads(monkeypatch)
    dataset = CaseCache(items, chain(), None)

    dataset[0]
    dataset[0]

    assert len(reads) == 10
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("how", ["copied", "touched", "renamed"])
def test_same_scans_find_their_entry_wherever_they_lie_and_whatever_they_are_called(items, tmp_path, monkeypatch, how):
    first = CaseCache(items, chain(), tmp_path / "cache")[0]
    item = items[0]
    files = [Path(file) for file in [*item["image"], item["label"]]]
    if how == "copied":
        (tmp_path / "elsewhere").mkdir()
        files = [Path(shutil.copy(file, tmp_path / "elsewhere")) for file in files]
    for file in files if how == "touched" else []:
        file.touch()
    name = "another" if how == "renamed" else "case-1"
    same = {"case": name, "image": [str(file) for file in files[:4]], "label": str(files[4]), "labels": item["labels"]}
    reads = count_reads(monkeypatch)

    again = CaseCache([same], chain(), tmp_path / "cache")[0]

    assert reads == []
    assert again["case"] == name
    assert torch.equal(again["image"], first["image"])
    assert len(entries(tmp_path / "cache")) == 1


@pytest.mark.parametrize("key", ["image", "label", "labels"])
def test_changed_scan_label_or_convention_makes_a_new_entry(items, tmp_path, key):
    dataset = CaseCache(items, chain(), tmp_path / "cache")
    dataset[0]
    before = entries(tmp_path / "cache")

    other = write_tiny_case(tmp_path / "hospital-2", "case-1")
    if key == "image":
        Path(other.image[0]).replace(items[0]["image"][0])
    if key == "label":
        Path(str(other.label)).replace(items[0]["label"])
    if key == "labels":
        label = np.asarray(nib.load(items[0]["label"]).dataobj)
        save(label % 4, Path(items[0]["label"]))  # 1 and 2 alone, which both conventions know
        dataset[0]
        before = entries(tmp_path / "cache")
        dataset.data[0] = {**items[0], "labels": "brats2023"}
    changed = dataset[0]

    assert len(entries(tmp_path / "cache")) == len(before) + 1
    fresh = CaseCache(dataset.data, chain(), None)[0]
    assert torch.equal(changed["image"], fresh["image"])
    assert torch.equal(changed["label"], fresh["label"])


def test_case_that_changes_while_it_is_prepared_is_not_stored(items, tmp_path, monkeypatch):
    dataset = CaseCache(items, chain(), tmp_path / "cache")
    load = scans.load_image

    def changing(path: Path) -> Any:
        Path(items[0]["image"][0]).touch()
        with Path(items[0]["image"][0]).open("ab") as file:
            file.write(b"\0")  # gzip allows zeros behind its end
        return load(path)

    monkeypatch.setattr(scans, "load_image", changing)
    dataset[0]

    assert entries(tmp_path / "cache") == []


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


def test_tensors_of_an_entry_are_mapped_and_outlive_its_removal(items, tmp_path):
    dataset = CaseCache(items, chain(), tmp_path / "cache")
    dataset[0]
    stored = dataset._stored(items[0])
    (name,) = entries(tmp_path / "cache")
    expected = stored["image"].clone()

    assert name in Path("/proc/self/maps").read_text(encoding="utf-8")
    (tmp_path / "cache" / name).unlink()

    assert torch.equal(stored["image"], expected)


def test_entry_that_vanishes_before_it_is_read_is_made_again_without_a_word(items, tmp_path, monkeypatch):
    dataset = CaseCache(items, chain(), tmp_path / "cache")
    first = dataset[0]["image"]

    def too_late(path: Path, **_: Any) -> None:
        path.unlink()
        raise RuntimeError("unable to open file in read-only mode")  # torch opens it twice, the second time like this

    monkeypatch.setattr(torch, "load", too_late)

    assert torch.equal(dataset[0]["image"], first)
    assert len(entries(tmp_path / "cache")) == 1


@pytest.mark.parametrize("content", [b"", b"no tensors at all", None])
def test_damaged_entry_is_made_again_with_a_warning(items, tmp_path, content):
    dataset = CaseCache(items, chain(), tmp_path / "cache")
    good = dataset[0]["image"]
    (entry,) = (tmp_path / "cache").glob("*.pt")
    entry.write_bytes(entry.read_bytes()[:1000] if content is None else content)

    with pytest.warns(UserWarning, match=r"case-1: .* in the cache is damaged .* it is made again"):
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
    assert list((tmp_path / "cache").glob("*.*")) == []  # nothing half-written stays


def test_folder_that_cannot_be_made_is_a_warning_and_the_data_are_right_all_the_same(items, tmp_path):
    (tmp_path / "file").write_text("in the way")

    with pytest.warns(UserWarning, match="could not be cached"):
        image = CaseCache(items, chain(), tmp_path / "file" / "cache")[0]["image"]

    assert torch.equal(image, CaseCache(items, chain(), None)[0]["image"])


# --- Limit ---


@pytest.fixture
def limit_of_one_entry(items, tmp_path, monkeypatch) -> Path:
    """The folder of a cache that has room for one of the two cases, and holds the first."""
    monkeypatch.setattr(cache, "_told_full", bytearray(1))
    CaseCache(items, chain(), tmp_path / "cache")[0]
    (entry,) = list_entries(tmp_path / "cache")
    monkeypatch.setenv("BRATS_FL_CACHE_LIMIT_GB", str(1.5 * entry.size / 1e9))
    return tmp_path / "cache"


def test_least_recently_used_entry_makes_room(items, limit_of_one_entry):
    (old,) = use_long_ago(limit_of_one_entry, 1)

    CaseCache(items, chain(), limit_of_one_entry)[1]

    (new,) = entries(limit_of_one_entry)
    assert new != old


def test_entry_used_by_this_process_stays_and_one_warning_tells_that_the_cache_is_full(items, limit_of_one_entry):
    use_long_ago(limit_of_one_entry, 1)
    dataset = CaseCache(items, chain(), limit_of_one_entry)
    dataset[0]
    (kept,) = entries(limit_of_one_entry)

    with pytest.warns(UserWarning, match=r"cache: the cache is full .* Set BRATS_FL_CACHE_LIMIT_GB") as warned:
        images = [dataset[index % 2]["image"] for index in range(6)]

    assert len(warned) == 1
    assert entries(limit_of_one_entry) == [kept]
    assert torch.equal(images[1], CaseCache(items, chain(), None)[1]["image"])


def test_limit_that_is_no_positive_number_is_told_when_the_dataset_is_made(items, tmp_path, monkeypatch):
    monkeypatch.setenv("BRATS_FL_CACHE_LIMIT_GB", "0")

    with pytest.raises(CacheError, match=r"BRATS_FL_CACHE_LIMIT_GB must be a positive number of GB \(got '0'\); set"):
        CaseCache(items, chain(), tmp_path / "cache")
    CaseCache(items, chain(), None)  # without a cache nobody asks


# --- Many processes ---


def test_threads_that_fill_one_cache_read_the_same(items, tmp_path):
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


FILL_UNTIL_THE_THIRD_CASE = """
import sys, time
from pathlib import Path
import torch
from monai.bundle import ConfigParser
parser = ConfigParser()
parser.read_config(sys.argv[2:])
parser["data_list_file_path"] = sys.argv[1]
dataset = parser.get_parsed_content("train#dataset")
save = torch.save
def save_half(tensors, path):
    if len(list(Path(path).parent.glob("*.pt"))) == 2:
        Path(path).write_bytes(b"half")
        print("stuck", flush=True)
        time.sleep(60)
    save(tensors, path)
torch.save = save_half
for index in range(3):
    dataset[index]
"""


def test_filling_that_was_killed_goes_on_where_it_stopped(shared_sites, tmp_path, monkeypatch):
    configs = Path(__file__).parents[3] / "bundles" / "brats_unet" / "configs"
    of_small = [str(configs / f"{name}.json") for name in ("train", "small")]
    datalist = str(shared_sites / "hospital-1" / "datalist.json")
    command = [sys.executable, "-W", "ignore", "-c", FILL_UNTIL_THE_THIRD_CASE, datalist, *of_small]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"stuck\n"
        process.kill()
    killed = {path.name: path.stat().st_ino for path in (tmp_path / "cache").glob("*.*")}
    (scratch,) = (tmp_path / "cache").glob("*.tmp")
    assert len(killed) == 3
    os.utime(scratch, (1, 1))  # as if it had been killed long ago
    reads = count_reads(monkeypatch)

    from monai.bundle import ConfigParser

    parser = ConfigParser()
    parser.read_config(of_small)
    parser["data_list_file_path"] = datalist
    dataset = parser.get_parsed_content("train#dataset")
    for index in range(3):
        dataset[index]

    assert len(reads) == 5  # of the third case alone
    after = {path.name: path.stat().st_ino for path in (tmp_path / "cache").glob("*.*")}
    assert after.items() >= {name: inode for name, inode in killed.items() if name != scratch.name}.items()
    assert len(after) == 3
    assert scratch.name not in after


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
