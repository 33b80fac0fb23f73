"""Whether a label lies where the scans show the tumour."""

from __future__ import annotations

import numpy as np
import pytest
from tests.brats_fl.gate.thin import SHAPE, TUMOUR, ball, make_label, make_thin

from brats_fl.gate.tumour_fit import Placement, best_shift, check_place, draw_sample, fit, other_orientations


def found(label: np.ndarray) -> str:
    findings = check_place("a", make_thin(label), label)
    assert [finding.rule for finding in findings] in ([], ["G47-label-not-on-image"])
    return findings[0].found if findings else ""


def test_label_on_the_tumour_is_sound():
    assert found(make_label()) == ""


def test_label_explains_more_where_the_tumour_is_than_anywhere_else():
    sample = draw_sample(make_thin(), make_label())

    assert fit(sample) > 0.6
    assert fit(sample, Placement(shift=(30, 0, 0))) < 0.05
    assert fit(sample, Placement(shift=(500, 0, 0))) == 0.0  # out of the box


@pytest.mark.parametrize(
    ("label", "fits"),
    [
        (make_label()[::-1], "mirrored along axis 0"),
        (make_label()[:, ::-1, ::-1], "mirrored along axis 1 and 2"),
        (make_label().transpose(1, 0, 2), "its axes in the order (1, 0, 2)"),
    ],
    ids=["left to right", "upside down and back to front", "first two axes"],
)
def test_label_that_is_turned_is_told_how_it_fits(label: np.ndarray, fits: str):
    assert found(label).endswith(f"with {fits}")


def test_label_that_is_shifted_is_told_by_how_much():
    # 8 voxels of 2 mm.
    assert found(np.roll(make_label(), 8, axis=1)).endswith("when it is moved by [0, -16, 0] mm along its axes")


def test_label_of_another_patient_fits_nowhere():
    elsewhere = np.where(ball((64, 60, 30), 9), 2, 0).astype(np.uint8)
    thin = make_thin(elsewhere)
    plain = {name: np.where(make_label() > 0, 100, scan).astype(np.float32) for name, scan in thin.scans.items()}

    (finding,) = check_place("a", make_thin(elsewhere, **plain), elsewhere)

    assert finding.found.endswith("not more in another place: it may be another patient's")


def test_search_finds_a_shift_that_is_no_multiple_of_its_steps():
    label = np.roll(make_label(), (5, -11, 3), axis=(0, 1, 2))

    value, placement = best_shift(draw_sample(make_thin(label), label), np.full(3, 2.0))

    assert placement.shift == (-5, 11, -3)
    assert value > 0.6


@pytest.mark.parametrize(("shape", "count"), [((4, 4, 4), 47), ((240, 240, 155), 15), ((2, 3, 4), 7)])
def test_other_orientations_are_those_that_fit_the_box(shape: tuple[int, ...], count: int):
    placements = list(other_orientations(shape))

    assert len(set(placements)) == len(placements) == count


def test_orientation_moves_voxels_as_numpy_does():
    label = make_label()
    sample = draw_sample(make_thin(), label.transpose(1, 0, 2)[::-1])

    # Mirrored in the label's first axis, which is the scans' second.
    assert fit(sample, Placement((1, 0, 2), (False, True, False))) == pytest.approx(
        fit(draw_sample(make_thin(), label)), abs=0.02
    )


def test_few_voxels_are_not_judged():
    label = np.zeros(SHAPE, np.uint8)
    label[TUMOUR[0] + 40, TUMOUR[1], TUMOUR[2]] = 1

    assert check_place("a", make_thin(label), label) == []
