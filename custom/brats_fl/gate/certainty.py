"""How sure a judgement on counted voxels is.

Neighbouring voxels are not independent: a part of a tumour is brighter, or lies at the rim, by whole pieces. A piece
of 4 mm counts as one observation, which is about the thickness of an enhancing rim.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np
from numpy.typing import NDArray

SURE: Final = 3.09
"""Standard errors: a sound case goes beyond them by chance once in a thousand times. An error needs this."""

DOUBTFUL: Final = 1.28
"""Once in ten times. A warning needs this; below it nothing is said."""

PIECE_MM: Final = 4.0

FEWEST_PIECES: Final = 10
"""Each piece on the right side or not: by chance all of ten are on the wrong one once in 1,024 times."""


def count_pieces(voxels: int, spacing_mm: NDArray[np.float64]) -> float:
    """Independent observations that some voxels are, 4 mm x 4 mm x 4 mm each."""
    return voxels * float(np.prod(spacing_mm)) / PIECE_MM**3


def excess_of_shares(first: float, first_pieces: float, second: float, second_pieces: float, ratio: float) -> float:
    """By how many standard errors one share is more than ``ratio`` times another.

    Each share gets two pieces more of either kind, so that few pieces never look certain (Agresti and Caffo 2000,
    doi:10.1080/00031305.2000.10474560, give one more of each to two shares).
    """
    shares = [(share * pieces + 2) / (pieces + 4) for share, pieces in ((first, first_pieces), (second, second_pieces))]
    errors = [p * (1 - p) / (n + 4) for p, n in zip(shares, (first_pieces, second_pieces), strict=True)]
    return (shares[0] - ratio * shares[1]) / math.sqrt(errors[0] + ratio**2 * errors[1])


def excess_of_ranks(
    first: NDArray[np.float32], first_pieces: float, second: NDArray[np.float32], second_pieces: float
) -> float:
    """By how many standard errors the first values are larger than the second ones (Mann and Whitney's statistic)."""
    larger = np.searchsorted(np.sort(second), first) / len(second)
    deviation = math.sqrt((first_pieces + second_pieces + 1) / (12 * first_pieces * second_pieces))
    return float(larger.mean() - 0.5) / deviation
