"""What one scan's values tell by themselves."""

from __future__ import annotations

import numpy as np
import pytest

from brats_fl.gate.voxels import count_values, scan_faults


def brain(values: np.ndarray) -> np.ndarray:
    """1,000 voxels of brain in a box of 20 x 20 x 20, 0 around it."""
    scan = np.zeros((20, 20, 20), values.dtype)
    scan[5:15, 5:15, 5:15] = values.reshape(10, 10, 10)
    return scan


def faults_of(scan: np.ndarray) -> list[tuple[str, str]]:
    return scan_faults(scan, scan)


def test_sound_scan_has_no_fault():
    assert faults_of(brain(np.arange(1, 1001, dtype=np.int16))) == []


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_voxel_that_is_not_finite_is_found_wherever_it_lies(value: float):
    scan = brain(np.arange(1, 1001, dtype=np.float32))
    scan[1, 2, 3] = value

    # The thin part may miss the voxel; the whole scan is looked at.
    assert scan_faults(scan, scan[::2, ::2, ::2]) == [("G21-not-finite", "1 voxels are NaN or infinite")]


def test_constant_scan_is_found():
    assert faults_of(np.full((20, 20, 20), 7)) == [("G22-constant", "every voxel is 7")]


def test_mask_in_place_of_a_scan_is_constant():
    assert faults_of(brain(np.ones(1000)))[0][0] == "G22-constant"


def test_scan_that_is_nearly_empty_is_constant():
    scan = np.zeros((20, 20, 20))
    scan[10, 10, :4] = (1, 2, 3, 4)  # 4 of 8,000 voxels

    assert faults_of(scan)[0][0] == "G22-constant"


def test_negative_share_is_that_of_the_brain():
    # -250 to 749 without 0: a quarter below 0.
    values = np.arange(-250, 750, dtype=np.int16)
    values[250] = 1

    assert faults_of(brain(values)) == [("G23-negative", "goes down to -250; 25.0% of the brain is negative")]


@pytest.mark.parametrize(("at_the_top", "is_found"), [(1, False), (5, False), (6, True)])
def test_scan_is_saturated_from_more_than_half_a_percent_of_the_brain_on(at_the_top: int, is_found: bool):
    values = np.minimum(np.arange(1, 1001), 1001 - at_the_top).astype(np.int16)

    assert [rule for rule, _ in faults_of(brain(values))] == (["G24-saturated"] if is_found else [])


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32, np.float64])
def test_values_of_a_label_are_listed_whatever_its_type(dtype: type):
    label = np.zeros((4, 4, 4), dtype)
    label[1, 1, 1], label[2, 2, 2] = 4, 1

    values, counts = count_values(label)

    np.testing.assert_array_equal(values, [0, 1, 4])
    np.testing.assert_array_equal(counts, [62, 1, 1])


def test_values_beyond_a_byte_and_fractions_are_listed():
    np.testing.assert_array_equal(count_values(np.array([0, 300, -1], np.int16)).values, [-1, 0, 300])
    np.testing.assert_array_equal(count_values(np.array([0.5, 0], np.float32)).values, [0, 0.5])
