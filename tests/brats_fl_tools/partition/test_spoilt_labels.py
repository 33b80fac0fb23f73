"""Labels spoilt on purpose: each way by a map that a reader can redo, and lists whose test cases stay true."""

from __future__ import annotations

import os
from pathlib import Path

import nibabel
import numpy as np
import pytest
from numpy.typing import NDArray
from tests.tiny_sites import AFFINE, make_tiny_sites, write_tiny_case

from brats_fl.cases.datalists import DATALIST_FILE, DataList, read_datalist
from brats_fl.cases.grids import Grid
from brats_fl.cases.scans import Volume
from brats_fl.errors import CaseError
from brats_fl_tools.partition.spoilt_labels import (
    Spoiling,
    jitter_boundaries,
    mirror,
    spoil,
    swap_enhancing_and_oedema,
    write_spoilt,
)

Voxels = NDArray[np.generic]


def row(*values: int) -> NDArray[np.uint8]:
    """A map that differs along its first axis alone, (6, 1, 1)."""
    return np.array(values, dtype=np.uint8).reshape(-1, 1, 1)


def test_mirror_turns_left_and_right_wherever_the_file_has_that_axis():
    label = row(0, 1, 2, 3, 0, 0)
    last_axis_is_right = np.array([[0, 0, 2.0, 0], [0, 2.0, 0, 0], [2.0, 0, 0, 0], [0, 0, 0, 1.0]])

    np.testing.assert_array_equal(mirror(label, np.eye(4)), row(0, 0, 3, 2, 1, 0))
    np.testing.assert_array_equal(mirror(label, last_axis_is_right), label)  # along it, the map is one voxel
    np.testing.assert_array_equal(mirror(label.T, last_axis_is_right), row(0, 0, 3, 2, 1, 0).T)


def test_swap_leaves_core_and_background():
    np.testing.assert_array_equal(swap_enhancing_and_oedema(row(0, 1, 2, 3, 2, 0)), row(0, 1, 3, 2, 3, 0))


def test_noise_changes_no_voxel_that_has_its_own_label_all_around():
    label = np.zeros((20, 20, 20), np.uint8)
    label[:10] = 2

    noisy = jitter_boundaries(label, (3, 3, 3), seed=0)

    # Plane 9 takes its label from planes 6 to 12 alike: 4 of these 7 are of the oedema.
    assert (noisy[:7] == 2).all()
    assert (noisy[13:] == 0).all()
    assert (noisy[9] == 2).mean() == pytest.approx(4 / 7, abs=0.05)
    assert set(np.unique(noisy)) == {0, 2}
    np.testing.assert_array_equal(noisy, jitter_boundaries(label, (3, 3, 3), seed=0))
    assert (noisy != jitter_boundaries(label, (3, 3, 3), seed=1)).any()


@pytest.mark.parametrize(("table", "enhancing"), [("brats2018-2021", 4), ("brats2023", 3)])
def test_label_keeps_the_convention_of_its_file(table: str, enhancing: int):
    label = Volume(row(0, 2, 2, 1, enhancing, 0), Grid((6, 1, 1), np.eye(4)))

    np.testing.assert_array_equal(spoil(label, "swapped", table, 0), row(0, enhancing, enhancing, 1, 2, 0))


def test_noise_reaches_as_many_mm_whatever_the_voxels():
    label = row(2, 2, 2, 0, 0, 0)
    coarse = Volume(label, Grid((6, 1, 1), np.diag([9.0, 9.0, 9.0, 1.0])))  # 4 mm are less than half a voxel of 9

    np.testing.assert_array_equal(spoil(coarse, "noisy-boundary", "brats2023", 0), label)


def test_value_that_is_none_of_the_convention_is_refused():
    with pytest.raises(CaseError, match="7"):
        spoil(Volume(row(0, 7, 0, 0, 0, 0), Grid((6, 1, 1), np.eye(4))), "mirrored", "brats2023", 0)


def labels_in(datalist: DataList, split: str) -> list[Voxels]:
    return [np.asanyarray(nibabel.load(str(case.label)).dataobj) for case in datalist.split(split)]


@pytest.fixture
def whole(tmp_path: Path) -> DataList:
    """A hospital of two training cases and one each for validation and testing."""
    return read_datalist(make_tiny_sites(tmp_path / "sites", {"north": (2, 1, 1)}) / "north" / DATALIST_FILE)


def test_hospital_trains_and_validates_on_spoilt_labels_and_is_tested_on_its_own(whole: DataList, tmp_path: Path):
    spoilt = write_spoilt(tmp_path / "out", whole, "mirrored")

    assert spoilt.testing == whole.testing
    assert [case.label for case in spoilt.training] == [
        f"altered-labels/mirrored/{case.case}.nii.gz" for case in whole.training
    ]
    for split in ("training", "validation"):
        assert [case.image for case in spoilt.split(split)] == [case.image for case in whole.split(split)]
        for case, true in zip(spoilt.split(split), labels_in(whole, split), strict=True):
            written = nibabel.load(tmp_path / "out" / str(case.label))
            np.testing.assert_array_equal(np.asanyarray(written.dataobj), true[::-1])
            np.testing.assert_array_equal(written.affine, AFFINE)


def test_copy_is_made_again_only_where_the_label_is_newer(whole: DataList, tmp_path: Path):
    how: Spoiling = "swapped"
    copy = tmp_path / "out" / str(write_spoilt(tmp_path / "out", whole, how).training[0].label)
    first = copy.stat()

    write_spoilt(tmp_path / "out", whole, how)
    assert copy.stat().st_ino == first.st_ino

    os.utime(str(whole.training[0].label), (first.st_mtime + 5,) * 2)
    write_spoilt(tmp_path / "out", whole, how)
    assert copy.stat().st_ino != first.st_ino


def test_label_that_cannot_be_read_is_named(tmp_path: Path):
    case = write_tiny_case(tmp_path / "north", "a")
    Path(str(case.label)).unlink()

    with pytest.raises(CaseError, match=r"a: label: .* is not there"):
        write_spoilt(tmp_path / "out", DataList("north", (case,)), "mirrored")
