"""What hospitals' validation said in the rounds of a job, held against their test cases under the same job.

A hospital that trains by other labels than it is tested by shows it here: the federated model does well on its test
cases and badly on its validation cases.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Final

import numpy as np

from brats_fl.constants import KEY_METRIC
from brats_fl_tools.acceptance.case_figures import MEAN, CaseFigures
from brats_fl_tools.acceptance.statistics import FEWEST, draw_patients
from brats_fl_tools.report.comparison import RESAMPLES
from brats_fl_tools.report.run_folder import VALIDATION_SPLIT, RunFolder

FINAL: Final = "final"


@dataclass(frozen=True)
class Validated:
    """A hospital's validation of the last model."""

    dice: float
    """Mean over regions and cases, and over seeds."""
    cases: int
    """Of all folds together."""


def last_validations(runs: Sequence[tuple[int, RunFolder]]) -> dict[str, Validated]:
    """Hospital -> what it said of the last model, of the job's runs together.

    Args:
        runs: Seed and run folder of each.
    """
    found: dict[str, list[tuple[int, float, int]]] = {}
    for seed, run in runs:
        last = {one.site: one for one in run.records if one.phase == FINAL and one.is_ok and KEY_METRIC in one.metrics}
        for site, record in last.items():
            count = run.counts.get(site, {}).get(VALIDATION_SPLIT, 0)
            if count:
                found.setdefault(site, []).append((seed, record.metrics[KEY_METRIC], count))
    return {site: _together(told) for site, told in found.items()}


def _together(told: Sequence[tuple[int, float, int]]) -> Validated:
    counts = [count for _, _, count in told]
    cases = sum(count for seed, _, count in told if seed == told[0][0])
    return Validated(float(np.average([dice for _, dice, _ in told], weights=counts)), cases)


def shortfall(
    site: str, figures: CaseFigures, validated: Mapping[str, Validated], least: float, hospitals: int
) -> float | None:
    """How far a hospital's validation is below its test cases, more than at the others; None where that may be chance.

    Both are drawn from its test cases, with replacement: as many validation cases as it has, and the test cases anew.
    It is told where even such a draw is hardly ever so low, with ``least`` to spare. What sets validation and test
    apart at all hospitals, such as a coarser grid, is taken off by what it is at the others.

    Args:
        site: Hospital.
        figures: Of all test cases under the federated model.
        validated: Of all hospitals.
        least: Mean Dice that a shortfall must have in any case.
        hospitals: How many are looked at: the interval is widened (Bonferroni) to hold for all of them together.
    """
    here, own = figures.at([site]), validated.get(site)
    others = {other: one for other, one in validated.items() if other != site and other in figures.sites}
    gaps = [one.dice - _mean(figures.at([other])) for other, one in others.items()]
    if own is None or not gaps or min(own.cases, len(set(here.owners))) < FEWEST:
        return None
    values, gap = here.of("dice", MEAN), fmean(gaps)
    counts = draw_patients(here.owners)
    tested = counts @ values / counts.sum(axis=1)
    drawn = np.random.default_rng(1).integers(len(values), size=(RESAMPLES, own.cases))
    low = np.percentile(values[drawn].mean(axis=1) + (tested - tested.mean()), 100 * 0.025 / hospitals)
    return float(values.mean() + gap - own.dice) if own.dice < low + gap - least else None


def _mean(figures: CaseFigures) -> float:
    return float(figures.of("dice", MEAN).mean())
