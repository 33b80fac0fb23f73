from __future__ import annotations

import itertools
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from brats_fl.aggregation import capped_weights, most_capped, weighted_mean
from brats_fl.algorithms import Contribution
from brats_fl.errors import ModelError
from brats_fl.running_mean import RunningMean

Sent = tuple[str, float, int]
"""Site, the value of all its parameters, training cases."""


def part(site: str, value: float, cases: int, size: int = 2) -> Contribution:
    return Contribution(site, cases, cases, 4, {"weights": {"w": np.full(size, value, np.float32)}})


def mean_of(sent: list[Sent], max_share: float) -> Contribution:
    running = RunningMean(max_share)
    for site in sent:
        running.add(part(*site))
    return running.take()


def test_mean_is_weighted_by_cases_and_stands_for_all_of_them():
    mean = mean_of([("a", 1.0, 3), ("b", 5.0, 1)], max_share=0.5)

    assert mean.update["w"].tolist() == [2.0, 2.0]  # (3 x 1 + 1 x 5) / 4; of two, one owns any mean
    assert (mean.site, mean.cases, mean.weight, mean.steps) == ("all", 4, 4.0, 8)


@pytest.mark.parametrize(
    ("sent", "max_share", "mean"),
    [
        # a is cut to the 4 cases that the others have together: (4 x 4 + 3 x 0 + 1 x 8) / 8
        ([("a", 4.0, 9000), ("b", 0.0, 3), ("c", 8.0, 1)], 0.5, 3.0),
        # a and b are cut to 4 each, where c and d have 1: (4 x 1 + 4 x 2 + 1 x 3 + 1 x 5) / 10
        ([("a", 1.0, 60), ("b", 2.0, 30), ("c", 3.0, 5), ("d", 5.0, 5)], 0.4, 2.0),
        # three sites cannot have less than a third each, and all count the same
        ([("a", 1.0, 500), ("b", 2.0, 30), ("c", 6.0, 1)], 0.3, 3.0),
        # no one is above half: (3 x 1 + 2 x 2 + 1 x 5) / 6
        ([("a", 1.0, 3), ("b", 2.0, 2), ("c", 5.0, 1)], 0.5, 2.0),
        # nothing is ever cut: (8 x 1 + 1 x 1 + 1 x 11) / 10
        ([("a", 1.0, 8), ("b", 1.0, 1), ("c", 11.0, 1)], 1.0, 2.0),
    ],
)
def test_share_is_held_down_in_whatever_order_updates_come(sent: list[Sent], max_share: float, mean: float):
    for order in itertools.permutations(sent):
        assert mean_of(list(order), max_share).update["w"].tolist() == [mean, mean]


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.integers(1, 100_000) | st.integers(1, 4), min_size=1, max_size=12),
    st.floats(0.05, 1.0),
    st.randoms(use_true_random=False),
)
def test_bits_are_those_of_the_mean_of_all_updates_together_in_any_order(cases, max_share, random):
    rng = np.random.default_rng(len(cases))
    sent = [(f"hospital-{n}", float(rng.normal()), count) for n, count in enumerate(cases)]
    weights = capped_weights({site: count for site, _, count in sent}, max_share)
    together = weighted_mean([(part(site, value, 1).update, weights[site]) for site, value, _ in sorted(sent)])

    mean = mean_of(random.sample(sent, len(sent)), max_share)

    assert mean.update["w"].tobytes() == together["w"].tobytes()
    assert sum(weights[site] != count for site, _, count in sent) <= most_capped(max_share)


@pytest.mark.parametrize(("max_share", "most"), [(1.0, 0), (0.7, 1), (0.5, 1), (0.4, 2), (0.25, 3), (0.3, 3)])
def test_only_so_many_updates_wait_beside_the_sum(max_share: float, most: int):
    assert most_capped(max_share) == most
    running = RunningMean(max_share)

    for number in range(20):
        running.add(part(f"hospital-{number}", 1.0, number + 1))

    assert len(running.waiting) == most


def test_memory_does_not_grow_with_the_number_of_sites():
    size = 200_000  # 0.8 MB an update

    def peak(sites: int) -> int:
        tracemalloc.start()
        running = RunningMean(0.5)
        for number in range(sites):
            running.add(part(f"hospital-{number}", 1.0, number + 1, size))
        running.take()
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    few, many = peak(5), peak(50)

    assert many <= 1.05 * few
    assert few < 9 * 4 * size  # the sum is 3 updates, the mean 1; one waits, one comes; the rest is what adding takes


def test_update_that_cannot_be_added_is_left_out():
    running = RunningMean(0.5)
    running.add(part("a", 1.0, 1))

    with pytest.raises(ModelError, match="cannot be added 100000 times"):
        running.add(part("b", 1e7, 100_000))

    assert running.take().update["w"].tolist() == [1.0, 1.0]
