from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from brats_fl.errors import ModelError
from brats_fl.exact_sums import MOST_ADDENDS, ExactSum


def one(*values: float) -> dict[str, Any]:
    return {"w": np.array(values, np.float32)}


def sum_of(*addends: tuple[dict[str, Any], float]) -> ExactSum:
    total = ExactSum(addends[0][0])
    for update, weight in addends:
        total.add(update, weight)
    return total


def test_number_is_a_whole_number_of_units_and_a_rest_that_is_never_negative():
    # 1.5 x 3 = 4.5 = 294,912 units of 2^-16; -2^-20 is one unit less, and 15/16 of a unit.
    total = sum_of((one(1.5, -(2.0**-20)), 3))

    assert total.units["w"].tolist() == [294_912, -1]
    assert total.rests["w"].tolist() == [0, 13 * 2**28]  # 3 x 2^-20 is 3/16 of a unit: -1 + 13/16


def test_rests_carry_over_into_the_units():
    half_a_unit = one(2.0**-17)

    total = sum_of(*[(half_a_unit, 1)] * 3)

    assert (total.units["w"].tolist(), total.rests["w"].tolist()) == ([1], [2**31])


def test_small_updates_are_not_lost_beside_a_large_one_in_any_order():
    # In float64 2^30 + 2^-25 is 2^30, twice; the sum of the three is 2^30 + 2^-24.
    addends = [(one(2.0**30), 1.0), (one(2.0**-25), 1.0), (one(2.0**-25), 1.0)]

    for order in itertools.permutations(addends):
        total = sum_of(*order, (one(-(2.0**30)), 1.0))
        assert total.divided_by(1)["w"].tolist() == [2.0**-24]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.floats(-(2.0**20), 2.0**20, width=32), st.integers(1, 100_000)), min_size=1, max_size=8),
    st.randoms(use_true_random=False),
)
def test_every_order_gives_the_same_bits_and_they_are_those_of_the_fraction(
    addends: list[tuple[float, int]], random: Any
) -> None:
    shuffled = random.sample(addends, len(addends))
    sums = [sum_of(*((one(value), weight) for value, weight in order)) for order in (addends, shuffled)]
    total = sum(weight for _, weight in addends)

    means = [found.divided_by(total)["w"] for found in sums]

    assert means[0].tobytes() == means[1].tobytes()
    exact = sum(Fraction(value) * weight for value, weight in addends)
    assert abs(Fraction(int(sums[0].units["w"][0]), 2**16) + Fraction(int(sums[0].rests["w"][0]), 2**48) - exact) <= (
        len(addends) * Fraction(1, 2**49)  # half a grid step each
    )
    assert means[0][0] == pytest.approx(float(exact / total), rel=2.0**-23, abs=len(addends) * 2.0**-49)


@pytest.mark.parametrize("value", [2.0**21, -(2.0**21), np.inf, np.nan])
def test_value_that_cannot_be_added_is_refused_and_nothing_is_added(value: float):
    total = sum_of((one(1.0), 1))

    with pytest.raises(ModelError, match=r"w holds a value of .* which cannot be added 100000 times"):
        total.add(one(value), 100_000)
    assert total.divided_by(1)["w"].tolist() == [1.0]


def test_as_many_of_the_largest_as_a_sum_may_have_do_not_wrap_around_and_one_more_is_refused():
    largest = float(np.nextafter(np.float32(2.0**20), np.float32(0)))
    total = sum_of(*[(one(largest, -largest), 2.0**17)] * MOST_ADDENDS)

    assert total.divided_by(MOST_ADDENDS * 2.0**17)["w"].tolist() == [largest, -largest]
    with pytest.raises(ModelError, match="a mean is of 1,024 updates at most"):
        total.add(one(0.0, 0.0), 1)


class MemoryRunsOut(Mapping[str, Any]):
    """An update whose second array cannot be read when it is to be added."""

    def __init__(self) -> None:
        self.reads = 0

    def __getitem__(self, name: str) -> Any:
        self.reads += 1
        if self.reads == 4:  # both arrays are looked at first
            raise MemoryError
        return np.ones(1, np.float32)

    def __iter__(self) -> Iterator[str]:
        return iter(("a", "b"))

    def __len__(self) -> int:
        return 2


def test_sum_of_which_an_addition_was_broken_off_gives_no_mean():
    total = ExactSum({"a": np.zeros(1), "b": np.zeros(1)})
    with pytest.raises(MemoryError):
        total.add(MemoryRunsOut(), 1)

    with pytest.raises(ModelError, match="an update was added in part only"):
        total.divided_by(1)


def test_arrays_of_any_shape_come_back_in_it_longer_ones_than_are_added_at_a_time_too():
    long = np.arange(100_000, dtype=np.float32)
    update = {"scalar": np.float32(2.0), "empty": np.zeros((0, 3), np.float32), "long": long.reshape(10, -1).T}

    mean = sum_of((update, 3), (update, 1)).divided_by(4)

    assert {name: value.shape for name, value in mean.items()} == {"scalar": (), "empty": (0, 3), "long": (10_000, 10)}
    np.testing.assert_array_equal(mean["long"], update["long"])
