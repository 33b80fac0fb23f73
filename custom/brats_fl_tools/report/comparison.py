"""This run against another: the same cases side by side where both have them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from brats_fl_tools.report.case_results import CaseResult
from brats_fl_tools.report.evaluated_model import name_evaluated_model
from brats_fl_tools.report.metrics import COLUMNS, METRICS, count_missed, score
from brats_fl_tools.report.participants import number_of_rounds
from brats_fl_tools.report.run_folder import RunFolder

RESAMPLES = 2000
FEWEST_FOR_INTERVAL = 5
"""Below five cases a resampled interval says nothing."""


@dataclass(frozen=True)
class Difference:
    """One metric of one region in both runs, and this run less the other: means of Dice, medians of HD95."""

    here: float
    there: float
    difference: float
    interval: tuple[float, float] | None = None
    """95 % percentile interval of the mean paired difference, cases resampled."""
    missed: tuple[int, int] = (0, 0)
    """HD95: regions in only one of prediction and reference, here and there."""


@dataclass(frozen=True)
class ComparisonRow:
    """A hospital, or all cases, in both runs; each mapping has the keys of ``COLUMNS``."""

    label: str
    cases: int
    other_cases: int
    dice: Mapping[str, Difference]
    hd95_mm: Mapping[str, Difference]


@dataclass(frozen=True)
class Comparison:
    """A run against another on their test cases."""

    name: str
    job: str
    rounds: int | None
    """None of an evaluation without a run."""
    model: str
    """Which of the other run's models its figures are of."""
    common: int
    only_here: tuple[str, ...]
    only_there: tuple[str, ...]
    rows: tuple[ComparisonRow, ...]

    @property
    def is_paired(self) -> bool:
        """Whether there are cases in both; then the figures are for these alone."""
        return self.common > 0

    @property
    def is_same_set(self) -> bool:
        """Whether both runs were tested on exactly the same cases."""
        return not self.only_here and not self.only_there


def compare(run: RunFolder, other: RunFolder) -> Comparison:
    """Dice and HD95 of both runs per hospital and region.

    With cases in common (same site, same case) the figures are for these alone; with none they are each run's own.

    Raises:
        RunError: The other run has no scored test case.
    """
    score(other)
    here = {(result.site, result.case): result for result in run.scored(run.split)}
    there = {(result.site, result.case): result for result in other.scored(other.split)}
    common = [key for key in here if key in there]
    first, second = list(here.values()), list(there.values())
    if common:
        first, second = [here[key] for key in common], [there[key] for key in common]
    rows = [
        _compare_row(site, [r for r in first if r.site == site], [r for r in second if r.site == site])
        for site in run.sites
    ]
    rows.append(_compare_row("All cases", first, second, paired=bool(common)))
    return Comparison(
        name=other.name,
        job=str(other.info.get("job", "unknown job")),
        rounds=None if other.is_evaluation else number_of_rounds(other),
        model=name_evaluated_model(other),
        common=len(common),
        only_here=tuple(f"{site}/{case}" for site, case in here if (site, case) not in there),
        only_there=tuple(f"{site}/{case}" for site, case in there if (site, case) not in here),
        rows=tuple(row for row in rows if row is not None),
    )


def _compare_row(
    label: str, first: Sequence[CaseResult], second: Sequence[CaseResult], paired: bool = False
) -> ComparisonRow | None:
    if not first or not second:
        return None
    dice, hd95_mm = (
        {column: _difference(first, second, metric, column, paired) for column in COLUMNS} for metric in METRICS
    )
    return ComparisonRow(label, len(first), len(second), dice, hd95_mm)


def _difference(
    first: Sequence[CaseResult], second: Sequence[CaseResult], metric: str, column: str, paired: bool
) -> Difference:
    here, there = (np.array([result.value(metric, column) for result in results]) for results in (first, second))
    if metric == "hd95_mm":  # a mean that mixes the distance of missed regions in says nothing
        middle, other = float(np.median(here)), float(np.median(there))
        return Difference(
            middle, other, middle - other, missed=(count_missed(first, column), count_missed(second, column))
        )
    interval = bootstrap_interval(here - there) if paired and len(here) >= FEWEST_FOR_INTERVAL else None
    return Difference(float(here.mean()), float(there.mean()), float(here.mean() - there.mean()), interval)


def bootstrap_interval(differences: npt.NDArray[np.float64]) -> tuple[float, float]:
    """95 % percentile interval of the mean.

    Args:
        differences: One value a case, (cases,).

    Source: Efron and Tibshirani 1993, "An Introduction to the Bootstrap", chapter 13;
    ``RESAMPLES`` draws, fixed seed.
    """
    draws = np.random.default_rng(0).integers(len(differences), size=(RESAMPLES, len(differences)))
    low, high = np.percentile(differences[draws].mean(axis=1), [2.5, 97.5])
    return float(low), float(high)


def as_json(comparison: Comparison) -> dict[str, Any]:
    """The comparison as plain numbers, for ``metrics.json``."""
    return {
        "run": comparison.name,
        "job": comparison.job,
        "rounds": comparison.rounds,
        "common_cases": comparison.common,
        "same_cases": comparison.is_same_set,
        "difference": {
            row.label: {
                "dice": {column: row.dice[column].difference for column in COLUMNS},
                "hd95_mm_median": {column: row.hd95_mm[column].difference for column in COLUMNS},
            }
            for row in comparison.rows
        },
    }
