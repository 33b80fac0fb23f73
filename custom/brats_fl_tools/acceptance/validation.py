"""What hospitals' validation said in the rounds of a job, held against their test cases under the same job.

A hospital that trains by other labels than it is tested by shows it here: the federated model scores far lower on its
validation cases than on its test cases or, where it has learnt those labels, far higher.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
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
    """A hospital's validation of the model that is tested."""

    dice: float
    """Mean over regions and cases, and over seeds."""
    cases: int
    """Of all folds together."""


def validations(runs: Sequence[tuple[int, RunFolder]]) -> dict[str, Validated]:
    """Hospital -> what it said of the model that is tested, the best of its run; of the job's runs together.

    Args:
        runs: Seed and run folder of each.
    """
    found: dict[str, list[tuple[int, float, int]]] = {}
    for seed, run in runs:
        best = run.info.get("best_round", FINAL)
        place = (FINAL, None) if best == FINAL else ("train", best)
        last = {
            one.site: one
            for one in run.records
            if place in ((one.phase, one.round), (one.phase, None)) and one.is_ok and KEY_METRIC in one.metrics
        }
        for site, record in last.items():
            count = run.counts.get(site, {}).get(VALIDATION_SPLIT, 0)
            if count:
                found.setdefault(site, []).append((seed, record.metrics[KEY_METRIC], count))
    return {site: _together(told) for site, told in found.items()}


def _together(told: Sequence[tuple[int, float, int]]) -> Validated:
    counts = [count for _, _, count in told]
    cases = sum(count for seed, _, count in told if seed == told[0][0])
    return Validated(float(np.average([dice for _, dice, _ in told], weights=counts)), cases)


def deviation(
    site: str, figures: CaseFigures, validated: Mapping[str, Validated], least: float, hospitals: int
) -> float | None:
    """How far a hospital's validation is from its test cases, other than at the others; None where it may be chance.

    Above 0 the model has learnt what the hospital validates by, below 0 it has not. Both sides are drawn from its test
    cases, with replacement: as many validation cases as it has, and the test cases anew. It is told where even such a
    draw is hardly ever so far off, with ``least`` to spare, and still so when what the median of the others is off is
    taken off: a coarser grid sets validation and test apart at all of them.

    Args:
        site: Hospital.
        figures: Of all test cases under the federated model.
        validated: Of all hospitals.
        least: Mean Dice that a deviation must have in any case.
        hospitals: How many are looked at: the interval is widened (Bonferroni) to hold for all of them together.
    """
    here, own = figures.at([site]), validated.get(site)
    others = {other: one for other, one in validated.items() if other != site and other in figures.sites}
    gaps = [one.dice - _mean(figures.at([other])) for other, one in others.items()]
    if own is None or not gaps or min(own.cases, len(set(here.owners))) < FEWEST:
        return None
    values, gap = here.of("dice", MEAN), median(gaps)
    counts = draw_patients(here.owners)
    tested = counts @ values / counts.sum(axis=1)
    drawn = np.random.default_rng(1).integers(len(values), size=(RESAMPLES, own.cases))
    tail = 100 * 0.025 / hospitals
    low, high = np.percentile(values[drawn].mean(axis=1) + (tested - tested.mean()), [tail, 100 - tail])
    is_below = own.dice < min(low, low + gap) - least
    is_above = own.dice > max(high, high + gap) + least
    return float(own.dice - values.mean() - gap) if is_below or is_above else None


def _mean(figures: CaseFigures) -> float:
    return float(figures.of("dice", MEAN).mean())
