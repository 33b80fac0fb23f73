"""What a scan's values say at a glance, before anything is computed from it."""

from __future__ import annotations

import numpy as np
import pytest

from brats_fl.cases.grids import Grid
from brats_fl.cases.scan_values import MENDS, background_of, fault_at_a_glance, reach_of, refuse_at_a_glance
from brats_fl.errors import CaseError
from brats_fl.gate import RULES

SHAPE = (96, 96, 80)
GRID = Grid(SHAPE, np.diag([2.0, 2, 2, 1]))


def brain() -> np.ndarray:
    voxels = np.zeros(SHAPE, np.int16)
    voxels[20:76, 20:76, 15:65] = np.random.default_rng(0).integers(50, 500, (56, 56, 50))
    return voxels  # 156,800 voxels of 8 mm^3: 1,254 ml


def test_stripped_brain_is_sound():
    assert fault_at_a_glance(brain(), GRID) is None
    assert background_of(brain()) == 0


def test_head_is_no_brain():
    head = brain()
    head[5:90, 5:90, 2:78] = np.maximum(head[5:90, 5:90, 2:78], 1)  # 549,100 voxels of 8 mm^3: 4,393 ml

    rule, found = fault_at_a_glance(head, GRID) or ("", "")

    assert rule == "G31-not-stripped"
    assert "ml are not 0; a brain has up to 2,600 ml" in found


@pytest.mark.parametrize(("value", "reach", "is_hot"), [(1000, 1.6, False), (30_000, 68, True), (-30_000, 69, True)])
def test_voxel_far_beyond_all_others_is_hot(value: int, reach: float, is_hot: bool):
    voxels = brain()  # 50 to 500: its median is 275, its middle 98 % are 440 apart
    voxels[41, 41, 41] = value

    assert reach_of(voxels) == pytest.approx(reach, rel=0.03)
    assert (fault_at_a_glance(voxels, GRID) or ("",))[0] == ("G27-hot-voxels" if is_hot else "")


def test_background_far_below_a_brain_of_even_brightness_is_not_hot():
    voxels = np.where(brain() > 0, np.random.default_rng(0).integers(3000, 3010, SHAPE), 0)

    assert reach_of(voxels) < 1


def test_brain_of_few_voxels_has_no_range():
    voxels = np.zeros(SHAPE, np.int16)
    voxels[20:28, 20:28, 20:28] = 5
    voxels[20, 20, 20] = 30_000

    assert reach_of(voxels) == 0


def test_brain_that_every_fourth_voxel_misses_is_seen():
    voxels = np.zeros(SHAPE, np.int16)
    voxels[1, 1, 1] = 7

    assert fault_at_a_glance(voxels, GRID) is None


def test_refusal_names_case_scan_rule_file_and_mend():
    with pytest.raises(CaseError) as caught:
        refuse_at_a_glance("case-1", "t2f", np.zeros(SHAPE, np.int16), GRID, "/d/t2f.nii")

    assert str(caught.value) == "case-1: t2f: G22-constant: every voxel is 0 (/d/t2f.nii); export the scan again"


def test_rules_at_a_glance_are_errors_of_the_gate_with_the_same_mend():
    assert {rule: (RULES[rule].severity, RULES[rule].mend) for rule in MENDS} == {
        rule: ("error", mend) for rule, mend in MENDS.items()
    }
