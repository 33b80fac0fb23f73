"""Weighted sums of updates that do not depend on the order in which the updates came, not in the last bit.

Floating-point numbers do not add up to the same in every order; whole numbers do. So each value times its weight is
rounded to a multiple of 2^-48 and added as a whole number of 79 bits, in two parts: an int64 of units of 2^-16, and a
uint32 of 2^-32 of such a unit. That is 12 bytes a parameter, however many updates there are.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np
import numpy.typing as npt

from brats_fl.errors import ModelError
from brats_fl.exchange import Array, Weights

UNITS: Final = 2.0**16
"""To 1."""

RESTS: Final = 2.0**32
"""To a unit."""

LARGEST_ADDEND: Final = 2.0**37
"""Of a value times its weight: with 100,000 cases a change of a weight by a million."""

MOST_ADDENDS: Final = 1024
"""So many of the largest are 2^47, and an int64 of units ends there."""

_CHUNK: Final = 1 << 15
"""Values that are added at a time: what is needed beside the sum stays in the processor's cache."""


class ExactSum:
    """Sum of updates, each times its weight.

    Args:
        like: Names and shapes.
    """

    def __init__(self, like: Weights) -> None:
        self.shapes = {name: np.shape(value) for name, value in like.items()}
        self.units = {name: np.zeros(np.size(value), np.int64) for name, value in like.items()}
        self.rests = {name: np.zeros(np.size(value), np.uint32) for name, value in like.items()}
        self.count = 0
        self.is_whole = True

    def add(self, update: Weights, weight: float) -> None:
        """Add an update, each value rounded to the nearest 2^-48 after it is weighted.

        A float32 value of 3e-8 and more, times a whole number, is such a multiple already, and nothing is rounded.

        Raises:
            ModelError: A value is too large to be added, or not finite; nothing was added.
        """
        check_addend(update, weight)
        if self.count == MOST_ADDENDS:
            raise ModelError(f"a mean is of {MOST_ADDENDS:,} updates at most")
        self.is_whole, self.count = False, self.count + 1
        for name in self.shapes:
            _add(np.ravel(update[name]), weight, self.units[name], self.rests[name])
        self.is_whole = True

    def divided_by(self, total: float) -> dict[str, npt.NDArray[np.float32]]:
        """The sum by a number, float32.

        With the sum of ``n`` weights for the number it is their mean, off by n x 2^-49 / total at most, before it is
        rounded to float32.

        Raises:
            ModelError: An addition was broken off, as where memory ran out.
        """
        if not self.is_whole:
            raise ModelError("an update was added in part only, and what there is is no mean; the round is lost")
        return {name: self._divided(name, total).reshape(shape) for name, shape in self.shapes.items()}

    def _divided(self, name: str, total: float) -> npt.NDArray[np.float32]:
        units, rests = self.units[name], self.rests[name]
        divided = np.empty(units.size, np.float32)
        for part in _chunks(units.size):
            divided[part] = (units[part] / UNITS + rests[part] / (UNITS * RESTS)) / total
        return divided


def check_addend(update: Weights, weight: float) -> None:
    """Raise ``ModelError`` unless every value times the weight can be added."""
    for name, value in update.items():
        largest = max(float(np.max(value, initial=0)), -float(np.min(value, initial=0)))
        if not largest * weight < LARGEST_ADDEND:
            raise ModelError(
                f"{name} holds a value of {largest:.3g}, which cannot be added {weight:g} times; training diverged: "
                "lower the learning rate"
            )


def _add(values: Array, weight: float, units: npt.NDArray[np.int64], rests: npt.NDArray[np.uint32]) -> None:
    for part in _chunks(values.size):
        scaled = np.multiply(values[part], weight * UNITS, dtype=np.float64)
        whole = np.floor(scaled)
        scaled -= whole
        scaled *= RESTS
        both = np.rint(scaled, out=scaled).astype(np.int64)
        both += rests[part]
        rests[part] = both & 0xFFFFFFFF
        both >>= 32  # what is carried over
        both += whole.astype(np.int64)
        units[part] += both


def _chunks(size: int) -> Iterator[slice]:
    return (slice(begin, begin + _CHUNK) for begin in range(0, size, _CHUNK))
