"""Scans on disk: volumes of a 4-D file, as MSD Task01 has them, and files that are damaged in any way."""

from __future__ import annotations

import gzip
import pickle
import random
import tracemalloc
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from tests.tiny_sites import AFFINE, SHAPE, save, write_tiny_case

from brats_fl.cases import scans
from brats_fl.cases.nifti import nifti_stem
from brats_fl.cases.scans import VolumeReader, read_grid, split_volume
from brats_fl.cases.transforms import LoadCased
from brats_fl.errors import CaseError, ScanError, ScanFault

ORDER = (2, 1, 3, 0)  # t1c, t1n, t2w, t2f in a file of FLAIR, T1w, t1gd, T2w


@pytest.fixture
def items(tmp_path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """One case as four files, and as four volumes of one file."""
    case = write_tiny_case(tmp_path / "hospital-1", "case-1")
    volumes = [np.zeros(SHAPE)] * 4
    for number, scan in zip(ORDER, case.image, strict=True):
        volumes[number] = np.asarray(nib.load(scan).dataobj)
    save(np.stack(volumes, axis=3), tmp_path / "case-1.nii.gz")
    item = {"case": "case-1", "image": list(case.image), "label": case.label, "labels": case.labels}
    return item, {**item, "image": [f"{tmp_path}/case-1.nii.gz#{number}" for number in ORDER]}


def error_of(item: dict[str, Any]) -> str:
    with pytest.raises(CaseError) as caught:
        LoadCased()(item)
    return str(caught.value)


@pytest.mark.parametrize(
    ("scan", "file", "number"),
    [
        ("/d/a.nii.gz#2", "/d/a.nii.gz", 2),
        ("/d/a.nii#10", "/d/a.nii", 10),
        ("/d/A.NII.GZ#3", "/d/A.NII.GZ", 3),
        ("/d/a.nii.gz", "/d/a.nii.gz", None),
        ("/d#1/a.nii.gz", "/d#1/a.nii.gz", None),
        ("/d/a#1", "/d/a#1", None),
    ],
)
def test_number_after_a_nifti_ending_is_a_volume(scan: str, file: str, number: int | None):
    assert split_volume(scan) == (Path(file), number)


def test_volumes_of_one_file_are_read_as_the_four_files_are(items):
    four_files, one_file = (LoadCased()(item) for item in items)

    np.testing.assert_array_equal(one_file["image"], four_files["image"])
    np.testing.assert_array_equal(one_file["image"].affine, AFFINE)
    np.testing.assert_array_equal(one_file["label"], four_files["label"])


def test_file_of_four_volumes_is_decompressed_once(items, monkeypatch: pytest.MonkeyPatch):
    reads: list[str] = []
    load = scans.load_image

    def counting(path: Path) -> Any:
        reads.append(path.name)
        return load(path)

    monkeypatch.setattr(scans, "load_image", counting)

    LoadCased()(items[1])

    assert reads == ["case-1.nii.gz", "case-1_seg.nii.gz"]


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("case-1.nii.gz#4", "has the volumes #0 to #3, and #4 is named; name a 3-D file as it is, a volume"),
        ("case-1.nii.gz", "has shape (40, 48, 40, 4), and no volume of it is named; name a 3-D file as it is"),
        (
            "hospital-1/case-1/case-1_t2.nii.gz#0",
            "has shape (40, 48, 40), and its volume #0 is named; name a 3-D file as it is",
        ),
        ("absent.nii.gz#0", "is not there; restore the file"),
    ],
)
def test_volume_that_is_not_there_is_named(items, tmp_path: Path, entry: str, message: str):
    items[1]["image"][2] = f"{tmp_path}/{entry}"

    assert error_of(items[1]).startswith(f"case-1: t2w: {tmp_path}/{entry.partition('#')[0]} {message}")


# --- Files ---


@pytest.mark.parametrize("ending", [".nii", ".nii.gz", ".NII", ".NII.GZ", ".nii.GZ", ".Nii.Gz"])
def test_ending_may_be_in_capitals(tmp_path: Path, ending: str):
    voxels = np.arange(60, dtype=np.int16).reshape(3, 4, 5)
    save(voxels, tmp_path / f"a{ending.lower()}")
    (tmp_path / f"a{ending.lower()}").rename(tmp_path / f"a{ending}")

    assert nifti_stem(tmp_path / f"a{ending}") == "a"
    assert read_grid(tmp_path / f"a{ending}").shape == (3, 4, 5)
    np.testing.assert_array_equal(VolumeReader().read(tmp_path / f"a{ending}").voxels, voxels)


def test_file_of_64_bit_integers_is_read(tmp_path: Path):
    voxels = np.arange(60, dtype=np.int64).reshape(3, 4, 5)
    nib.save(nib.Nifti1Image(voxels, AFFINE, dtype=np.int64), tmp_path / "a.nii.gz")

    np.testing.assert_array_equal(VolumeReader().read(tmp_path / "a.nii.gz").voxels, voxels)


def test_axes_in_ras_are_nibabels_closest_canonical(tmp_path: Path):
    voxels = np.arange(60, dtype=np.int16).reshape(3, 4, 5)
    affine = np.array([[0.0, -2, 0, 9], [0, 0, 3, -8], [-1, 0, 0, 7], [0, 0, 0, 1]])
    nib.save(nib.Nifti1Image(voxels, affine), tmp_path / "a.nii")

    volume = VolumeReader().read(tmp_path / "a.nii").in_ras()

    canonical = nib.as_closest_canonical(nib.load(tmp_path / "a.nii"))
    np.testing.assert_array_equal(volume.voxels, canonical.dataobj)
    np.testing.assert_array_equal(volume.grid.affine, canonical.affine)
    assert volume.grid.axes == "RAS"


def damage(whole: bytes, rng: random.Random, packed: bool) -> bytes:
    """Up to 16 bytes of the header set to anything, perhaps cut short, perhaps packed and damaged again."""
    content = bytearray(whole)
    for _ in range(rng.choice([1, 2, 4, 16])):
        content[rng.randrange(352)] = rng.choice([0, 127, 128, 255, rng.randrange(256)])
    if rng.random() < 0.2:
        content = content[: rng.randrange(len(content))]
    if not packed:
        return bytes(content)
    content = bytearray(gzip.compress(content, 1))
    if rng.random() < 0.5:
        content[rng.randrange(len(content))] = rng.randrange(256)
    return bytes(content)


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
def test_damaged_file_is_refused_in_our_words_or_read_whatever_is_damaged(tmp_path: Path, ending: str):
    whole = nib.Nifti1Image(np.arange(60, dtype=np.int16).reshape(3, 4, 5), AFFINE).to_bytes()
    rng, path = random.Random(0), tmp_path / f"a{ending}"
    refusals: list[str] = []
    for _ in range(150):
        path.write_bytes(damage(whole, rng, packed=ending == ".nii.gz"))
        for read in (read_grid, VolumeReader().read):
            try:
                read(path)
            except ScanError as error:
                refusals.append(error.found)

    assert len(refusals) > 100
    assert all(str(path) in found for found in refusals)


@pytest.mark.parametrize(
    ("shape", "found"),
    [
        ((4000, 4000, 40), "says that it has 4000 x 4000 x 40 = 640,000,000 voxels; no more than 134,217,728 are read"),
        ((100, 100, 100), "goes on beyond the 1,000,352 bytes that its header speaks of, by more than 1,048,576"),
    ],
)
def test_packed_file_does_not_fill_the_memory_whatever_it_claims_or_holds(
    tmp_path: Path, shape: tuple[int, ...], found: str
):
    header = nib.Nifti1Image(np.zeros((2, 2, 2), np.uint8), AFFINE).header
    header.set_data_shape(shape)
    header["vox_offset"] = 352
    (tmp_path / "a.nii.gz").write_bytes(gzip.compress(header.binaryblock + bytes(4) + bytes(64 << 20), 1))

    for read in (read_grid, VolumeReader().read):
        tracemalloc.start()
        with pytest.raises(ScanError) as caught:
            read(tmp_path / "a.nii.gz")
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert found in str(caught.value)
        assert most < 8 << 20  # of the 64 MiB that it unpacks to


def test_header_that_is_followed_by_far_too_much_is_refused(tmp_path: Path):
    image = nib.Nifti1Image(np.zeros((2, 2, 2), np.uint8), AFFINE)
    image.header["vox_offset"] = 1 << 30
    (tmp_path / "a.nii").write_bytes(image.header.binaryblock + bytes(4) + bytes(8))

    with pytest.raises(ScanError, match=r"its voxels begin at byte 1,073,741,824; no more than 16,777,216 are read"):
        read_grid(tmp_path / "a.nii")


def test_error_survives_the_way_from_one_process_to_another():
    error = ScanError(ScanFault.MISSING, "/a.nii is not there")

    copy = pickle.loads(pickle.dumps(error))

    assert (str(copy), copy.fault, copy.code) == (str(error), ScanFault.MISSING, "CASE_ERROR")
    assert str(error) == "/a.nii is not there; restore the file, or take the case off the list"
