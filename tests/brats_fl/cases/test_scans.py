"""Scans that are volumes of a 4-D file, as MSD Task01 has them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from tests.tiny_sites import AFFINE, SHAPE, save, write_tiny_case

from brats_fl.cases import transforms
from brats_fl.cases.scans import split_volume
from brats_fl.cases.transforms import LoadCased
from brats_fl.errors import CaseError

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
    read = transforms.read_volume

    def counting(case: str, name: str, path: Path) -> Any:
        reads.append(path.name)
        return read(case, name, path)

    monkeypatch.setattr(transforms, "read_volume", counting)

    LoadCased()(items[1])

    assert reads == ["case-1.nii.gz", "case-1_seg.nii.gz"]


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("case-1.nii.gz#4", "t2w is named as volume #4, but its file has #0 to #3; name one of these"),
        (
            "case-1.nii.gz",
            "t2w has shape (40, 48, 40, 4); a volume must be 3-D, or be named as one of a 4-D file, case",
        ),
        (
            "hospital-1/case-1/case-1_t2.nii.gz#0",
            "t2w is named as volume #0, but its file has shape (40, 48, 40); leave #0 out",
        ),
        ("absent.nii.gz#0", "t2w is missing; restore"),
    ],
)
def test_volume_that_is_not_there_is_named(items, tmp_path: Path, entry: str, message: str):
    items[1]["image"][2] = f"{tmp_path}/{entry}"

    assert f"case-1: {message}" in error_of(items[1])
