from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

from brats_fl.aggregation import capped_weights, check_size, check_update, count_of_cases, weighted_mean
from brats_fl.errors import ModelError

MODEL = {"conv.weight": np.zeros((2, 2), np.float32), "conv.bias": np.zeros(2, np.float32)}


def update(value: float) -> dict[str, Any]:
    return {name: np.full_like(array, value) for name, array in MODEL.items()}


def mean_of(*contributions: tuple[dict[str, Any], float]) -> dict[str, Any]:
    return weighted_mean(contributions)


def test_site_with_three_cases_counts_three_times_as_much_as_one_with_one():
    mean = mean_of((update(1.0), 3), (update(5.0), 1))  # (3 x 1 + 1 x 5) / 4

    assert mean["conv.bias"].tolist() == [2.0, 2.0]
    assert mean["conv.weight"].tolist() == [[2.0, 2.0], [2.0, 2.0]]
    assert mean["conv.bias"].dtype == np.float32


def test_update_of_a_single_site_comes_back_bit_for_bit():
    rng = np.random.default_rng(0)
    change = {"w": rng.normal(size=10_000).astype(np.float32)}

    np.testing.assert_array_equal(mean_of((change, 37))["w"], change["w"])


def test_global_model_and_update_of_a_single_site_give_its_local_model():
    rng = np.random.default_rng(1)
    before, local = (rng.normal(size=1000).astype(np.float32) for _ in range(2))

    mean = mean_of(({"w": local - before}, 3))

    np.testing.assert_allclose(before + mean["w"], local, rtol=0, atol=2**-22)  # one rounding of values under 4


def test_order_of_arrival_does_not_matter():
    rng = np.random.default_rng(2)
    sites = [({"w": rng.normal(size=1000).astype(np.float32)}, cases) for cases in (36, 8, 61)]

    means = [mean_of(*order)["w"] for order in itertools.permutations(sites)]

    assert all(np.array_equal(mean, means[0]) for mean in means)


def test_large_counts_of_half_precision_updates_do_not_overflow():
    change = {"w": np.full(2, 60_000, np.float16)}  # float16 ends at 65,504

    assert mean_of((change, 1000), (change, 1000))["w"].tolist() == [60_000, 60_000]


@pytest.mark.parametrize("cases", [0, -1, 3.0, float("nan"), None, "3", True, [3], 10**9, 1.7e308])
def test_number_of_cases_that_is_no_positive_whole_number_is_refused(cases: Any):
    with pytest.raises(ModelError, match="its number of training cases must be a whole number from 1 to 100,000"):
        count_of_cases(cases)


@pytest.mark.parametrize(
    ("cases", "max_share", "weights"),
    [
        ((30, 10, 20), 0.5, (30, 10, 20)),  # the largest has half
        ((90, 10, 20), 0.5, (30, 10, 20)),  # cut to what the others have together
        ((90, 10), 0.5, (90, 10)),  # of two, one owns any mean
        ((7,), 0.5, (7,)),
        ((100, 100, 1, 1), 0.4, (4, 4, 1, 1)),  # both at 0.4, the others share 0.2
        ((60, 30, 5, 5), 0.4, (4, 4, 1, 1)),  # of the 0.6 beside the first the second would have 0.45
        ((5, 1, 1), 0.3, (1, 1, 1)),  # three sites cannot have less than a third each
        ((100_000, 1, 1, 1, 1), 0.5, (4, 1, 1, 1, 1)),
    ],
)
def test_no_site_of_three_or_more_has_more_than_its_share(cases, max_share, weights):
    got = capped_weights(dict(zip("abcde", cases, strict=False)), max_share)

    shares = [value / sum(got.values()) for value in got.values()]
    assert shares == pytest.approx([value / sum(weights) for value in weights])


def test_mean_of_nothing_is_refused():
    with pytest.raises(ModelError, match="no update to average: none was accepted"):
        weighted_mean([])


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_update_with_a_value_that_is_not_finite_is_refused_with_its_name(value: float):
    bad = update(1.0)
    bad["conv.weight"][1, 0] = value

    with pytest.raises(ModelError, match=r"conv\.weight holds NaN or infinite values"):
        check_update(bad, MODEL)


def test_missing_and_unknown_keys_are_counted_and_only_the_networks_own_are_named():
    bad = {"conv.weight": MODEL["conv.weight"], "up.weight": np.zeros(1), "up.bias": np.zeros(1)}

    with pytest.raises(ModelError, match=r"1 missing \(first: conv\.bias\), 2 unknown;") as refused:
        check_update(bad, MODEL)
    assert "up." not in str(refused.value)  # a site's own text has no place in the server's log


def test_empty_update_is_refused():
    with pytest.raises(ModelError, match=r"2 missing \(first: conv\.bias\), 0 unknown"):
        check_update({}, MODEL)


def test_wrong_shape_is_refused_with_both_shapes():
    with pytest.raises(ModelError, match=r"conv\.bias has shape \(3,\), the network's has \(2,\)"):
        check_update({**update(0.0), "conv.bias": np.zeros(3)}, MODEL)


def test_update_that_fits_passes():
    check_update(update(1e-3), MODEL)


def test_update_far_larger_than_the_model_is_refused():
    model = {"a": np.array([3.0]), "b": np.array([4.0])}  # norm 5
    check_size({"a": np.array([30.0]), "b": np.array([40.0])}, model, max_ratio=10.0)  # norm 50

    with pytest.raises(ModelError, match="it has L2 norm 51, the most that counts as training is 50"):
        check_size({"a": np.array([51.0]), "b": np.array([0.0])}, model, max_ratio=10.0)
