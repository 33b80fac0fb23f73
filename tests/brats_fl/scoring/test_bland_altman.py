from __future__ import annotations

import pytest

from brats_fl.scoring.bland_altman import VolumeBias, volume_bias


def test_limits_are_the_bias_and_1_96_standard_deviations_to_each_side():
    found = volume_bias([12.0, 9.0, 12.0], [10.0, 10.0, 10.0])  # differences 2, -1, 2

    assert found is not None
    assert found.bias_ml == pytest.approx(1.0)
    assert found.sd_ml == pytest.approx(3**0.5)  # (1 + 4 + 1) / (3 - 1) = 3
    assert (found.lower_ml, found.upper_ml) == pytest.approx((1 - 1.96 * 3**0.5, 1 + 1.96 * 3**0.5))


def test_single_case_has_a_bias_and_no_limits():
    assert volume_bias([3.0], [5.0]) == VolumeBias(-2.0, None, None, None)


def test_no_case_has_no_bias():
    assert volume_bias([], []) is None
