"""Figures over the rounds: one curve a hospital or region, their mean and their gap."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from brats_fl.constants import REGIONS
from brats_fl_tools.report.participants import train_rounds
from brats_fl_tools.report.run_folder import RoundRecord, RunFolder

Curve = list[tuple[int, float]]
"""(round, value), rounds ascending."""

FEWEST_FOR_TREND: Final = 12
"""Points that a curve needs before anything is said of its end."""


@dataclass(frozen=True)
class Trend:
    """How a curve ends: its last quarter beside the quarter before."""

    rounds: int
    """Of a quarter."""
    gain: float
    """Mean of the last quarter less that of the one before."""
    noise: float
    """Twice the standard error of that difference, from how much the curve moves from one round to the next."""

    @property
    def still_rises(self) -> bool:
        """Whether the gain is more than the curve moves by chance."""
        return self.gain > self.noise


def site_curves(run: RunFolder, value: Callable[[RoundRecord], float | None]) -> dict[str, Curve]:
    """(round, value) per site that has any; the final evaluation follows the last training round."""
    last = max(train_rounds(run), default=-1)
    curves: dict[str, Curve] = {}
    for record in run.records:
        number = value(record)
        if number is not None and record.is_ok:
            at = record.round if record.phase == "train" else max(record.round, last + 1)
            curves.setdefault(record.site, []).append((at, number))
    return curves


def region_curves(run: RunFolder) -> dict[str, Curve]:
    """Mean over the sites of the validation Dice, per region."""
    return {region: mean_curve(metric_curves(run, f"val_dice_{region}")) for region in REGIONS}


def metric_curves(run: RunFolder, metric: str) -> dict[str, Curve]:
    """A metric of the global model on each site's validation cases; (round, value) per site that has it."""
    return site_curves(run, lambda record: record.metrics.get(metric))


def mean_curve(curves: Mapping[str, Curve]) -> Curve:
    """Mean of the curves at each round, over those that have a point there."""
    return [(at, float(np.mean(numbers))) for at, numbers in _by_round(curves).items()]


def gap_curve(curves: Mapping[str, Curve]) -> Curve:
    """Highest less lowest of the curves at each round that at least two have."""
    return [(at, max(numbers) - min(numbers)) for at, numbers in _by_round(curves).items() if len(numbers) > 1]


def _by_round(curves: Mapping[str, Curve]) -> dict[int, list[float]]:
    points: dict[int, list[float]] = {}
    for curve in curves.values():
        for at, number in curve:
            points.setdefault(at, []).append(number)
    return dict(sorted(points.items()))


def late_trend(curve: Curve) -> Trend | None:
    """How a curve ends; None of one with too few points.

    The differences of neighbouring points have twice the variance of one point about a slow trend: their standard
    deviation over the root of two is the noise of a point, and the means of two quarters of k points differ by it times
    the root of 2 / k.
    """
    values = np.array([value for _, value in curve])
    if len(values) < FEWEST_FOR_TREND:
        return None
    quarter = len(values) // 4
    gain = float(values[-quarter:].mean() - values[-2 * quarter : -quarter].mean())
    of_a_point = float(np.diff(values[-2 * quarter :]).std(ddof=1)) / np.sqrt(2)
    return Trend(quarter, gain, float(2 * of_a_point * np.sqrt(2 / quarter)))
