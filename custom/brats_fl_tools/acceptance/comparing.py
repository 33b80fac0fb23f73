"""A federated model beside its baselines: hospital by hospital, region by region, case by case."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from brats_fl.constants import REGIONS
from brats_fl.scoring.columns import FURTHER
from brats_fl_tools.acceptance.case_figures import COLUMNS, MEAN, CaseFigures
from brats_fl_tools.acceptance.evidence import Candidate
from brats_fl_tools.acceptance.statistics import (
    Estimate,
    Floats,
    difference_of_medians,
    estimate,
    holm,
    mean_of,
    median_of,
    paired_p,
)
from brats_fl_tools.study.expansion import FEDERATED

ALL: Final = "All cases"


@dataclass(frozen=True)
class Metric:
    """A figure of the tables."""

    name: str
    title: str
    is_median: bool = False
    """Over cases: of distances, which 373 mm for a missed region would drag anywhere; else the mean."""
    more_is_better: bool | None = True
    """None where neither end is good."""

    @property
    def columns(self) -> tuple[str, ...]:
        """Regions, of Dice with their mean in front."""
        return COLUMNS if self.name == "dice" else REGIONS


METRICS: Final = (
    Metric("dice", "Dice"),
    Metric("hd95_mm", "HD95 in mm, median", is_median=True, more_is_better=False),
    *(
        Metric(
            column.name, column.title, is_median=column.name.endswith("_mm"), more_is_better=column.worst == "lowest"
        )
        for column in FURTHER
        if not column.is_count and column.name != "entropy_bits"
    ),
    Metric("volume_bias_ml", "Volume bias in ml", more_is_better=None),
)
DICE: Final = METRICS[0]


@dataclass(frozen=True)
class Cell:
    """A figure of one region: of the model, or of it less a baseline."""

    here: Estimate
    there: float | None = None
    """The baseline's, on the same cases."""
    difference: Estimate | None = None
    p: float | None = None
    """Of Wilcoxon's test, as it is; None where none was made."""
    p_holm: float | None = None
    """The same, corrected for all tests of the model."""


@dataclass(frozen=True)
class TableRow:
    """A hospital, or all cases."""

    label: str
    cases: int
    cells: Mapping[str, Cell]
    """Column -> figure; a column of which no case knows the figure is absent."""


@dataclass(frozen=True)
class Table:
    """A metric of a model, or of it beside a baseline."""

    metric: Metric
    rows: tuple[TableRow, ...]


@dataclass(frozen=True)
class Comparison:
    """A model beside a baseline of its bundle."""

    baseline: str
    cases: int
    only_one: int
    """Cases that only one of the two was tested on; they do not count."""
    tables: tuple[Table, ...]


def own_tables(figures: CaseFigures) -> tuple[Table, ...]:
    """Every metric that there is, hospital by hospital, then over all cases."""
    return tuple(table for metric in METRICS if (table := _table(metric, figures, None)).rows)


def compare_all(candidate: Candidate) -> tuple[Comparison, ...]:
    """The model beside each baseline, their p corrected together."""
    return correct([compare(candidate.federated, found, kind) for kind, found in candidate.baselines.items()])


def compare(figures: CaseFigures, other: CaseFigures, baseline: str) -> Comparison:
    """A model beside a baseline, on the cases that both were tested on."""
    common = [key for key in figures.keys if key in other.results]
    here, there = figures.only(common), other.only(common)
    tables = tuple(table for metric in METRICS if (table := _table(metric, here, there)).rows)
    return Comparison(baseline, len(common), len(figures.results) + len(other.results) - 2 * len(common), tables)


def _table(metric: Metric, figures: CaseFigures, other: CaseFigures | None) -> Table:
    places = [(ALL, figures.sites), *((site, (site,)) for site in figures.sites)]
    rows = []
    for label, sites in places:
        here, there = figures.at(sites), None if other is None else other.at(sites)
        cells = {column: _cell(metric, column, here, there) for column in metric.columns}
        known = {column: cell for column, cell in cells.items() if cell is not None}
        if known:
            rows.append(TableRow(label, len(here.results), known))
    return Table(metric, tuple(rows))


def _cell(metric: Metric, column: str, figures: CaseFigures, other: CaseFigures | None) -> Cell | None:
    here = figures.of(metric.name, column)
    there = here if other is None else other.of(metric.name, column)
    known = ~np.isnan(here) & ~np.isnan(there)
    here, there = here[known], there[known]
    owners = [owner for owner, there_is in zip(figures.owners, known.tolist(), strict=True) if there_is]
    own = estimate(owners, (median_of if metric.is_median else mean_of)(here))
    if own is None or other is None:
        return None if own is None else Cell(own)
    if metric.is_median:
        return Cell(own, float(np.median(there)), estimate(owners, difference_of_medians(here, there)))
    p = paired_p(here - there, owners) if (metric.name, column) == ("dice", MEAN) else None
    return Cell(own, float(there.mean()), paired_difference(here, there, owners), p)


def paired_difference(here: Floats, there: Floats, owners: Sequence[str], confidence: float = 0.95) -> Estimate | None:
    """Mean difference of the same cases under two models."""
    return estimate(owners, mean_of(here - there), confidence)


def correct(comparisons: Sequence[Comparison]) -> tuple[Comparison, ...]:
    """The same with p corrected for all tests in them, by Holm's method."""
    tested = [cell.p for one in comparisons for cell in _cells(one) if cell.p is not None]
    corrected = iter(holm(tested))

    def done(cell: Cell) -> Cell:
        return cell if cell.p is None else replace(cell, p_holm=next(corrected))

    return tuple(
        replace(one, tables=tuple(replace(table, rows=tuple(
            replace(row, cells={column: done(cell) for column, cell in row.cells.items()}) for row in table.rows
        )) for table in one.tables))
        for one in comparisons
    )  # fmt: skip


def _cells(comparison: Comparison) -> list[Cell]:
    return [cell for table in comparison.tables for row in table.rows for cell in row.cells.values()]


def count_tests(comparisons: Sequence[Comparison]) -> int:
    """How many tests were corrected together."""
    return sum(cell.p is not None for one in comparisons for cell in _cells(one))


@dataclass(frozen=True)
class Headline:
    """What a reader takes away who reads one line of a model."""

    dice: Estimate
    """Mean Dice over all test cases."""
    hd95_mm: Mapping[str, Estimate]
    """Region -> median."""
    worst_site: str
    worst: Estimate
    best_site: str
    gap: float
    """Mean Dice of the best hospital less that of the lowest; 0 of one hospital."""


def headline(figures: CaseFigures) -> Headline:
    """The figures of a model in short: all cases, the lowest hospital, the gap."""
    dice, hd95_mm = (_table(metric, figures, None).rows for metric in METRICS[:2])
    of_sites = {row.label: row.cells[MEAN].here for row in dice[1:]}
    worst = min(of_sites, key=lambda site: of_sites[site].value)
    best = max(of_sites, key=lambda site: of_sites[site].value)
    return Headline(
        dice=dice[0].cells[MEAN].here,
        hd95_mm={region: cell.here for region, cell in hd95_mm[0].cells.items()},
        worst_site=worst,
        worst=of_sites[worst],
        best_site=best,
        gap=of_sites[best].value - of_sites[worst].value,
    )


def models_of(candidate: Candidate) -> dict[str, CaseFigures]:
    """``federated`` and the baselines that there are."""
    return {FEDERATED: candidate.federated, **candidate.baselines}
