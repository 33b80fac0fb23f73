"""Values of a label, its convention, and whether its parts lie as they must."""

from __future__ import annotations

import numpy as np
import pytest
from tests.brats_fl.gate.thin import TUMOUR, ball, make_label, make_thin, swap_parts

from brats_fl.cases.datalists import Case
from brats_fl.constants import ED, ET, NCR
from brats_fl.gate.labels import check_in_brain, check_parts, check_values, rim_shares
from brats_fl.gate.voxels import count_values


def listed(labels: str = "brats2018-2021") -> Case:
    return Case("a", "a", ("/d/a",) * 4, "/d/seg", labels)


@pytest.mark.parametrize(
    ("values", "labels", "rule", "found"),
    [
        ([0, 1, 2.5], "brats2023", "G41-label-not-integer", "holds 2.5 in 3 voxels"),
        ([0, 1, np.nan], "brats2023", "G41-label-not-integer", "holds nan in 3 voxels"),
        ([0], "brats2023", "G44-label-empty", "every voxel is 0"),
        (
            [0, 1, 2, 7],
            "brats2023",
            "G42-label-unknown-value",
            "holds 7 in 3 voxels; the convention brats2023 has 0, 1, 2, 3",
        ),
        (
            [0, 1, 2, 3, 4],
            "brats2023",
            "G42-label-unknown-value",
            "holds 4 in 3 voxels; the convention brats2023 has 0, 1, 2, 3",
        ),
        (
            [0, 1, 2, 3],
            "brats2018-2021",
            "G43-label-convention",
            "holds 3 in 3 voxels; the convention brats2018-2021 has 0, 1, 2, 4, the values fit brats2023 and "
            "msd-task01",
        ),
        (
            [0, 1, 2, 4],
            "msd-task01",
            "G43-label-convention",
            "holds 4 in 3 voxels; the convention msd-task01 has 0, 1, 2, 3, the values fit brats2018-2021",
        ),
        ([0, 2, 4], "brats2018-2021", "G45-label-part-missing", "has no necrotic core"),
        ([0, 4], "brats2018-2021", "G45-label-part-missing", "has no necrotic core and no oedema"),
        ([0, 2, 3], "msd-task01", "G45-label-part-missing", "has no oedema"),
    ],
)
def test_wrong_values_are_found(values: list[float], labels: str, rule: str, found: str):
    (finding,) = check_values(listed(labels), count_values(np.repeat(values, 3)))

    assert (finding.rule, finding.found, finding.scan) == (rule, found, "label")


@pytest.mark.parametrize("values", [[0, 1, 2, 4], [0, 1, 2], [1, 2]])
def test_tumour_without_enhancing_part_is_sound(values: list[int]):
    assert check_values(listed(), count_values(np.array(values))) == []


def test_values_that_are_whole_but_for_rounding_are_sound():
    assert check_values(listed(), count_values(np.array([0.0005, 0.9991, 2.0001, 3.9995], np.float32))) == []


@pytest.mark.parametrize(("shift", "is_found"), [(0, False), (16, True)])
def test_label_outside_the_brain_is_found(shift: int, is_found: bool):
    label = np.roll(make_label(), -shift, axis=0)

    assert [f.rule for f in check_in_brain("a", make_thin(), label)] == ["G46-label-outside-brain"] * is_found


def test_share_at_the_rim_is_counted_of_each_part():
    label = np.zeros((7, 7, 7), np.uint8)
    label[1:6, 1:6, 1:6] = ED  # 125 voxels, 98 of them at the outside
    label[2:5, 2:5, 2:5] = ET  # 27 inside, none at the outside

    # Oedema keeps its 98 outer voxels, and has no other.
    assert rim_shares(label) == {ED: 1.0, ET: 0.0}
    assert rim_shares(np.zeros((4, 4, 4), np.uint8)) == {}


def test_parts_as_they_are_in_patients_are_sound():
    assert check_parts(listed(), make_thin(), make_label()) == []


def test_msd_label_read_as_brats_2023_has_its_core_outside():
    (finding,) = check_parts(listed("brats2023"), make_thin(), swap_parts(make_label(), NCR, ED))

    assert finding.rule == "G43-label-convention"
    assert "of what is read as necrotic core lies at the tumour's rim, but 0% of the oedema" in finding.found
    assert finding.found.endswith("the values also fit msd-task01")


def test_core_brighter_than_enhancing_tumour_after_contrast_is_a_swap():
    (finding,) = check_parts(listed(), make_thin(), swap_parts(make_label(), NCR, ET))

    assert "what is read as enhancing tumour is darker in t1c than the necrotic core" in finding.found


def test_part_of_few_voxels_decides_nothing():
    label = np.where(ball(TUMOUR, 10), ED, 0).astype(np.uint8)
    label[TUMOUR[0] + 10, TUMOUR[1], TUMOUR[2]] = NCR  # one voxel, and at the rim

    assert check_parts(listed(), make_thin(), label) == []
