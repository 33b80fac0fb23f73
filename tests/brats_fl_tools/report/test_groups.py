"""Figures by size of the tumour and by institution: each a reader can redo from the table of cases."""

import csv
import json
from collections.abc import Mapping
from pathlib import Path

import pytest
from tests.run_folders import add_columns, write_run
from typer.testing import CliRunner

from brats_fl.constants import DEFAULT_LABEL_TABLE, MODALITIES, REGIONS
from brats_fl_tools.cli import app
from brats_fl_tools.data.case_table import COLUMNS
from brats_fl_tools.report import write_report
from brats_fl_tools.report.case_results import CaseResult
from brats_fl_tools.report.groups import Figure, group_cases


def a_case(name: str, ml: float | None, dice: float, lesion_dice: float | None = None) -> CaseResult:
    """A test case whose regions all have the same figures."""
    same = lambda value: dict.fromkeys(REGIONS, value)  # noqa: E731
    further = {} if lesion_dice is None else {"lesion_dice": same(lesion_dice)}
    return CaseResult(name, "hospital-1", "testing", same(dice), same(1.0), same(ml), same(ml), further)


def groups_by(title: str, cases: list[CaseResult], institutions: Mapping[str, str] | None = None) -> dict:
    found = {one.title: one for one in group_cases(cases, institutions or {})}
    return {group.name: group for group in found[title].groups} if title in found else {}


def test_tumour_of_a_limits_size_is_of_the_larger_class():
    cases = [a_case("a", 0.0, 1.0), a_case("b", 49.99, 0.5), a_case("c", 50.0, 0.6), a_case("d", 100.0, 0.9)]

    classes = groups_by("size of the tumour", cases)

    assert {name: one.cases for name, one in classes.items()} == {
        "under 50 ml": 2, "50 to under 100 ml": 1, "100 ml and more": 1,
    }  # fmt: skip
    assert classes["under 50 ml"].dice["mean"].mean == 0.75


def test_four_cases_have_mean_and_spread_and_no_best_or_worst():
    four = [a_case(str(number), 10.0, dice) for number, dice in enumerate((0.2, 0.4, 0.6, 0.8))]

    small = groups_by("size of the tumour", four)["under 50 ml"]

    # Squares of the distances from 0.5: .09 .01 .01 .09; their sum over n - 1 = 3 is .0667, its root .2582.
    assert small.dice["wt"] == Figure(4, pytest.approx(0.5), pytest.approx(0.2582, abs=1e-4), None, None)
    assert small.is_small


def test_five_cases_have_best_and_worst():
    five = [a_case(str(number), 10.0, dice) for number, dice in enumerate((0.2, 0.4, 0.6, 0.8, 1.0))]

    small = groups_by("size of the tumour", five)["under 50 ml"]

    assert (small.dice["mean"].lowest, small.dice["mean"].highest) == (pytest.approx(0.2), pytest.approx(1.0))
    assert not small.is_small


def test_single_case_has_no_spread_and_a_class_without_a_case_no_figure():
    classes = groups_by("size of the tumour", [a_case("a", 60.0, 0.7)])

    assert classes["50 to under 100 ml"].dice["mean"] == Figure(1, pytest.approx(0.7), None)
    assert classes["100 ml and more"].dice == {}


def test_lesion_dice_is_over_the_cases_that_have_it():
    classes = groups_by("size of the tumour", [a_case("a", 60.0, 0.7, 0.5), a_case("b", 60.0, 0.7)])

    assert classes["50 to under 100 ml"].lesion_dice["tc"] == Figure(1, 0.5, None)


def test_case_whose_reference_volume_is_not_known_is_counted_apart():
    classes = groups_by("size of the tumour", [a_case("a", None, 0.7), a_case("b", 5.0, 0.5)])

    assert classes["not known"].cases == 1


def test_case_table_names_the_institution_and_else_the_name_of_the_case():
    cases = [a_case("Brats18_TCIA01_201_1", 5.0, 0.4), a_case("x", 5.0, 0.6), a_case("y", 5.0, 0.8)]

    found = groups_by("institution", cases, {"x": "Charité"})

    assert {name: one.dice["mean"].mean for name, one in found.items()} == pytest.approx(
        {"Charité": 0.6, "TCIA01": 0.4, "not named": 0.8}
    )


def test_there_is_no_table_by_institution_where_nothing_names_one():
    assert groups_by("institution", [a_case("x", 5.0, 0.6)], {"x": ""}) == {}


def write_table(path: Path, institutions: Mapping[str, str]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, COLUMNS)
        table.writeheader()
        for case, institution in institutions.items():
            scans = {modality: f"{case}_{modality}.nii" for modality in MODALITIES}
            facts = {"case": case, "institution": institution, "labels": DEFAULT_LABEL_TABLE}
            table.writerow({**dict.fromkeys(COLUMNS, ""), **facts, **scans, "shape": "2x2x2", "spacing_mm": "1x1x1"})
    return path


def test_report_has_both_tables_on_the_page_and_in_its_figures(tmp_path: Path):
    run = write_run(tmp_path / "run")
    add_columns(run, {"lesion_dice": [0.5] * 3})  # of the first case alone
    table = write_table(tmp_path / "cases.csv", {"a1": "East", "a2": "East", "a3": "West", "b1": "West"})

    done = CliRunner().invoke(app, ["report", str(run), "--cases", str(table)], catch_exceptions=False)

    assert done.exit_code == 0, done.output
    metrics = json.loads((run / "metrics.json").read_text())
    # a1 has Dice .9 .9 .9, a2 .7 .8 .6: mean of the regions .9 and .7, of both .8.
    assert metrics["by_institution"]["East"]["dice"]["mean"]["mean"] == pytest.approx(0.8)
    assert metrics["by_size"]["under 50 ml"]["cases"] == 4
    assert metrics["by_size"]["under 50 ml"]["lesion_dice"]["wt"] == {
        "cases": 1, "mean": 0.5, "sd": None, "lowest": None, "highest": None,
    }  # fmt: skip
    page = " ".join((run / "report.html").read_text(encoding="utf-8").split())
    assert "<caption>Dice by size of the tumour</caption>" in page
    assert "<caption>Lesion-wise Dice by institution</caption>" in page
    assert 'East<span class="pair">2 cases: too few to rank</span>' in page


def test_report_without_a_case_table_says_how_institutions_are_told(tmp_path: Path):
    page = write_report(write_run(tmp_path / "run")).page.read_text(encoding="utf-8")

    assert "By institution: nothing names one; <code>brats-fl report --cases cases.csv</code>" in page
