"""The page of a cross-site evaluation: each model at each hospital, its own marked, codes where there is no number."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Mapping
from pathlib import Path

import pytest
from tests.brats_fl_tools.report.test_report import CHROMIUM, measure_in_browser

from brats_fl.constants import REGIONS
from brats_fl.sharing.cross_site import CROSS_SITE_FILE, Cell, CrossSite, Row, Scores, as_json
from brats_fl_tools.report.cross_site_page import list_tables, render_cross_site
from brats_fl_tools.reporting import report

SITES = ("hospital-1", "hospital-2", "hospital-10")


def cells(*dice: float | str) -> Mapping[str, Cell]:
    """Of ``SITES``, with 4, 5 and 6 cases: Dice of the tumour core, and half of it for the others; or a code."""
    found = {}
    for number, (site, value) in enumerate(zip(SITES, dice, strict=True)):
        if isinstance(value, str):
            found[site] = Cell(value)
        else:
            found[site] = Cell("ok", Scores(4 + number, {"tc": value, "wt": value / 2, "et": value / 2}))
    return found


MATRIX = CrossSite(
    "validation",
    (
        Row("global", "final", "ok", cells(0.6, 0.9, "CASE_ERROR")),
        Row("local", "hospital-1", "ok", cells(0.75, 0.3, "CASE_ERROR")),
        Row("local", "hospital-10", "NOT_SHARED"),
        Row("local", "hospital-2", "ok", cells(0.3, 0.9, "missing")),
    ),
)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    facts = {"job": "brats_cross_site", "bundle": "brats_unet", "profile": "small", "mode": "poc"}
    facts |= {"started": "2026-11-28T21:00:00", "content_hash": "0" * 64, "invited": [*SITES, "hospital-3"]}
    (tmp_path / "run.json").write_text(json.dumps(facts | {"versions": {"brats_fl": "0.1.0"}}))
    (tmp_path / CROSS_SITE_FILE).write_text(json.dumps(as_json(MATRIX)))
    return tmp_path


def test_hospitals_models_come_after_the_global_ones_in_the_order_of_the_columns() -> None:
    rows = list_tables(MATRIX, SITES)[0].rows

    assert [row.name for row in rows] == ["Global, final", *SITES]


def test_own_cell_is_marked_and_so_is_the_best_of_a_column() -> None:
    final, first, second, kept = list_tables(MATRIX, SITES)[0].rows

    assert [cell.is_own for cell in first.cells] == [True, False, False]
    assert [cell.is_own for cell in second.cells] == [False, True, False]
    assert [cell.is_best for cell in final.cells] == [False, True, False]
    assert [cell.is_best for cell in second.cells] == [False, True, False], "two that are as good are both"
    assert [cell.is_best for cell in first.cells] == [True, False, False]
    assert [cell.status for cell in kept.cells] == ["NOT_SHARED"] * 3


def test_elsewhere_is_the_mean_at_the_hospitals_that_a_model_is_not_of() -> None:
    final, first, _, kept = list_tables(MATRIX, SITES)[0].rows

    assert final.elsewhere == pytest.approx((0.4 + 0.6) / 2)  # a mean of the regions is 2/3 of the tumour core's
    assert (first.elsewhere, first.hospitals) == (pytest.approx(0.2), 1)
    assert (kept.elsewhere, kept.hospitals) == (None, 0)


def test_each_region_has_a_table_of_its_own() -> None:
    tables = list_tables(MATRIX, SITES)

    assert [table.title for table in tables][1:] == ["tumour core", "whole tumour", "enhancing tumour"]
    assert len(tables) == 1 + len(REGIONS)
    assert [table.rows[0].cells[0].dice for table in tables] == pytest.approx([0.4, 0.6, 0.3, 0.3])


def test_page_has_every_invited_hospital_and_explains_its_codes(run: Path) -> None:
    page = render_cross_site(run)

    text = " ".join(html.unescape(re.sub(r"<[^>]*>", " ", page)).split())
    assert "3 models at 4 hospitals" in text
    assert "Model hospital-1 4 cases hospital-2 5 cases hospital-3 none hospital-10 none Elsewhere" in text
    assert "Global, final 0.400 0.600 missing CASE_ERROR 0.500 2 hospitals" in text
    assert "hospital-10 NOT_SHARED NOT_SHARED NOT_SHARED NOT_SHARED own – 0 hospitals" in text
    assert "NOT_SHARED: the hospital keeps it to itself" in text
    assert "missing: no answer in time." in text


def test_report_of_such_a_run_is_this_page(run: Path) -> None:
    report(run)

    assert (run / "report.html").read_text(encoding="utf-8") == render_cross_site(run)


@pytest.mark.skipif(not CHROMIUM, reason="no Chromium on this machine to open the page with")
def test_page_never_scrolls_sideways(run: Path, tmp_path: Path) -> None:
    seen = measure_in_browser(render_cross_site(run), tmp_path, widths=(390, 1400))

    assert all(frame["wanted"] <= int(width) for width, frame in seen.items())
