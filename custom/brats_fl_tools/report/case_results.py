"""``evaluation.csv`` as the report reads it: one result a case, whichever version wrote the table."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from brats_fl.constants import MISSED_HD95_MM, REGIONS, SPLITS
from brats_fl.errors import RunError
from brats_fl.files import CASE_TABLE_COLUMNS
from brats_fl.reading import Reader
from brats_fl.scoring.columns import FURTHER
from brats_fl.typed import shorten
from brats_fl_tools.pages.formats import natural_key

_EMPTY: Mapping[str, Any] = MappingProxyType({})
_FIGURES = CASE_TABLE_COLUMNS[4:]
_HIGHEST = {"dice": 1.0} | {column.name: column.highest for column in FURTHER}
_Cases = dict[tuple[str, str, str], dict[str, dict[str, float | None]]]
"""Site, case and split -> region -> figure -> value."""


@dataclass(frozen=True)
class CaseResult:
    """Figures of one case; each mapping has the keys of ``REGIONS``, ``None`` where there is no reference."""

    case: str
    site: str
    split: str
    dice: Mapping[str, float | None]
    hd95_mm: Mapping[str, float | None]
    volume_ml: Mapping[str, float | None]
    reference_volume_ml: Mapping[str, float | None]
    further: Mapping[str, Mapping[str, float | None]] = field(default_factory=lambda: _EMPTY)
    """Column of ``scoring.columns.FURTHER`` -> region -> value; a table of an earlier version has none."""

    @property
    def is_scored(self) -> bool:
        """Whether every region has a Dice and an HD95; a case without a reference has neither."""
        return None not in self.dice.values() and None not in self.hd95_mm.values()

    def is_missed(self, region: str) -> bool:
        """Whether a region is in only one of prediction and reference, which has a distance of its own."""
        return self.hd95_mm[region] == MISSED_HD95_MM

    def value(self, metric: str, region: str) -> float:
        """Figure of a scored case: ``dice`` or ``hd95_mm`` of a region, or of ``mean`` over the regions."""
        values: Mapping[str, float | None] = getattr(self, metric)
        regions = REGIONS if region == "mean" else (region,)
        return sum(float(values[name] or 0.0) for name in regions) / len(regions)


def read_evaluation(path: Path) -> tuple[CaseResult, ...]:
    """Results of ``evaluation.csv``, one a case, ordered by site and case.

    Raises:
        RunError: The file is missing, a column is, or a row is wrong, double or missing.
    """
    reader = Reader(RunError, "`brats-fl evaluate BUNDLE --model M --sites SITES --out RUN` makes it")
    columns, rows = reader.table(path)
    missing = [column for column in CASE_TABLE_COLUMNS if column not in columns]
    if missing:
        reader.refuse(path, f"has no column {shorten(missing[0])}")
    further = [column.name for column in FURTHER if column.name in columns]
    cases: _Cases = {}
    for line, row in rows:
        _add_row(f"{path}:{line}", row, further, cases)
    if not cases:
        reader.refuse(path, "holds no case")
    return tuple(_as_results(path, further, cases))


def _add_row(place: str, row: Mapping[str, str], further: Sequence[str], cases: _Cases) -> None:
    region, split = row["region"], row["split"]
    for column in ("case", "site"):
        if not row[column]:
            raise RunError(f"{place}: {column} is empty; evaluate it again")
    if region not in REGIONS:
        raise RunError(f"{place}: region must be one of {', '.join(REGIONS)} (got {shorten(region)})")
    if split not in SPLITS:
        raise RunError(f"{place}: split must be one of {', '.join(SPLITS)} (got {shorten(split)})")
    regions = cases.setdefault((row["site"], row["case"], split), {})
    if region in regions:
        raise RunError(f"{place}: case {row['case']} of {row['site']} has two rows for {region}; evaluate it again")
    regions[region] = {
        name: _as_number(place, row, name, _HIGHEST.get(name, math.inf)) for name in (*_FIGURES, *further)
    }


def _as_number(place: str, row: Mapping[str, str], column: str, high: float) -> float | None:
    text = row[column]
    if text.lower() in ("", "nan"):  # no reference: nothing to score against
        return None
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not (0.0 <= number <= high and math.isfinite(number)):
        limit = "0 or more" if math.isinf(high) else f"from 0 to {high:g}"
        hint = f"; a missed region has {MISSED_HD95_MM}" if column == "hd95_mm" else ""
        raise RunError(
            f"{place}: {column} must be a number {limit} (got {shorten(text)}){hint}; evaluate the case again"
        )
    return number


def _as_results(path: Path, further: Sequence[str], cases: _Cases) -> Iterable[CaseResult]:
    for (site, case, split), regions in sorted(
        cases.items(), key=lambda item: (natural_key(item[0][0]), natural_key(item[0][1]))
    ):
        absent = [region for region in REGIONS if region not in regions]
        if absent:
            raise RunError(f"{path}: case {case} of {site} has no row for {absent[0]}; evaluate it again")
        columns = {name: {region: regions[region][name] for region in REGIONS} for name in (*_FIGURES, *further)}
        dice, hd95_mm, volume_ml, reference_ml = (columns[name] for name in _FIGURES)
        rest = {name: columns[name] for name in further}
        yield CaseResult(case, site, split, dice, hd95_mm, volume_ml, reference_ml, rest)
