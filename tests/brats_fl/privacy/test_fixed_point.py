from __future__ import annotations

import numpy as np
import pytest

from brats_fl.errors import MaskingError
from brats_fl.privacy.fixed_point import LARGEST_CHANGE, decode, encode


def test_sum_of_encoded_updates_is_the_weighted_mean() -> None:
    first = {"a": np.array([1.0, -2.0], np.float32), "b": np.array([[0.5]], np.float32)}
    second = {"a": np.array([3.0, 2.0], np.float32), "b": np.array([[-1.5]], np.float32)}

    words = encode(first, 0.75, 2) + encode(second, 0.25, 2)

    mean = decode(words, 1.0, 2, first)
    np.testing.assert_allclose(mean["a"], [1.5, -1.0], atol=2e-8)  # .75 x 1 + .25 x 3, .75 x -2 + .25 x 2
    np.testing.assert_allclose(mean["b"], [[0.0]], atol=2e-8)  # .75 x .5 - .25 x 1.5
    assert words.dtype == np.uint32
    assert mean["a"].dtype == np.float32


def test_largest_changes_of_all_sites_do_not_wrap_around() -> None:
    sites = 5
    update = {"a": np.array([LARGEST_CHANGE, -LARGEST_CHANGE], np.float32)}

    words = sum((encode(update, 1 / sites, sites) for _ in range(sites)), np.zeros(2, np.uint32))

    np.testing.assert_allclose(decode(words, 1.0, sites, update)["a"], [LARGEST_CHANGE, -LARGEST_CHANGE])


def test_each_site_rounds_by_half_a_unit_at_most() -> None:
    sites = 5
    update = {"a": np.linspace(-1e-3, 1e-3, 1001)}

    words = sum((encode(update, 1 / sites, sites) for _ in range(sites)), np.zeros(1001, np.uint32))

    off = np.abs(decode(words, 1.0, sites, update)["a"] - update["a"])
    assert 0 < off.max() <= sites * 0.5 * 16 / (2**31 - 6) + 1e-10  # a unit is 16 / 2^31; float32 is off by 6e-11 here


@pytest.mark.parametrize("value", [LARGEST_CHANGE * 1.001, -20.0, np.inf, np.nan])
def test_value_that_would_wrap_around_is_an_error_that_names_the_parameter(value: float) -> None:
    update = {"a": np.zeros(3, np.float32), "b": np.array([value], np.float32)}

    with pytest.raises(MaskingError, match=r"b changed by .* in one round, the most .* is 16; lower the learning rate"):
        encode(update, 0.5, 2)


@pytest.mark.parametrize("share", [0.0, -0.1, 1.1, float("nan")])
def test_share_of_the_mean_is_above_nothing_and_at_most_the_whole(share: float) -> None:
    with pytest.raises(MaskingError, match="share of a site must be above 0 and at most 1"):
        encode({"a": np.zeros(1, np.float32)}, share, 2)
