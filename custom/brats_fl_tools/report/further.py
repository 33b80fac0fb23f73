"""The figures beside Dice and HD95 over cases: surfaces, lesions, sensitivity, calibration, and bias of the volumes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import Any

from brats_fl.constants import REGIONS
from brats_fl.scoring.bland_altman import VolumeBias, volume_bias
from brats_fl.scoring.columns import FURTHER, Column
from brats_fl_tools.pages.formats import NONE, format_dice, format_difference, format_mm
from brats_fl_tools.report.case_results import CaseResult


@dataclass(frozen=True)
class Further:
    """Over a set of cases."""

    values: Mapping[str, Mapping[str, float | None]]
    """Column -> region -> mean over the cases that have it, or their sum where it counts; None where none has."""
    volume_bias: Mapping[str, VolumeBias | None]
    """Region -> predicted less reference volume; None without a case that tells both."""

    def as_json(self) -> dict[str, Any]:
        """For ``metrics.json``."""
        bias = {region: asdict(found) if found else None for region, found in self.volume_bias.items()}
        return {"further": self.values, "volume_bias": bias}

    def rows(self) -> list[tuple[str, list[str]]]:
        """Title and a text per region of each figure that there is, for a table."""
        known = [column for column in FURTHER if column.name in self.values]
        rows = [
            (column.title, [_format(self.values[column.name][region], column) for region in REGIONS])
            for column in known
        ]
        found = [self.volume_bias[region] for region in REGIONS]
        rows.append(("Volume bias in ml", [_signed(bias.bias_ml if bias else None) for bias in found]))
        rows.append(("Limits of agreement in ml", [_limits(bias) for bias in found]))
        return rows


def summarise_further(results: Sequence[CaseResult]) -> Further:
    """Figures over scored cases; of columns that no case has, nothing."""
    values = {}
    for column in FURTHER:
        of_column = {region: _over(results, column, region) for region in REGIONS}
        if any(value is not None for value in of_column.values()):
            values[column.name] = of_column
    return Further(values, {region: _bias(results, region) for region in REGIONS})


def _over(results: Sequence[CaseResult], column: Column, region: str) -> float | None:
    found = [result.further[column.name][region] for result in results if column.name in result.further]
    known = [value for value in found if value is not None]
    if not known:
        return None
    return sum(known) if column.is_count else fmean(known)


def _bias(results: Sequence[CaseResult], region: str) -> VolumeBias | None:
    pairs = [(result.volume_ml[region], result.reference_volume_ml[region]) for result in results]
    known = [(one, other) for one, other in pairs if one is not None and other is not None]
    return volume_bias([one for one, _ in known], [other for _, other in known])


def _format(value: float | None, column: Column) -> str:
    if value is None:
        return NONE
    if column.is_count:
        return f"{value:.0f}"
    return format_mm(value) if column.name.endswith("_mm") else format_dice(value)


def _signed(value: float | None) -> str:
    return NONE if value is None else format_difference(value, "ml")


def _limits(bias: VolumeBias | None) -> str:
    if bias is None or bias.lower_ml is None or bias.upper_ml is None:
        return NONE
    return f"{_signed(bias.lower_ml)} to {_signed(bias.upper_ml)}"
