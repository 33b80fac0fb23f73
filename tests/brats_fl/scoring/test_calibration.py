"""Reliability, calibration error, entropy, and the voxels that they are taken over."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.second_metrics import reference_calibration_error

from brats_fl.scoring.calibration import BINS, Bin, Reliability, mean_entropy_bits, near_tumour, reliability

voxels = st.lists(st.tuples(st.floats(0, 1, width=32), st.booleans()), min_size=1, max_size=60)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(voxels=voxels)
def test_random_voxels_score_as_the_second_implementation_says(voxels: list[tuple[float, bool]]):
    # Away from the bins' edges, where float32 and float64 may differ on which side a value lies.
    inside = [(p, t) for p, t in voxels if abs(p * 10 - round(p * 10)) > 1e-3 or p in (0, 1)] or [(0.5, True)]
    probabilities, truths = (list(column) for column in zip(*inside, strict=True))

    error = reliability(np.array(probabilities, dtype=np.float32), np.array(truths)).expected_error()

    assert error == pytest.approx(reference_calibration_error(probabilities, truths), abs=1e-5)


def test_error_is_the_gap_between_what_was_said_and_what_came_true():
    # Of four voxels at .75 three are tumour: right. Of two at .25 none: a gap of .25 over two of six voxels.
    said = np.array([0.75] * 4 + [0.25] * 2)
    true = np.array([True, True, True, False, False, False])

    assert reliability(said, true).expected_error() == pytest.approx(2 / 6 * 0.25)


def test_gaps_of_opposite_sign_in_two_bins_do_not_cancel():
    bins = reliability(np.array([0.25, 0.75]), np.array([True, False]))

    assert bins.expected_error() == pytest.approx(0.75)


def test_table_has_a_row_a_bin_and_cases_add_up():
    one, other = (
        reliability(np.array([0.5, 1.0]), np.array([True, True])),
        reliability(np.array([0.59]), np.array([0 > 1])),
    )

    rows = (one + other).as_table()

    assert len(rows) == 10
    assert rows[5] == {
        "from": 0.5, "to": 0.6, "voxels": 2, "mean_probability": pytest.approx(0.545), "share": 0.5,
    }  # fmt: skip
    assert rows[9]["voxels"] == 1  # a probability of 1 is in the last bin
    assert rows[0] == {"from": 0.0, "to": 0.1, "voxels": 0, "mean_probability": None, "share": None}


def test_no_voxel_has_no_figure():
    nothing = np.zeros(0)

    assert reliability(nothing, nothing > 0).expected_error() is None
    assert mean_entropy_bits(nothing) is None


def test_entropy_is_one_bit_where_undecided_and_none_where_sure():
    assert mean_entropy_bits(np.array([0.5, 0.0, 1.0, 0.5])) == pytest.approx(0.5)
    # -(1/4 log2 1/4 + 3/4 log2 3/4) = 2/4 + 3/4 x 0.415
    assert mean_entropy_bits(np.array([0.25])) == pytest.approx(0.8112781)


def test_near_is_the_brain_within_10_mm_of_the_whole_tumour():
    tumour, brain = (np.zeros((31, 3, 1), dtype=bool) for _ in range(2))
    tumour[15, 1] = True
    brain[:, 1] = True
    brain[20, 1] = False

    box, near = near_tumour(tumour, brain, (1.0, 1.0, 1.0))

    found = np.zeros_like(brain)
    found[box] = near
    assert np.flatnonzero(found[:, 1, 0]).tolist() == [*range(5, 20), *range(21, 26)]
    assert not found[:, 0].any()

    _, near = near_tumour(tumour, brain, (4.0, 1.0, 1.0))
    assert np.count_nonzero(near) == 5  # two voxels of 4 mm to each side


def test_case_without_tumour_has_no_voxels_near_one():
    assert near_tumour(np.zeros((3, 3, 3), dtype=bool), np.ones((3, 3, 3), dtype=bool), (1.0, 1.0, 1.0)) is None


NOTHING = Bin(0, None, None)


def test_bins_of_two_evaluations_add_up_voxel_by_voxel():
    first = [Bin(2, 0.05, 0.5), *[NOTHING] * (BINS - 1)]
    second = [Bin(6, 0.09, 0.0), *[NOTHING] * (BINS - 1)]

    together = (Reliability.of_bins(first) + Reliability.of_bins(second)).bins()[0]

    # 2 voxels of .05 and 6 of .09 are .64 / 8 = .08 on average; 1 of 8 is of the region.
    assert (together.voxels, together.share) == (8, 0.125)
    assert together.mean_probability == pytest.approx(0.08)


def test_bins_are_what_they_were_made_of():
    found = reliability(np.array([0.25, 0.75, 0.78]), np.array([True, False, True]))

    again = Reliability.of_bins(found.bins())

    np.testing.assert_array_equal(again.voxels, found.voxels)
    np.testing.assert_array_equal(again.positive, found.positive)
    np.testing.assert_allclose(again.probability, found.probability)


@pytest.mark.parametrize(
    ("bins", "why"),
    [
        ([NOTHING] * 9, "must have 10 bins"),
        ([Bin(1, None, 0.5), *[NOTHING] * 9], "bin 0 must have"),
        ([Bin(1, 0.5, 1.5), *[NOTHING] * 9], "bin 0 must have"),
        ([Bin(0, 0.5, 0.5), *[NOTHING] * 9], "bin 0 must have"),
        ([Bin(-1, 0.5, 0.5), *[NOTHING] * 9], "bin 0 must have"),
    ],
)
def test_bins_that_cannot_be_are_refused(bins: list[Bin], why: str):
    with pytest.raises(ValueError, match=why):
        Reliability.of_bins(bins)
