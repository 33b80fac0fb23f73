"""The figures beside Dice and HD95: over cases and hospitals, by hand, and on the page."""

from __future__ import annotations

import html
import json
import re
from pathlib import Path

import pytest
from tests.run_folders import ROWS, add_columns, write_run

from brats_fl.errors import RunError
from brats_fl_tools.report import page as page_module
from brats_fl_tools.report import write_report
from brats_fl_tools.report.case_results import CaseResult
from brats_fl_tools.report.further import summarise_further


@pytest.fixture(autouse=True)
def _no_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the diagrams out, 0.2 s each."""
    for name in ("learning_curves", "case_strips", "cost_diagrams"):
        monkeypatch.setattr(page_module, name, lambda run: [])


def written(run: Path) -> tuple[dict, str]:
    """Content of metrics.json, and the page's words."""
    files = write_report(run)
    metrics = json.loads(files.metrics.read_text(), parse_constant=pytest.fail)
    return metrics, " ".join(html.unescape(re.sub(r"<[^>]*>", " ", files.page.read_text())).split())


def with_volumes(*pairs: tuple[float, float]) -> list[CaseResult]:
    """Cases whose whole tumours were predicted, and are, so many ml."""
    return [
        CaseResult(
            str(n), "h", "testing", {}, {}, dict.fromkeys(("tc", "wt", "et"), p), dict.fromkeys(("tc", "wt", "et"), r)
        )
        for n, (p, r) in enumerate(pairs)
    ]


def test_ratios_are_averaged_and_lesions_are_added_up_over_the_cases_that_have_them(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", rows=ROWS[:4])
    # TC, WT, ET of a1, a2, a3 at hospital-1, then b1 at hospital-2.
    add_columns(
        run,
        {"nsd_1mm": [1, 1, 1, 0.5, 1, 1, 0, 1, 1, 0.5, 1, 1], "lesions_missed": [2, 0, 0, 1, 0, 0, 0, 0, 0, 4, 0, 0]},
    )
    add_columns(run, {"ece": [0.2, 0.1, 0.1, 0.4]})  # of a1 all, of a2 TC; the others have no tumour

    metrics, page = written(run)

    overall, first = metrics["overall"]["further"], metrics["sites"]["hospital-1"]["further"]
    assert overall["nsd_1mm"] == pytest.approx({"tc": 0.5, "wt": 1.0, "et": 1.0})
    assert (first["lesions_missed"]["tc"], overall["lesions_missed"]["tc"]) == (3, 7)
    assert overall["ece"] == pytest.approx({"tc": 0.3, "wt": 0.1, "et": 0.1})
    assert set(overall) == {"nsd_1mm", "lesions_missed", "ece"}
    assert "Surface Dice at 1 mm 0.500 1.000 1.000 Lesions missed 7 0 0 Calibration error 0.300 0.100 0.100" in page


def test_bias_of_volumes_has_limits_of_agreement_and_signs() -> None:
    further = summarise_further(with_volumes((12, 10), (9, 10), (12, 10)))

    rows = dict(further.rows())
    assert rows["Volume bias in ml"] == ["+1.0"] * 3
    assert rows["Limits of agreement in ml"] == ["\N{MINUS SIGN}2.4 to +4.4"] * 3  # 1 -+ 1.96 x sqrt(3)


def test_table_of_an_earlier_version_has_the_bias_alone(tmp_path: Path) -> None:
    metrics, page = written(write_run(tmp_path / "run"))

    assert metrics["overall"]["further"] == {}
    assert metrics["overall"]["volume_bias"]["wt"] == pytest.approx(
        {"bias_ml": 1.5, "sd_ml": 0, "lower_ml": 1.5, "upper_ml": 1.5}
    )  # each case 12.5 and 11 ml
    assert "Volume bias in ml +1.5" in page
    assert "Surface Dice at 1 mm 0" not in page


def test_run_is_compared_with_one_whose_table_has_fewer_columns(tmp_path: Path) -> None:
    run, other = write_run(tmp_path / "run"), write_run(tmp_path / "other")
    add_columns(run, {"nsd_1mm": [1] * 15})

    assert "on the same 4 cases" in write_report(run, [other]).page.read_text()
    assert "on the same 4 cases" in write_report(other, [run]).page.read_text()


@pytest.mark.parametrize(("column", "value"), [("nsd_1mm", 1.5), ("ece", -0.1), ("lesions_found", "many")])
def test_figure_outside_its_limits_is_named_with_its_line(column: str, value: object, tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    add_columns(run, {column: [value]})

    with pytest.raises(RunError, match=rf"evaluation.csv:2: {column} must be a number .*evaluate the case again"):
        write_report(run)
