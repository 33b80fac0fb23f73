"""Each degradation does what its unit says, leaves the background alone, and gives the same bytes each time."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from brats_fl.constants import MODALITIES
from brats_fl_tools.stress.degradations import FUNCTIONS, apply, slice_matrix
from brats_fl_tools.stress.plan import DEGRADATIONS

SHAPE = (24, 20, 16)
AFFINE = np.diag([-1.0, -1.0, 2.0, 1.0])
"""1 x 1 x 2 mm, the third axis from foot to head."""


def make_scans() -> NDArray[np.float32]:
    """A box of brain with noise about 100, 200, 300 and 400, and 0 around it."""
    rng = np.random.default_rng(0)
    scans = np.zeros((4, *SHAPE), np.float32)
    for channel, level in enumerate((100, 200, 300, 400)):
        scans[channel, 4:20, 4:16, 3:13] = rng.normal(level, level / 10, (16, 12, 10))
    return scans


def degrade(name: str, strength: float, scans: NDArray[np.float32], case: str = "case-1") -> NDArray[np.float32]:
    return apply(name, strength, scans, AFFINE, case)


EVERY_GRADE = [(name, strength) for name, one in DEGRADATIONS.items() for strength in one.strengths]


def test_everything_that_can_be_asked_for_is_there():
    assert list(FUNCTIONS) == list(DEGRADATIONS)


@pytest.mark.parametrize(("name", "strength"), EVERY_GRADE)
def test_same_case_gives_the_same_bytes_and_its_scans_are_not_touched(name: str, strength: float):
    scans = make_scans()

    first, second = degrade(name, strength, scans), degrade(name, strength, scans)

    assert first.tobytes() == second.tobytes()
    assert first.dtype == np.float32
    assert first.shape == scans.shape
    assert np.isfinite(first).all()
    assert not np.array_equal(first, scans)
    np.testing.assert_array_equal(scans, make_scans())


@pytest.mark.parametrize(("name", "strength"), [one for one in EVERY_GRADE if one[0] not in ("shift", "missing")])
def test_what_is_outside_the_brain_stays_0_and_what_is_inside_does_not_become_it(name: str, strength: float):
    scans = make_scans()

    np.testing.assert_array_equal(degrade(name, strength, scans) != 0, scans != 0)


@pytest.mark.parametrize("name", [name for name, one in DEGRADATIONS.items() if one.neutral is not None])
def test_neutral_strength_changes_nothing(name: str):
    scans, degradation = make_scans(), DEGRADATIONS[name]
    assert degradation.neutral is not None

    np.testing.assert_allclose(degrade(name, degradation.neutral, scans), scans, rtol=1e-5)


@pytest.mark.parametrize("name", ["noise", "bias", "shift"])
def test_what_is_drawn_is_another_for_another_case(name: str):
    scans = make_scans()
    strength = DEGRADATIONS[name].strengths[-1]

    assert not np.array_equal(degrade(name, strength, scans), degrade(name, strength, scans, case="case-2"))


def test_noise_has_the_stated_share_of_the_deviation_of_its_modality():
    scans = make_scans()
    inside = scans[0] != 0

    added = degrade("noise", 0.5, scans) - scans

    for channel, level in enumerate((100, 200, 300, 400)):
        assert added[channel][inside].std() == pytest.approx(0.5 * level / 10, rel=0.1)
    np.testing.assert_allclose(degrade("noise", 1.0, scans) - scans, 2 * added, atol=0.01)  # the same noise, twice it


def test_bias_field_is_one_for_all_scans_with_the_stated_ratio():
    scans = make_scans()
    inside = scans[0] != 0

    field = degrade("bias", 1.5, scans)[:, inside] / scans[:, inside]

    assert field[0].max() / field[0].min() == pytest.approx(1.5, rel=1e-4)
    np.testing.assert_allclose(field, np.broadcast_to(field[0], field.shape), rtol=1e-4)


def test_blur_spreads_a_point_to_the_stated_width_in_mm_on_any_grid():
    scans = np.ones((4, 41, 41, 41), np.float32)
    scans[:, 20, 20, 20] = 1001
    affine = np.diag([1.0, 1.0, 2.0, 1.0])

    blurred = apply("blur", 6.0, scans, affine, "case-1")[0] - 1

    # Half of the largest value lies 3 mm off: 3 voxels of 1 mm. Of 2 mm it would be one and a half.
    assert blurred[23, 20, 20] / blurred[20, 20, 20] == pytest.approx(0.5, abs=0.01)
    assert blurred[20, 20, 21] / blurred[20, 20, 20] == pytest.approx(2 ** -((2 / 3) ** 2), abs=0.01)


def test_blur_does_not_draw_the_background_into_the_rim_of_the_brain():
    scans = np.zeros((4, *SHAPE), np.float32)
    scans[:, 4:20, 4:16, 3:13] = 7

    np.testing.assert_allclose(degrade("blur", 6.0, scans), scans, rtol=1e-4)


def test_gamma_keeps_mean_and_deviation_and_bends_what_is_between():
    scans = make_scans()
    inside = scans[0] != 0

    changed = degrade("gamma", 2.0, scans)

    assert changed[0][inside].mean() == pytest.approx(scans[0][inside].mean(), rel=1e-3)
    assert changed[0][inside].std() == pytest.approx(scans[0][inside].std(), rel=1e-3)
    assert np.median(changed[0][inside]) < np.median(scans[0][inside])  # a square has its long tail on the right


def test_shift_moves_one_modality_other_than_t1c_by_the_stated_mm():
    scans = np.zeros((4, 30, 30, 30), np.float32)
    scans[:, 12:18, 12:18, 12:18] = 1
    affine = np.diag([-1.0, -1.0, 2.0, 1.0])

    shifted = apply("shift", 4.0, scans, affine, "case-1")

    moved = [channel for channel in range(4) if not np.array_equal(shifted[channel], scans[channel])]
    assert len(moved) == 1
    assert moved != [0]
    voxels = np.indices(scans.shape[1:]).reshape(3, -1)
    before, after = (voxels @ image[moved[0]].ravel() / image[moved[0]].sum() for image in (scans, shifted))
    assert np.linalg.norm(affine[:3, :3] @ (after - before)) == pytest.approx(4.0, rel=1e-3)


def test_every_modality_but_t1c_is_shifted_in_some_case():
    scans = make_scans()
    moved = set()
    for number in range(20):
        shifted = degrade("shift", 2.0, scans, case=f"case-{number}")
        moved |= {channel for channel in range(4) if not np.array_equal(shifted[channel], scans[channel])}

    assert moved == {1, 2, 3}


def test_thick_slices_are_means_with_a_straight_line_between_them():
    # Voxels of 2 mm: 0 2 4 6. Slices of 4 mm: 1 5, their middles at 2 and 6 mm; voxels lie at 1, 3, 5 and 7 mm.
    np.testing.assert_allclose(slice_matrix(4, 2.0, 4.0) @ [0, 2, 4, 6], [1, 2, 4, 5])
    # Slices of 3 mm: (2 x 0 + 1 x 2) / 3 = 2/3, (1 x 2 + 2 x 4) / 3 = 10/3, then 6 alone, at 1.5, 4.5 and 7.5 mm.
    expected = [2 / 3, 2 / 3 + 8 / 3 * 1.5 / 3, 10 / 3 + 8 / 3 * 0.5 / 3, 10 / 3 + 8 / 3 * 2.5 / 3]
    np.testing.assert_allclose(slice_matrix(4, 2.0, 3.0) @ [0, 2, 4, 6], expected, rtol=1e-5)


def test_slices_are_thick_from_foot_to_head_whatever_axis_that_is():
    scans = np.ones((4, 12, 12, 12), np.float32)
    scans[:, 6:] = 3  # a step along the first axis alone
    head_first = np.array([[0.0, 0, 1, 0], [0, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 1]])

    along = apply("resolution", 5.0, scans, head_first, "case-1")
    across = apply("resolution", 5.0, scans, np.eye(4), "case-1")

    assert not np.allclose(along, scans)
    np.testing.assert_allclose(across, scans, rtol=1e-5)


def test_slices_that_are_thicker_already_stay_as_they_are():
    scans = make_scans()

    np.testing.assert_array_equal(degrade("resolution", 1.5, scans), scans)


@pytest.mark.parametrize("channel", range(4))
def test_missing_modality_is_0_everywhere_and_the_others_stay(channel: int):
    scans = make_scans()

    left = degrade("missing", channel, scans)

    assert not left[channel].any()
    np.testing.assert_array_equal(np.delete(left, channel, axis=0), np.delete(scans, channel, axis=0))
    assert DEGRADATIONS["missing"].label(channel) == MODALITIES[channel]


@pytest.mark.parametrize(("name", "strength"), EVERY_GRADE)
def test_scan_that_is_0_everywhere_stays_so(name: str, strength: float):
    scans = make_scans()
    scans[1] = 0

    assert not degrade(name, strength, scans)[1].any()
