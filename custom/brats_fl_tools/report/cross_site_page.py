"""The page of a cross-site evaluation: models down, hospitals across, mean Dice; and the same for each region."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from brats_fl.constants import REGIONS
from brats_fl.sharing.cross_site import CROSS_SITE_FILE, READER, Cell, CrossSite, Row, Scores, read_cross_site
from brats_fl_tools.pages.formats import REGION_NAMES, natural_key
from brats_fl_tools.pages.templates import page_environment
from brats_fl_tools.report.page import STATUS_MEANINGS
from brats_fl_tools.runs.folder import RUN_FILE, invited_sites

MISSING: Final = "missing"

GLOBAL_NAMES: Final = {"final": "Global, final", "best": "Global, best"}

Figure = Callable[[Scores], float]


@dataclass(frozen=True)
class ShownCell:
    """A model at a hospital."""

    status: str
    """Why there is no number; ``ok`` where there is one."""
    dice: float | None
    is_own: bool
    """The hospital's own model."""
    is_best: bool
    """No other model does better there."""


@dataclass(frozen=True)
class ShownRow:
    """A model."""

    name: str
    cells: tuple[ShownCell, ...]
    elsewhere: float | None
    """Mean over the hospitals that it is not of, each counting the same; None where none of them scored it."""
    hospitals: int
    """That ``elsewhere`` is taken over."""


@dataclass(frozen=True)
class ShownTable:
    """One figure of every model at every hospital."""

    title: str
    rows: tuple[ShownRow, ...]


def render_cross_site(run: Path) -> str:
    """The page's text.

    Raises:
        RunError: A file of the run is missing or wrong.
    """
    matrix = read_cross_site(run / CROSS_SITE_FILE)
    facts = READER.json_object(run / RUN_FILE)
    sites = sorted({*matrix.sites, *(invited_sites(run, facts) or ())}, key=natural_key)
    tables = list_tables(matrix, sites)
    codes = {cell.status for table in tables for row in table.rows for cell in row.cells} - {"ok"}
    return (
        page_environment()
        .get_template("cross_site_page.html")
        .render(
            facts=facts,
            split={"validation": "validation", "testing": "test"}[matrix.split],
            sites=sites,
            cases=count_cases(matrix),
            models=sum(row.status == "ok" for row in matrix.rows),
            tables=tables,
            meanings={code: STATUS_MEANINGS.get(code, "") for code in sorted(codes)},
        )
    )


def count_cases(matrix: CrossSite) -> dict[str, int]:
    """Hospital -> cases that models were scored on there; without those that scored none."""
    return {site: cell.scores.cases for row in matrix.rows for site, cell in row.cells.items() if cell.scores}


def list_tables(matrix: CrossSite, sites: Sequence[str]) -> tuple[ShownTable, ...]:
    """Mean Dice, then that of each region."""
    figures: dict[str, Figure] = {"mean": lambda scores: scores.mean}
    figures |= {region: _dice_of(region) for region in REGIONS}
    return tuple(ShownTable(REGION_NAMES[name], _show_rows(matrix, sites, figure)) for name, figure in figures.items())


def _dice_of(region: str) -> Figure:
    return lambda scores: scores.dice[region]


def _show_rows(matrix: CrossSite, sites: Sequence[str], figure: Figure) -> tuple[ShownRow, ...]:
    best: dict[str, float] = {}
    for row in matrix.rows:
        for site, cell in row.cells.items():
            if cell.scores:
                best[site] = max(best.get(site, 0.0), figure(cell.scores))
    # Global ones first, then the hospitals as in the columns, so that the own cells are the diagonal.
    local = sorted((row for row in matrix.rows if row.kind == "local"), key=lambda row: natural_key(row.model))
    rows = [*(row for row in matrix.rows if row.kind == "global"), *local]
    return tuple(_show_row(row, sites, figure, best) for row in rows)


def _show_row(row: Row, sites: Sequence[str], figure: Figure, best: dict[str, float]) -> ShownRow:
    cells = []
    for site in sites:
        cell = row.cells.get(site, Cell(MISSING)) if row.status == "ok" else Cell(row.status)
        dice = figure(cell.scores) if cell.scores else None
        is_own = row.kind == "local" and row.model == site
        cells.append(ShownCell(cell.status, dice, is_own, dice is not None and dice == best[site]))
    others = [cell.dice for cell in cells if cell.dice is not None and not cell.is_own]
    mean = sum(others) / len(others) if others else None
    name = GLOBAL_NAMES.get(row.model, f"Global, {row.model}") if row.kind == "global" else row.model
    return ShownRow(name, tuple(cells), mean, len(others))
