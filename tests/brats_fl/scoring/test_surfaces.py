"""Normalised surface Dice; HD95, which shares its distances, is in ``test_metrics.py``."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from monai.metrics import compute_surface_dice
from numpy.typing import NDArray
from tests.second_metrics import reference_surface_dice

from brats_fl.scoring.surfaces import surface_dice

Mask = NDArray[np.bool_]
ONE_MM = np.ones(3)


@st.composite
def pairs(draw) -> tuple[Mask, Mask]:
    """Two masks of one shape, sparse, dense or empty."""
    shape = draw(st.tuples(*[st.integers(1, 6)] * 3))
    return tuple(
        draw(arrays(np.float64, shape, elements=st.floats(0, 1))) < draw(st.sampled_from([0.0, 0.05, 0.5, 0.95]))
        for _ in range(2)
    )


spacings = st.tuples(*[st.floats(0.3, 3.0)] * 3)


def line(*filled: int) -> Mask:
    mask = np.zeros((12, 1, 1), dtype=bool)
    mask[list(filled)] = True
    return mask


@settings(max_examples=60, deadline=None, derandomize=True)
@given(pair=pairs(), spacing=spacings)
def test_random_masks_score_as_the_second_implementation_says(pair: tuple[Mask, Mask], spacing: tuple[float, ...]):
    expected = reference_surface_dice(*pair, spacing)

    assert surface_dice(*pair, np.array(spacing)) == pytest.approx(expected)
    assert surface_dice(*reversed(pair), np.array(spacing)) == pytest.approx(expected)  # it knows no direction


@settings(max_examples=30, deadline=None, derandomize=True)
@given(pair=pairs(), spacing=spacings)
def test_surface_dice_agrees_with_monai_where_both_masks_have_voxels(
    pair: tuple[Mask, Mask], spacing: tuple[float, ...]
):
    if not (pair[0].any() and pair[1].any()):
        return
    a, b = (torch.from_numpy(mask)[None, None] for mask in pair)

    theirs = compute_surface_dice(a, b, [1.001], include_background=True, spacing=list(spacing))

    assert surface_dice(*pair, np.array(spacing)) == pytest.approx(theirs.item(), abs=1e-6)


def test_voxels_of_both_surfaces_within_the_tolerance_count():
    # From a: 0 and 1 mm off. From b: 0, 1 and 5 mm off. Four of the five are within 1 mm.
    assert surface_dice(line(3, 4), line(4, 5, 9), ONE_MM) == pytest.approx(4 / 5)


def test_surface_that_is_one_voxel_off_is_within_1_mm_at_1_mm_and_not_at_2_mm():
    assert surface_dice(line(3), line(4), ONE_MM) == 1.0
    assert surface_dice(line(3), line(4), 2 * ONE_MM) == 0.0


def test_voxel_size_that_a_header_rounded_changes_nothing():
    assert surface_dice(line(3), line(4), np.array([1.0000001, 1, 1])) == 1.0


@pytest.mark.parametrize(
    ("mask", "reference", "expected"),
    [(line(), line(), 1.0), (line(1), line(), 0.0), (line(), line(1), 0.0)],
    ids=["both empty", "false positive", "missed"],
)
def test_empty_masks_score_as_dice_does(mask: Mask, reference: Mask, expected: float):
    assert surface_dice(mask, reference, ONE_MM) == expected
