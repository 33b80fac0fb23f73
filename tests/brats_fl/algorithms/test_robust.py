"""Robust aggregation by hand, and what is left of a hospital that sends anything."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from brats_fl.algorithms import Contribution, load_algorithm
from brats_fl.errors import JobError
from brats_fl.exchange import WEIGHTS

ROBUST = ("norm_bound", "coordinate_median", "trimmed_mean", "multi_krum")
HONEST = [[1.0, 2.0], [2.0, 2.0], [3.0, 2.0], [2.0, 1.0]]
"""Of four hospitals; their mean is (2, 1.75)."""


def aggregate(
    name: str, updates: Sequence[Sequence[float]], cases: Sequence[int] | None = None, **settings: float
) -> list[float]:
    """What an algorithm makes of updates of a model with two values."""
    parts = [
        Contribution(f"hospital-{index}", count, float(count), 1, {WEIGHTS: {"w": np.array(update, np.float32)}})
        for index, (update, count) in enumerate(zip(updates, cases or [1] * len(updates), strict=True), start=1)
    ]
    update, state = load_algorithm(name, settings).server_update({"w": np.zeros(2, np.float32)}, {}, parts)
    assert (update["w"].dtype, state) == (np.float32, {})
    return update["w"].tolist()


def test_median_is_taken_of_each_value():
    assert aggregate("coordinate_median", [[1, 9], [2, 8], [100, -100]]) == [2, 8]
    assert aggregate("coordinate_median", [[1, 0], [2, 0], [4, 0], [100, 0]]) == [3, 0]  # between 2 and 4


def test_trimmed_mean_leaves_out_the_largest_and_the_smallest_of_each_value():
    assert aggregate("trimmed_mean", [[1, 5], [2, -90], [3, 6], [70, 7]]) == [2.5, 5.5]
    assert aggregate("trimmed_mean", [[1, 0], [2, 0], [3, 0], [4, 0], [90, 0]], hostile=2) == [3, 0]


def test_multi_krum_leaves_out_the_update_that_lies_away_from_the_others():
    updates = [[0, 0], [1, 0], [0, 1], [1, 1], [9, 9]]

    # f = 1 of n = 5: scores are sums of the 2 nearest squared distances, 2 for each corner, 128 + 145 for (9, 9).
    assert aggregate("multi_krum", updates) == [0.5, 0.5]


def test_multi_krum_leaves_out_two_where_two_may_be_hostile():
    updates = [[0, 0], [1, 0], [0, 1], [1, 1], [0.5, 0.5], [9, 9], [-9, 9]]

    assert aggregate("multi_krum", updates, hostile=2) == [0.5, 0.5]


def test_norm_bound_shortens_to_the_median_length_and_weighs_by_cases():
    # Lengths 1, 2 and 50, the median 2: (0, 50) counts as (0, 2), with 2 of 4 cases.
    assert aggregate("norm_bound", [[1, 0], [2, 0], [0, 50]], [1, 1, 2]) == pytest.approx([0.75, 1.0])
    assert aggregate("norm_bound", [[1, 0], [2, 0], [0, 50]], [1, 1, 2], norm_ratio=2) == pytest.approx([0.75, 2.0])


@pytest.mark.parametrize("name", ROBUST)
def test_updates_that_agree_are_what_comes_out(name: str):
    assert aggregate(name, [[3, -4]] * 5) == pytest.approx([3, -4])


@pytest.mark.parametrize("hostile", [[-1e4, -1e4], [1e4, -1e4], [1e30, 1e30]], ids=["flipped", "sideways", "huge"])
@pytest.mark.parametrize("name", ROBUST)
def test_one_hostile_hospital_of_five_turns_the_mean_and_not_the_robust_one(name: str, hostile: list[float]):
    added = np.clip(hostile, -1e9, 1e9).tolist()  # a larger one cannot be added at all, and is refused before
    honest, plain = np.array([2.0, 1.75]), np.array(aggregate("fedavg", [*HONEST, added]))
    robust = np.array(aggregate(name, [*HONEST, hostile]))

    assert np.linalg.norm(plain - honest) > 1000
    assert np.linalg.norm(robust - honest) < 1.5
    assert robust @ honest > 0  # still downhill


@pytest.mark.parametrize("name", ["coordinate_median", "trimmed_mean", "multi_krum"])
def test_stated_cases_give_no_hospital_more_say(name: str):
    assert aggregate(name, [*HONEST, [9, 9]], [1, 1, 1, 1, 1000]) == aggregate(name, [*HONEST, [9, 9]])


@pytest.mark.parametrize(
    ("name", "settings", "least"),
    [
        ("fedavg", {}, 1),
        ("norm_bound", {}, 3),
        ("coordinate_median", {}, 3),
        ("trimmed_mean", {}, 3),
        ("trimmed_mean", {"hostile": 2}, 5),
        ("multi_krum", {}, 5),
        ("multi_krum", {"hostile": 2}, 7),
    ],
)
def test_algorithm_says_how_many_updates_it_needs(name: str, settings: dict[str, float], least: int):
    assert load_algorithm(name, settings).least_updates() == least


@pytest.mark.parametrize("value", [0, 1.5, -1, True])
def test_number_of_hostile_sites_is_a_whole_number_from_one_on(value: float):
    with pytest.raises(JobError, match="hostile must be a whole number"):
        load_algorithm("multi_krum", {"hostile": value})
