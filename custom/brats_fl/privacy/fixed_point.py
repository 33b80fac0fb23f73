"""Updates as whole numbers modulo 2^32, in which masks cancel to the last bit, and back."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from brats_fl.errors import MaskingError
from brats_fl.exchange import Weights

Words = npt.NDArray[np.uint32]

LARGEST_CHANGE: Final = 16.0
"""Of a value in a round. Weights are of the order of 1; four rounds of 30 steps moved none by more than 0.1."""


def scale_of(sites: int) -> float:
    """Units to 1: with so many sites, each rounding by half a unit, the mean still fits into 32 bits with its sign."""
    return (2.0**31 - 1 - sites) / LARGEST_CHANGE


def encode(update: Weights, share: float, sites: int) -> Words:
    """An update times its share in the mean, in whole units; one vector, parameters in the order of their names.

    Args:
        update: Change of each parameter.
        share: The site's weight by the sum of all weights, above 0 and at most 1.
        sites: How many take part.

    Returns:
        (values of all parameters,) uint32; below 0 is 2^32 minus it.

    Raises:
        MaskingError: A value is larger than ``LARGEST_CHANGE``, or not finite: it would wrap around in the sum.
    """
    if not 0 < share <= 1:
        raise MaskingError(f"the share of a site must be above 0 and at most 1 (got {share})")
    words = np.empty(sum(value.size for value in update.values()), np.uint32)
    begin = 0
    for name in sorted(update):
        values = np.asarray(update[name], np.float64).ravel()
        largest = float(np.abs(values).max(initial=0.0))
        if not largest <= LARGEST_CHANGE:
            raise MaskingError(
                f"{name} changed by {largest:.3g} in one round, the most that secure aggregation carries is "
                f"{LARGEST_CHANGE:g}; lower the learning rate"
            )
        units = np.rint(values * (share * scale_of(sites))).astype(np.int32)
        words[begin : begin + values.size] = units.view(np.uint32)
        begin += values.size
    return words


def decode(words: Words, share: float, sites: int, like: Weights) -> dict[str, npt.NDArray[np.float32]]:
    """The mean of the updates whose encoded sum this is.

    Args:
        words: Sum modulo 2^32 of what ``encode`` gave, without masks.
        share: Sum of the shares of the sites in it.
        sites: As they were encoded for.
        like: Names and shapes.
    """
    mean, begin = {}, 0
    for name in sorted(like):
        shape = np.shape(like[name])
        size = int(np.prod(shape))
        units = words[begin : begin + size].view(np.int32)
        mean[name] = (units / (scale_of(sites) * share)).astype(np.float32).reshape(shape)
        begin += size
    return {name: mean[name] for name in like}
