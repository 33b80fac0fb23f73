"""Whether the scans of a case lie on one grid, and which of them does not."""

from __future__ import annotations

import numpy as np
import pytest

from brats_fl.cases.grids import Grid, find_odd_grids, grids_fault, main_grid

AFFINE = np.array([[-2.0, 0, 0, 40], [0, -2.0, 0, 48], [0, 0, 2.0, -40], [0, 0, 0, 1]])
SHAPE = (40, 48, 40)


def grid(change: np.ndarray | None = None, shape: tuple[int, ...] = SHAPE) -> Grid:
    return Grid(shape, AFFINE if change is None else AFFINE @ change)


def test_grid_tells_spacing_directions_and_size_of_a_voxel():
    tall = grid(np.diag([1.0, 1, 1.5, 1]))

    np.testing.assert_allclose(tall.spacing_mm, [2, 2, 3])
    assert tall.axes == "LPS"
    assert tall.voxel_ml == pytest.approx(0.012)  # 2 x 2 x 3 mm


def test_grid_that_most_have_is_the_main_one_and_of_two_the_first():
    short = grid(shape=(40, 48, 39))

    assert main_grid({"t1c": short, "t1n": grid(), "t2w": grid()}).shape == SHAPE
    assert main_grid({"t1c": short, "t1n": grid()}).shape == (40, 48, 39)


def test_the_odd_one_is_named_with_its_file_and_the_mend():
    grids = {"t1c": grid(shape=(40, 48, 39)), "t1n": grid(), "label": grid()}

    assert [odd.scan for odd in find_odd_grids(grids)] == ["t1c"]
    assert grids_fault(grids, {"t1c": "/a.nii", "t1n": "/b.nii", "label": "/c.nii"}) == (
        "t1c: shape 40 x 48 x 39, t1n has 40 x 48 x 40 (/a.nii); "
        "all files of a case must share one grid: register or resample onto that of the others"
    )


def test_grids_that_differ_by_rounding_are_one():
    rounded = Grid(SHAPE, AFFINE + 0.0005)

    assert grids_fault({"t1c": grid(), "t1n": rounded}, {"t1c": "a", "t1n": "b"}) is None
    assert find_odd_grids({}) == []
