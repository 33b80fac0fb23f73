"""How sure a figure is: intervals over patients, paired tests with Holm's correction, how many patients would decide.

Patients are what is resampled, not cases: two scans of one patient say less than two patients.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from statistics import fmean, stdev
from typing import Final

import numpy as np
import numpy.typing as npt

from brats_fl_tools.report.comparison import FEWEST_FOR_INTERVAL, RESAMPLES

Floats = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]

FEWEST: Final = FEWEST_FOR_INTERVAL
"""Patients; with fewer there is no interval and no test."""

Statistic = Callable[[Counts], Floats]
"""How often each case counts, a row a draw, (draws, cases) -> the figure of each draw, (draws,)."""


@dataclass(frozen=True)
class Estimate:
    """A figure, and how sure it is."""

    value: float
    low: float | None
    """Of the 95 % percentile interval; None, as is ``high``, with fewer than ``FEWEST`` patients."""
    high: float | None
    patients: int
    cases: int

    @property
    def is_above(self) -> bool:
        """Whether the interval lies wholly above 0."""
        return self.low is not None and self.low > 0

    @property
    def is_below(self) -> bool:
        """Whether the interval lies wholly below 0."""
        return self.high is not None and self.high < 0


def estimate(patients: Sequence[str], statistic: Statistic, confidence: float = 0.95) -> Estimate | None:
    """A figure over cases with its percentile interval, patients drawn with replacement; None without a case.

    Args:
        patients: Whose each case is, (cases,).
        statistic: The figure, of how often each case counts.
        confidence: Share of draws that lie within the interval.

    Source: Efron and Tibshirani 1993, "An Introduction to the Bootstrap", chapter 13; ``RESAMPLES`` draws, fixed seed.
    """
    if not patients:
        return None
    value = float(statistic(np.ones((1, len(patients)), np.int64))[0])
    count = len(set(patients))
    if count < FEWEST:
        return Estimate(value, None, None, count, len(patients))
    tail = 50 * (1 - confidence)
    draws = statistic(draw_patients(patients))
    if not np.isfinite(draws).all():  # a ratio to a model that finds nothing in some draw
        return Estimate(value, None, None, count, len(patients))
    low, high = np.percentile(draws, [tail, 100 - tail])
    return Estimate(value, float(low), float(high), count, len(patients))


def draw_patients(patients: Sequence[str]) -> Counts:
    """How often each case counts in each draw of as many patients as there are, (``RESAMPLES``, cases)."""
    return _draw(tuple(patients))


@lru_cache(maxsize=128)
def _draw(patients: tuple[str, ...]) -> Counts:
    names, owners = np.unique(np.asarray(patients), return_inverse=True)
    drawn = np.random.default_rng(0).integers(len(names), size=(RESAMPLES, len(names)))
    counts = np.zeros((RESAMPLES, len(names)), np.int64)
    np.add.at(counts, (np.arange(RESAMPLES)[:, None], drawn), 1)
    return np.asarray(counts[:, owners])


def mean_of(values: Floats) -> Statistic:
    """Mean over cases."""
    return lambda counts: np.asarray(counts @ values / counts.sum(axis=1))


def ratio_of(values: Floats, others: Floats) -> Statistic:
    """Mean over that of others, of the same cases; infinite where that is 0."""

    def ratios(counts: Counts) -> Floats:
        below = counts @ others
        return np.divide(counts @ values, below, out=np.full(len(counts), np.inf), where=below > 0)

    return ratios


def median_of(values: Floats) -> Statistic:
    """Median over cases; of an even number the middle of the two in the middle."""
    order = np.argsort(values)

    def medians(counts: Counts) -> Floats:
        before = counts[:, order].cumsum(axis=1)
        half = before[:, -1:] / 2
        lower, upper = (before >= half).argmax(axis=1), (before > half).argmax(axis=1)
        return np.asarray((values[order[lower]] + values[order[upper]]) / 2)

    return medians


def difference_of_medians(values: Floats, others: Floats) -> Statistic:
    """Median less that of others, of the same cases."""
    here, there = median_of(values), median_of(others)
    return lambda counts: here(counts) - there(counts)


def cases_needed(found: Estimate, limit: float) -> int | None:
    """How many patients would put the limit outside the interval, if figure and spread stayed as they are.

    The interval narrows with the root of their number: its arm towards the limit is shortened to the distance.

    Returns:
        More than there are; None where the figure is at the limit, which no number of patients decides, or where there
        are too few for an interval.
    """
    if found.low is None or found.high is None or found.value == limit:
        return None
    arm = found.value - found.low if limit < found.value else found.high - found.value
    needed = found.patients * (arm / (found.value - limit)) ** 2
    return max(math.ceil(round(needed, 6)), found.patients + 1)  # rounded: 40.0000001 are 40


def paired_p(differences: Floats, patients: Sequence[str]) -> float | None:
    """Two-sided p of Wilcoxon's signed-rank test over patients, each with the mean of its cases.

    Returns:
        1 where all differences are 0; None with fewer than ``FEWEST`` patients.
    """
    of_patient: dict[str, list[float]] = {}
    for patient, difference in zip(patients, differences.tolist(), strict=True):
        of_patient.setdefault(patient, []).append(difference)
    if len(of_patient) < FEWEST:
        return None
    return signed_rank_p(np.array([round(fmean(values), 9) for values in of_patient.values()]))


def signed_rank_p(differences: Floats) -> float:
    """Exact two-sided p of Wilcoxon's signed-rank test, equal differences included.

    Ranks of equal sizes are averaged; the sum of those of one sign is held against what it is when each sign comes up
    by the toss of a coin. SciPy's exact table is for unequal sizes, and its permutations take a second a test.

    Source: Wilcoxon 1945, doi:10.2307/3001968; differences of 0 are dropped, as there.
    """
    from scipy.stats import rankdata

    nonzero = differences[differences != 0]
    ranks = np.rint(2 * rankdata(np.abs(nonzero))).astype(int)  # halves become whole
    chances = np.zeros(ranks.sum() + 1)
    chances[0] = 1.0
    for rank in ranks:
        heads = chances[:-rank] / 2
        chances /= 2
        chances[rank:] += heads
    found = int(ranks[nonzero > 0].sum())
    return float(min(1.0, 2 * min(chances[: found + 1].sum(), chances[found:].sum())))


def holm(p_values: Sequence[float]) -> list[float]:
    """The p of a family of tests, corrected for their number, in the order given.

    Source: Holm 1979, "A simple sequentially rejective multiple test procedure", Scand. J. Statist. 6, 65.
    """
    corrected, least = [0.0] * len(p_values), 0.0
    for rank, place in enumerate(sorted(range(len(p_values)), key=lambda one: p_values[one])):
        least = max(least, min(1.0, (len(p_values) - rank) * p_values[place]))
        corrected[place] = least
    return corrected


@dataclass(frozen=True)
class Spread:
    """A figure of several trainings of the same, that differ in their seed."""

    values: tuple[float, ...]

    @property
    def mean(self) -> float:
        """Over seeds."""
        return fmean(self.values)

    @property
    def sd(self) -> float | None:
        """Standard deviation with n - 1; None of one seed."""
        return stdev(self.values) if len(self.values) > 1 else None
