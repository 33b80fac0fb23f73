"""Lesion-wise scores by BraTS 2023's rule, on a line of voxels that a reader can count."""

from __future__ import annotations

from dataclasses import astuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from tests.second_metrics import reference_lesions

from brats_fl.scoring.lesions import LesionScores, lesion_scores

Mask = NDArray[np.bool_]
BIG = np.array([1.0, 8.0, 8.0])
"""A voxel of 64 mm3: each is a lesion that counts."""


def line(*filled: int) -> Mask:
    mask = np.zeros((40, 1, 1), dtype=bool)
    mask[list(filled)] = True
    return mask


@st.composite
def pairs(draw) -> tuple[Mask, Mask]:
    shape = draw(st.tuples(st.integers(6, 16), st.integers(1, 4), st.integers(1, 4)))
    return tuple(
        draw(arrays(np.float64, shape, elements=st.floats(0, 1), fill=st.just(0.99)))
        < draw(st.sampled_from([0.0, 0.3, 0.9]))
        for _ in range(2)
    )


@settings(max_examples=60, deadline=None, derandomize=True)
@given(pair=pairs(), spacing=st.tuples(*[st.floats(1.0, 5.0)] * 3))
def test_random_masks_score_as_the_second_implementation_says(pair: tuple[Mask, Mask], spacing: tuple[float, ...]):
    scores = lesion_scores(*pair, np.array(spacing))

    assert astuple(scores) == pytest.approx(reference_lesions(*pair, spacing))


def test_each_lesion_counts_once_whatever_its_size():
    reference = line(*range(10), 30)  # ten voxels and one
    prediction = line(*range(10))

    # The large one is right, Dice 1 and HD95 0; the small one is missed. Dice of the whole would be 20 / 21.
    assert lesion_scores(prediction, reference, BIG) == LesionScores(0.5, 374 / 2, found=1, missed=1, false=0)


def test_false_lesion_costs_as_much_as_a_missed_one():
    assert lesion_scores(line(5, 30), line(5), BIG) == LesionScores(0.5, 374 / 2, found=1, missed=0, false=1)


def test_parts_of_the_reference_that_meet_after_three_steps_each_are_one_lesion():
    # Between 5 and 12 lie six voxels: three steps from each side meet. Between 5 and 13 lie seven.
    assert lesion_scores(line(5, 12), line(5, 12), BIG).found == 1
    assert lesion_scores(line(5, 13), line(5, 13), BIG).found == 2


def test_prediction_within_three_voxels_of_a_lesion_is_its_own():
    assert lesion_scores(line(8), line(5), BIG) == LesionScores(0.0, 3.0, found=1, missed=0, false=0)
    assert lesion_scores(line(9), line(5), BIG) == LesionScores(0.0, 374.0, found=0, missed=1, false=1)


def test_all_parts_of_the_prediction_that_meet_a_lesion_are_scored_together():
    scores = lesion_scores(line(3, 5), line(3, 4, 5), BIG)

    assert (scores.dice, scores.found, scores.false) == (2 * 2 / (2 + 3), 1, 0)


def test_lesion_of_50_mm3_is_passed_over_and_its_prediction_is_no_false_one():
    size = np.array([1.0, 5.0, 5.0])  # 25 mm3 a voxel

    assert lesion_scores(line(5, 6), line(5, 6), size) == LesionScores(1.0, 0.0, found=0, missed=0, false=0)
    assert lesion_scores(line(), line(5, 6), size) == LesionScores(1.0, 0.0, found=0, missed=0, false=0)
    assert lesion_scores(line(), line(5, 6, 7), size) == LesionScores(0.0, 374.0, found=0, missed=1, false=0)


def test_voxel_size_that_a_header_rounded_makes_no_lesion_of_a_speck():
    assert lesion_scores(line(), line(5, 6), np.array([1.0000001, 5.0, 5.0])).missed == 0


def test_false_lesion_counts_from_its_first_voxel():
    assert lesion_scores(line(30), line(), np.ones(3)) == LesionScores(0.0, 374.0, found=0, missed=0, false=1)


def test_region_that_is_in_neither_mask_is_perfect():
    assert lesion_scores(line(), line(), BIG) == LesionScores(1.0, 0.0, found=0, missed=0, false=0)


def test_distance_that_is_known_is_not_measured_again():
    assert lesion_scores(line(5), line(6), BIG, whole_hd95_mm=7.0).hd95_mm == 7.0  # one lesion, one part: the region
    assert lesion_scores(line(5, 30), line(6), BIG, whole_hd95_mm=7.0).hd95_mm == (1.0 + 374) / 2
