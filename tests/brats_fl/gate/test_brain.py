"""The skull is gone, the brain is whole, and it lies at one place in all scans of a case."""

from __future__ import annotations

import numpy as np
import pytest
from tests.brats_fl.gate.thin import MIDDLE, SHAPE, as_thin, ball

from brats_fl.cases.grids import Grid
from brats_fl.gate.brain import check_background, check_same_place, check_wholeness, overlap
from brats_fl.gate.voxels import ThinCase

LPS = Grid(SHAPE, np.diag([-2.0, -2, 2, 1]))


def thin_of(*brains: np.ndarray) -> ThinCase:
    names = ("t1c", "t1n", "t2w", "t2f")
    return as_thin({name: brain.astype(np.float32) for name, brain in zip(names, brains, strict=False)}, None)


def test_ball_of_the_size_of_a_brain_is_a_whole_stripped_brain():
    # 4/3 pi 36^3 voxels of 8 mm^3: 1,563 ml, 146 mm long.
    thin = thin_of(ball(MIDDLE, 36))

    assert check_background("a", thin, {"t1c": 0.0}) == []
    assert check_wholeness("a", thin, LPS) == []


def test_head_is_too_much_for_a_brain():
    # All of the box: 96 x 96 x 80 voxels of 8 mm^3 are 5,898 ml.
    (finding,) = check_background("a", thin_of(np.ones(SHAPE)), {"t1c": 0.0})

    assert finding.rule == "G31-not-stripped"
    assert finding.found == "5,898 ml differ from the background; a brain has up to 2,200 ml"


def test_background_other_than_0_is_not_stripped():
    (finding,) = check_background("a", thin_of(ball(MIDDLE, 36)), {"t1c": -1.0})

    assert finding.found == "around the brain is -1, not 0"


@pytest.mark.parametrize(
    ("axis", "end", "name"),
    [(0, -1, "left"), (0, 0, "right"), (1, -1, "back"), (1, 0, "front"), (2, -1, "top")],
)
def test_plane_at_an_end_of_the_brain_is_named_as_a_physician_would(axis: int, end: int, name: str):
    brain = ball(MIDDLE, 36)
    cut = [slice(None)] * 3
    # 10 voxels of 2 mm below the pole: a disc of radius sqrt(36^2 - 26^2) = 25 voxels, 78 cm^2.
    cut[axis] = slice(MIDDLE[axis] + 27, None) if end == -1 else slice(0, MIDDLE[axis] - 26)
    brain[tuple(cut)] = False

    (finding,) = check_wholeness("a", thin_of(brain), LPS)

    assert finding.rule == "G32-brain-cut-off"
    assert f"the {name} of the brain is a plane of 7" in finding.found


def test_flat_bottom_is_as_brats_has_it():
    brain = ball(MIDDLE, 36)
    brain[:, :, : MIDDLE[2] - 31] = False  # 5 voxels below the pole: a disc of radius 18 voxels, 42 cm^2

    assert check_wholeness("a", thin_of(brain), LPS) == []


def test_brain_that_is_too_short_is_cut_off_even_where_its_end_is_round():
    (finding,) = check_wholeness("a", thin_of(ball(MIDDLE, 25)), LPS)

    # 51 voxels of 2 mm in every direction, 4/3 pi 25^3 voxels of 8 mm^3.
    assert "from right to left the brain is 102 mm long, less than 110" in finding.found
    assert "from front to back the brain is 102 mm long, less than 135" in finding.found
    assert "the brain has 52" in finding.found


def test_overlap_is_both_over_either():
    first, second = np.array([True, True, False, False]), np.array([False, True, True, True])

    assert overlap(first, second) == 1 / 4
    assert overlap(first & False, second & False) == 1.0


def test_scan_whose_brain_lies_elsewhere_is_the_odd_one():
    brain = ball(MIDDLE, 36)

    (finding,) = check_same_place("a", thin_of(brain, brain, np.roll(brain, 4, axis=1), brain))

    assert (finding.rule, finding.scan) == ("G33-brains-differ", "t2w")
    assert finding.severity == "error"
    assert "moved by [0, -8, 0] mm along its axes it shares 100%" in finding.found


def test_scan_that_covers_part_of_the_head_is_a_warning():
    brain = ball(MIDDLE, 36)
    part = brain.copy()
    part[:, :, MIDDLE[2] + 8 :] = False

    (finding,) = check_same_place("a", thin_of(brain, brain, brain, part))

    assert finding.severity == "warning"
    assert "0% of it lies outside theirs" in finding.found


def bored(axis: int, radius: int) -> np.ndarray:
    """A brain with a hole along an axis through its middle, which no shift and no mirror fills."""
    squares = np.add.reduce([(np.indices(SHAPE)[k] - MIDDLE[k]) ** 2 for k in range(3) if k != axis])
    return ball(MIDDLE, 36) & (squares > radius**2)


@pytest.mark.parametrize(("radius", "share", "severity"), [(16, 22, "error"), (8, 6, "warning")])
def test_two_brains_of_which_each_has_more_than_a_tenth_for_itself_are_not_of_one_head(radius, share, severity):
    # Holes of radius 16 along two axes are 52,000 of 195,000 voxels each, 21,000 of them common; of radius 8 14,000.
    (finding,) = check_same_place("a", thin_of(*[bored(2, radius)] * 3, bored(0, radius)))

    assert finding.severity == severity
    assert f"{share}% of it lies outside theirs and {share}% of theirs outside it" in finding.found


def test_brain_that_was_stripped_a_little_tighter_is_a_warning():
    # 35^3 / 36^3 = .92: one voxel of 2 mm all around, more than any two strippers of the field differ by.
    (finding,) = check_same_place("a", thin_of(*[ball(MIDDLE, 36)] * 3, ball(MIDDLE, 35)))

    assert (finding.severity, "shares 92%" in finding.found) == ("warning", True)


def test_scan_that_is_mirrored_is_called_so():
    brain = ball(MIDDLE, 36) & ~ball((20, 48, 40), 20)  # a dent at one side

    (finding,) = check_same_place("a", thin_of(brain, brain, brain, brain[::-1]))

    assert finding.scan == "t2f"
    assert "mirrored along axis 0 it shares 100%" in finding.found


def test_same_brains_share_all():
    assert check_same_place("a", thin_of(*[ball(MIDDLE, 36)] * 4)) == []
