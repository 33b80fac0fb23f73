"""Test cases under a model, or under several that differ in their seed, as columns of figures."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Final

import numpy as np

from brats_fl.constants import REGIONS
from brats_fl_tools.acceptance.statistics import Floats
from brats_fl_tools.pages.formats import natural_key
from brats_fl_tools.report.case_results import CaseResult

MEAN: Final = "mean"
COLUMNS: Final = (MEAN, *REGIONS)
"""Of Dice and HD95; other figures have regions alone."""

Key = tuple[str, str]
"""Hospital, case."""


@dataclass(frozen=True)
class CaseFigures:
    """Test cases under one model, or under several of other seeds: then the mean of them."""

    results: Mapping[Key, tuple[CaseResult, ...]]
    """One result a seed."""
    patients: Mapping[Key, str]

    @property
    def keys(self) -> tuple[Key, ...]:
        """Cases, by hospital."""
        return tuple(self.results)

    @property
    def sites(self) -> tuple[str, ...]:
        """Hospitals with a case."""
        return tuple(dict.fromkeys(site for site, _ in self.results))

    @property
    def owners(self) -> tuple[str, ...]:
        """Whose each case is, with the hospital: two hospitals may call a patient alike."""
        return tuple(f"{key[0]}/{self.patients.get(key, key[1])}" for key in self.results)

    def of(self, metric: str, column: str) -> Floats:
        """A figure of each case, (cases,); not a number where it is not known."""
        return np.array([_average(value_of(one, metric, column) for one in found) for found in self.results.values()])

    def at(self, sites: Iterable[str]) -> CaseFigures:
        """The cases of some hospitals."""
        chosen = set(sites)
        return self.only(key for key in self.results if key[0] in chosen)

    def only(self, keys: Iterable[Key]) -> CaseFigures:
        """Some of the cases, in the order given."""
        return replace(self, results={key: self.results[key] for key in keys})

    @property
    def averaged(self) -> tuple[CaseResult, ...]:
        """Each case with the mean over its seeds of every figure."""
        return tuple(_mean_of(found) for found in self.results.values())


def _mean_of(found: Sequence[CaseResult]) -> CaseResult:
    return replace(
        found[0],
        dice=_mean_per_region([one.dice for one in found]),
        hd95_mm=_mean_per_region([one.hd95_mm for one in found]),
        volume_ml=_mean_per_region([one.volume_ml for one in found]),
        reference_volume_ml=_mean_per_region([one.reference_volume_ml for one in found]),
        further={
            name: _mean_per_region([one.further[name] for one in found if name in one.further])
            for name in dict.fromkeys(name for one in found for name in one.further)
        },
    )


def _mean_per_region(figures: Sequence[Mapping[str, float | None]]) -> dict[str, float | None]:
    known = {region: [value for one in figures if (value := one[region]) is not None] for region in REGIONS}
    return {region: fmean(values) if values else None for region, values in known.items()}


def _average(values: Iterable[float | None]) -> float:
    known = [value for value in values if value is not None]
    return fmean(known) if known else float("nan")


def value_of(result: CaseResult, metric: str, column: str) -> float | None:
    """``dice``, ``hd95_mm``, ``volume_bias_ml`` or a further column, of a region; of Dice and HD95 also of ``mean``."""
    if metric in ("dice", "hd95_mm"):
        return result.value(metric, column)
    if metric == "volume_bias_ml":
        volume, reference = result.volume_ml[column], result.reference_volume_ml[column]
        return None if volume is None or reference is None else volume - reference
    return result.further[metric][column] if metric in result.further else None


def as_figures(tables: Iterable[Sequence[CaseResult]], patients: Mapping[Key, str]) -> CaseFigures:
    """Tables of several seeds and folds as one, a case with a result of each seed; ordered by hospital and case."""
    found: dict[Key, list[CaseResult]] = {}
    for table in tables:
        for result in table:
            found.setdefault((result.site, result.case), []).append(result)
    ordered = sorted(found, key=lambda key: (natural_key(key[0]), natural_key(key[1])))
    return CaseFigures({key: tuple(found[key]) for key in ordered}, patients)
