"""The report of a run: its figures by hand, its page in a browser, its errors."""

from __future__ import annotations

import hashlib
import html
import json
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from tests.run_folders import ROWS, SITES, Row, add_columns, save, train, write_rounds, write_run, write_scans
from typer.testing import CliRunner

from brats_fl.constants import REGIONS
from brats_fl.errors import BratsFLError, RunError
from brats_fl.scoring.columns import FURTHER
from brats_fl_tools.pages.formats import format_difference, format_duration, format_ranges, natural_key
from brats_fl_tools.report import page as page_module
from brats_fl_tools.report import write_report
from brats_fl_tools.report.comparison import bootstrap_interval, compare
from brats_fl_tools.report.curves import gap_curve, mean_curve, metric_curves
from brats_fl_tools.report.figures import learning_curves
from brats_fl_tools.report.ranking import Ranking, rank
from brats_fl_tools.report.run_folder import read_run
from brats_fl_tools.report.timing import round_times
from brats_fl_tools.reporting import report

OTHER = "a-run-with-a-name-that-is-much-too-long-for-a-telephone"


@pytest.fixture
def figures() -> None:
    """Asked for by a test whose page must have its diagrams."""


@pytest.fixture(autouse=True)
def _no_figures(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the diagrams out, 0.2 s each, where a test does not ask for them."""
    if "figures" not in request.fixturenames:
        for name in ("learning_curves", "case_strips", "cost_diagrams"):
            monkeypatch.setattr(page_module, name, lambda run: [])


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder with everything in it, its report drawn once for the tests that only look."""
    folder = tmp_path_factory.mktemp("shown")
    run = write_run(folder / "run", sites_dir=str(folder / "sites"), options={"a_long_option": "x" * 80})
    add_columns(run, {column.name: [0.123] * 15 for column in FURTHER})
    write_scans(folder / "sites", run)
    write_report(run, [write_run(folder / OTHER)])
    return run


def metrics_of(run: Path, against: Sequence[Path] = ()) -> dict[str, Any]:
    """Content of metrics.json of a report that is written now."""
    content = json.loads(write_report(run, against).metrics.read_text(), parse_constant=pytest.fail)
    assert isinstance(content, dict)
    return content


def page_of(run: Path, against: Sequence[Path] = ()) -> str:
    """Text of the page of a report that is written now."""
    return write_report(run, against).page.read_text(encoding="utf-8")


def rounded(curve: Sequence[tuple[int, float]]) -> list[tuple[int, float]]:
    """A curve with its values to six decimals."""
    return [(at, round(number, 6)) for at, number in curve]


def words(text: str) -> str:
    """A page's text without tags, one space between words."""
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", text)).split())


# The model


def evaluated(run: Path, model: bytes, best: bytes = b"best", final: bytes = b"final", **info: Any) -> Path:
    """A run with two models, and the evaluation of a file of these bytes, whatever its name said."""
    write_run(run, **info)
    (run / "global_model.pt").write_bytes(best)
    (run / "final_model.pt").write_bytes(final)
    facts = {"model": "global_model.pt", "model_sha256": hashlib.sha256(model).hexdigest()}
    (run / "evaluation.json").write_text(json.dumps(facts))
    return run


@pytest.mark.parametrize(
    ("model", "name"),
    [
        (b"best", "best on validation, round 2"),
        (b"final", "final model"),
        (b"of another run", "a model that is not in this run folder"),
    ],
)
def test_model_is_named_by_the_digest_of_the_file_that_was_evaluated(tmp_path: Path, model: bytes, name: str) -> None:
    run = evaluated(tmp_path / "run", model, best_round=2)

    assert f"Model evaluated {name} " in words(page_of(run))


def test_final_model_that_is_the_best_as_well_is_called_both(tmp_path: Path) -> None:
    run = evaluated(tmp_path / "run", b"final", best=b"final", best_round="final")

    assert "Model evaluated final model, the best on validation " in words(page_of(run))


def test_models_of_a_baseline_are_named_by_their_number(tmp_path: Path) -> None:
    run = evaluated(tmp_path / "run", b"best")
    told = {"model": "2 models of local", "models_sha256": {"hospital-1": "0a", "hospital-2": "0b"}}
    (run / "evaluation.json").write_text(json.dumps(told))

    assert "Model evaluated 2 models of local " in words(page_of(run))


def test_model_of_a_table_without_a_digest_is_not_guessed(tmp_path: Path) -> None:
    assert "Model evaluated not recorded " in words(page_of(write_run(tmp_path / "run", best_round=2)))


def test_model_of_the_run_compared_with_is_named_too(tmp_path: Path) -> None:
    other = evaluated(tmp_path / "other", b"final", best_round=2)

    page = words(page_of(evaluated(tmp_path / "run", b"best", best_round=2), [other]))

    assert "Against other (brats_unet_fedavg, 3 rounds; model evaluated: final model)" in page


# Figures


def test_overall_dice_is_the_mean_over_all_test_cases(tmp_path: Path) -> None:
    overall = metrics_of(write_run(tmp_path / "run"))["overall"]

    assert overall["cases"] == 4
    # tc (0.9 + 0.7 + 0.5 + 0.1) / 4, wt (0.9 + 0.8 + 0.7 + 0.6) / 4, et (0.9 + 0.6 + 0.6 + 0.2) / 4
    assert overall["dice"] == pytest.approx({"tc": 0.55, "wt": 0.75, "et": 0.575, "mean": 0.625})
    # tc (3 + 5 + 1 + 373.13) / 4, wt (6 + 5 + 1 + 10) / 4, et (9 + 5 + 1 + 20) / 4
    assert overall["hd95_mm"] == pytest.approx({"tc": 95.5325, "wt": 5.5, "et": 8.75, "mean": 36.5941667})


def test_site_figures_are_means_over_its_cases(tmp_path: Path) -> None:
    metrics = metrics_of(write_run(tmp_path / "run"))

    first, second = (metrics["sites"][site] for site in SITES)
    assert (first["cases"], second["cases"]) == (3, 1)
    assert first["dice"] == pytest.approx({"tc": 0.7, "wt": 0.8, "et": 0.7, "mean": 2.2 / 3})
    assert second["dice"] == pytest.approx({"tc": 0.1, "wt": 0.6, "et": 0.2, "mean": 0.3})
    assert metrics["overall"]["site_mean"]["dice"]["mean"] == pytest.approx((2.2 / 3 + 0.3) / 2)


def test_median_and_worst_case_stand_beside_the_mean(tmp_path: Path) -> None:
    metrics = metrics_of(write_run(tmp_path / "run"))

    first = metrics["sites"]["hospital-1"]
    assert first["median"]["dice"]["tc"] == 0.7  # of 0.9, 0.7, 0.5
    assert first["worst"]["dice"]["tc"] == 0.5
    assert first["median"]["hd95_mm"]["et"] == 5.0  # of 9, 5, 1
    assert first["worst"]["hd95_mm"]["et"] == 9.0


def test_validation_cases_count_apart_and_are_labelled_so(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")

    page = page_of(run)

    other = json.loads((run / "metrics.json").read_text())["other_splits"]
    assert other["validation"]["cases"] == 1
    assert other["validation"]["dice"]["mean"] == 1.0
    assert "Other splits, not test cases" in page


def test_hospital_without_test_cases_has_no_figure(tmp_path: Path) -> None:
    sites = {site: {"training": 3} for site in (*SITES, "hospital-3")}

    metrics = metrics_of(write_run(tmp_path / "run", sites=sites))

    assert metrics["sites"]["hospital-3"]["cases"] == 0
    assert metrics["sites"]["hospital-3"]["dice"] == dict.fromkeys((*REGIONS, "mean"))  # null, and never NaN
    assert metrics["sites"]["hospital-3"]["missed"] == dict.fromkeys(REGIONS)


def test_case_without_reference_is_counted_but_not_scored(tmp_path: Path) -> None:
    blind: Row = ("b3", "hospital-2", "testing", (None, None, None), (None, None, None))

    run = write_run(tmp_path / "run", rows=(*ROWS, blind))

    page = page_of(run)
    overall = json.loads((run / "metrics.json").read_text())["overall"]
    assert (overall["cases"], overall["cases_without_reference"]) == (4, 1)
    assert "1 further test case has no reference" in page


def test_run_json_with_a_job_name_alone_is_enough(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    (run / "run.json").write_text('{"job": "alone"}')

    metrics = metrics_of(run)

    assert (metrics["job"], metrics["rounds"], metrics["bundle"]) == ("alone", 3, None)


# How much it is worth

FIVE_EACH: tuple[Row, ...] = tuple(
    (f"{site[-1]}{number}", site, "testing", (dice,) * 3, (2.0,) * 3)
    for site, middle in zip(SITES, (0.8, 0.5), strict=True)
    for number, dice in enumerate((middle - 0.1, middle, middle, middle, middle + 0.1))
)


def test_hospitals_with_five_test_cases_each_have_a_best_a_lowest_and_a_gap(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", rows=FIVE_EACH)

    page = words(page_of(run))

    overall = json.loads((run / "metrics.json").read_text())["overall"]
    assert (overall["best_site"], overall["worst_site"]) == SITES
    assert overall["site_gap"] == pytest.approx(0.3)
    assert "It serves hospital-1 best (0.800) and hospital-2 least (0.500), a gap of 0.300." in page
    assert "Lowest hospital hospital-2" in page


def test_below_five_test_cases_no_hospital_is_called_best_or_lowest(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", rows=FIVE_EACH[:-1])  # hospital-2 has four

    page = words(page_of(run))

    overall = json.loads((run / "metrics.json").read_text())["overall"]
    assert [overall[key] for key in ("best_site", "worst_site", "site_gap")] == [None, None, None]
    assert (
        "No hospital is called best or lowest: that takes two with 5 test cases each, below which it is chance." in page
    )
    assert "It serves" not in page
    assert "Lowest hospital" not in page
    assert 'class="badge"' not in (run / "report.html").read_text()


def test_means_reported_over_a_number_of_cases_that_nobody_told_are_not_ranked() -> None:
    assert rank({"a": 0.9, "b": 0.1}, {"a": None, "b": None}) is None
    assert rank({"a": 0.9, "b": 0.1}, {"a": 5, "b": 4}) is None
    assert rank({"a": 0.9, "b": 0.1, "c": 0.0}, {"a": 5, "b": 5, "c": 1}) == Ranking("b", "a", 0.8)


def test_gap_over_the_rounds_is_drawn_of_hospitals_with_five_validation_cases(tmp_path: Path) -> None:
    few, enough = ({site: {"validation": number} for site in SITES} for number in (4, 5))

    titles = [
        [diagram.title for diagram in learning_curves(read_run(write_run(tmp_path / name, sites=sites)))]
        for name, sites in (("few", few), ("enough", enough))
    ]

    assert ["Validation gap between hospitals" in found for found in titles] == [False, True]


def test_every_mean_has_its_spread_and_its_number_of_cases_beside_it(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")

    page = words(page_of(run))

    metrics = json.loads((run / "metrics.json").read_text())
    # tc of hospital-1: 0.9, 0.7, 0.5, each 0.2 from the next: sqrt((0.04 + 0 + 0.04) / 2) = 0.2
    assert metrics["sites"]["hospital-1"]["dice_sd"]["tc"] == pytest.approx(0.2)
    assert metrics["sites"]["hospital-2"]["dice_sd"]["tc"] is None  # one case has no spread
    sd = metrics["overall"]["dice_sd"]["mean"]  # over the four cases' own means 0.9, 0.7, 0.6, 0.3
    assert sd == pytest.approx(0.25)
    assert "a mean Dice of 0.625 (standard deviation 0.250 over the cases; 1 is" in page
    assert "Dice, mean of the regions 0.625 sd 0.250, 4 cases" in page
    assert "hospital-1 3 cases mean 0.700 0.800 0.700 0.733 sd 0.200 " in page
    assert "Mean of the hospitals 0.400 0.700 0.450 0.517 sd over 2 hospitals 0.424 " in page


def test_distances_are_medians_with_the_missed_regions_beside_them_on_the_page(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")

    page = words(page_of(run))

    overall = json.loads((run / "metrics.json").read_text())["overall"]
    assert overall["hd95_mm_median"]["tc"] == 4.0  # of 1, 3, 5 and 373.13
    assert overall["missed"] == {"tc": 1, "wt": 0, "et": 0}
    assert "HD95 median 4.0 mm, 1 missed" in page
    assert "hospital-2 1 case median 373.1 10.0 20.0 missed 1 0 0" in page
    assert "95.5" not in page  # the mean that 373 mm is mixed into


def test_synthetic_cases_are_said_to_be_so_at_the_top(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", synthetic=["hospital-1", "hospital-2"])
    (run / "evaluation.json").write_text(json.dumps({"synthetic_cases": 4, "cases": 4}))

    page = words(page_of(run))

    assert (
        "Synthetic data: the cases that hospital-1 and hospital-2 trained on and 4 of the 4 cases that were evaluated "
        "were made by brats-fl sample."
    ) in page
    assert "Synthetic data" not in words(page_of(write_run(tmp_path / "real")))


# Which cases the model saw


@pytest.mark.parametrize(
    ("evaluation", "said"),
    [
        ({}, "On 4 test cases (whether it saw them in training was not checked), the model"),
        ({"seen_in_training": []}, "On 4 test cases that it never saw in training, the model"),
        ({"seen_in_training": ["hospital-1/a2"]}, "On 4 test cases (1 of which it saw in training), the model"),
    ],
)
def test_cases_are_called_unseen_only_where_that_was_checked(
    tmp_path: Path, evaluation: dict[str, Any], said: str
) -> None:
    run = write_run(tmp_path / "run")
    (run / "evaluation.json").write_text(json.dumps(evaluation))

    page = words(page_of(run))

    assert said in page
    assert ("trained or chosen on 1 of the test cases (hospital-1/a2)" in page) == ("1 of which" in said)


def test_figures_of_another_model_than_the_runs_are_said_to_be_so_at_the_top(tmp_path: Path) -> None:
    warning = "The model that was evaluated is none of this run's"

    assert warning in words(page_of(evaluated(tmp_path / "run", b"of another run")))
    assert warning not in words(page_of(evaluated(tmp_path / "own", b"final")))


# Who took part


def part_of(run: Path, site: str) -> tuple[str, list[int], int]:
    """What a hospital was to a run whose report is written, the rounds it trained in, its test cases."""
    found = json.loads((run / "metrics.json").read_text())["participants"][site]
    return found["part"], found["rounds"], found["test_cases"]


def test_hospital_that_was_invited_and_never_answered_is_absent_and_not_forgotten(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", sites={}, invited=[*SITES, "hospital-3"])  # no record speaks of hospital-3

    page = words(page_of(run))

    assert part_of(run, "hospital-3") == ("absent", [], 0)
    assert "2 hospitals trained one model together over 3 rounds. hospital-3 was invited and never answered." in page
    assert "Hospitals 2 of 3 invited" in page
    assert "Every hospital that was invited sent" not in page
    assert "hospital-3 0 of 3 0 to 2 missing (no answer in time)" in page


def test_invited_hospitals_are_found_in_the_job_of_a_run_that_does_not_list_them(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", sites={})
    meta = {"deploy_map": {"app_server": ["server"], "app_client": [*SITES, "hospital-3"]}}
    (run / "job" / "brats_unet_fedavg").mkdir(parents=True)
    (run / "job" / "brats_unet_fedavg" / "meta.json").write_text(json.dumps(meta))

    metrics_of(run)

    assert part_of(run, "hospital-3") == ("absent", [], 0)


def test_hospital_that_was_left_out_and_evaluated_did_not_train(tmp_path: Path) -> None:
    rows: list[Row] = [*ROWS, ("c1", "hospital-3", "testing", (0.5, 0.5, 0.5), (4.0, 4.0, 4.0))]
    run = write_run(tmp_path / "run", rows=rows, invited=[*SITES], left_out=["hospital-3"])

    page = words(page_of(run))

    assert part_of(run, "hospital-3") == ("left_out", [], 1)
    assert "2 hospitals trained one model together over 3 rounds. hospital-3 was left out of the training." in page
    assert "Every hospital that was invited sent an update in every round." in page


def test_hospital_of_which_only_test_cases_are_known_is_evaluated_only(tmp_path: Path) -> None:
    rows: list[Row] = [*ROWS, ("c1", "hospital-3", "testing", (0.5, 0.5, 0.5), (4.0, 4.0, 4.0))]
    run = write_run(tmp_path / "run", rows=rows)

    page = words(page_of(run))

    assert part_of(run, "hospital-3") == ("evaluated", [], 1)
    assert part_of(run, "hospital-1") == ("trained", [0, 1, 2], 3)
    assert "hospital-3 did not train: its cases are evaluated only." in page


def test_hospital_that_answered_with_errors_alone_did_not_train_either(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", rounds=1)
    write_rounds(run, [train(0, "hospital-1"), train(0, "hospital-2", status="CASE_ERROR")])

    page = words(page_of(run))

    assert part_of(run, "hospital-2") == ("failed", [], 1)
    assert "1 hospital trained one model together over 1 round. hospital-2 answered, but never with an update" in page


def test_hospital_that_missed_a_round_is_told_by_the_rounds_that_it_trained_in(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    write_rounds(run, [*(train(number, "hospital-1") for number in range(3)), train(1, "hospital-2")])

    page = words(page_of(run))

    assert part_of(run, "hospital-2") == ("trained", [1], 1)
    assert "hospital-2 was not there in every round." in page
    assert "hospital-1 trained 0 to 2 3 hospital-2 trained 1 1" in page


def test_run_that_was_cut_says_how_many_rounds_made_its_model(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", rounds=10, state="interrupted", rounds_done=3)
    write_rounds(run, [train(number, site) for number in range(3) for site in SITES])

    page = words(page_of(run))

    assert "2 hospitals trained one model together over 3 rounds of 10, after which the run was cut." in page
    assert json.loads((run / "metrics.json").read_text())["rounds_done"] == 3


def test_run_that_nobody_saw_end_has_the_rounds_of_all_its_parts(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", rounds=10, state="running")
    (run / "rounds.jsonl").unlink()
    for folder, numbers in (("earlier", (0, 1)), ("workspace/server/simulate_job", (2, 3, 4))):
        (run / folder).mkdir(parents=True)
        write_rounds(run / folder, [train(number, site) for number in numbers for site in SITES])

    assert "2 hospitals trained one model together over 5 rounds of 10" in words(page_of(run))


def test_run_that_was_resumed_says_at_which_rounds(tmp_path: Path) -> None:
    parts = [{"started": "2026-11-24T20:00:00+00:00", "seconds": 60.0, "first_round": first} for first in (0, 4, 7)]

    page = words(page_of(write_run(tmp_path / "run", seconds=180.0, parts=parts)))

    assert "Took 3 min 0 s Resumed at round 4 and 7; the time between is not in it" in page
    assert "Resumed" not in words(page_of(write_run(tmp_path / "whole", seconds=60.0, parts=parts[:1])))


# Rounds


def test_late_failed_and_silent_hospitals_are_missing_updates(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    late = {"phase": "train", "round": 0, "site": "hospital-2", "status": "missing"}
    failed = {"phase": "train", "round": 1, "site": "hospital-2", "status": "CASE_ERROR"}
    write_rounds(run, [train(0, SITES[0]), late, train(1, SITES[0]), failed, train(2, SITES[0])])

    page = page_of(run)

    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics["updates_per_site"] == {"hospital-1": 3, "hospital-2": 0}
    found = [(entry["round"], entry["status"]) for entry in metrics["missing"]]
    assert found == [(0, "missing"), (1, "CASE_ERROR"), (2, "missing")]
    table = words(page[page.index('id="missing-table"') :])
    assert "hospital-2 0 of 3 0 to 2" in table
    assert "CASE_ERROR (a scan or label could not be used)" in table


def mean(number: int, **shares: float) -> dict[str, Any]:
    """The server's own line of a round, of one that left the model as it was where no site has a share."""
    facts = {"status": "ok", "shares": {site.replace("_", "-"): share for site, share in shares.items()}}
    return {"phase": "mean", "round": number, "site": "server"} | (facts if shares else {"status": "TOO_FEW_UPDATES"})


def test_round_that_left_the_model_as_it_was_is_in_no_hospitals_rounds(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    sent = [train(number, site) for number in range(3) for site in SITES if (number, site) != (1, "hospital-2")]
    failed = {"phase": "train", "round": 1, "site": "hospital-2", "status": "CASE_ERROR"}
    shares = [mean(0, hospital_1=0.5, hospital_2=0.5), mean(1), mean(2, hospital_1=0.4, hospital_2=0.6)]
    write_rounds(run, [*sent, failed, *shares])

    page = words(page_of(run))

    assert part_of(run, "hospital-1") == ("trained", [0, 2], 3)
    assert json.loads((run / "metrics.json").read_text())["failed_rounds"] == [1]
    assert "together over 3 rounds. Round 1 had too few updates and left the model as it was." in page
    assert "hospital-1 trained 0, 2 40 to 50 % 3" in page
    assert "hospital-1 2 of 3 1 TOO_FEW_UPDATES (too few updates of the round could be used" in page
    assert "hospital-2 2 of 3 1 CASE_ERROR" in page


def test_page_of_a_run_without_shares_has_no_column_for_them(tmp_path: Path) -> None:
    assert "Share of the mean" not in page_of(write_run(tmp_path / "run"))


def test_every_code_of_a_failure_is_explained_on_the_page() -> None:
    kinds = [BratsFLError]
    for kind in kinds:
        kinds += kind.__subclasses__()

    assert {kind.code for kind in kinds} <= set(page_module.STATUS_MEANINGS)


def test_page_says_so_when_no_hospital_was_missing(tmp_path: Path) -> None:
    assert "Every hospital that was invited sent an update in every round." in page_of(write_run(tmp_path / "run"))


def test_failed_final_evaluation_is_listed(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", rounds=1)
    lines = [train(0, site) for site in SITES]
    write_rounds(run, [*lines, {"phase": "final", "round": 1, "site": "hospital-1", "status": "MODEL_ERROR"}])

    assert "hospital-1 1 of 1 final evaluation MODEL_ERROR" in words(page_of(run))


def test_waiting_is_the_time_until_the_slowest_hospital_is_done(tmp_path: Path) -> None:
    fast, slow = round_times(read_run(write_run(tmp_path / "run", rounds=1)))

    # hospital-1: 10 s of its own, 7 training and 2 evaluation; hospital-2: 20 s.
    parts = ("train_seconds", "evaluate_seconds", "other_seconds", "waiting_seconds")
    assert [getattr(fast, part) for part in parts] == [7.0, 2.0, 1.0, 10.0]
    assert [getattr(slow, part) for part in parts] == [17.0, 2.0, 1.0, 0.0]


def test_curves_leave_out_a_missed_round_and_end_with_the_final_model(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    missed = {"phase": "train", "round": 1, "site": "hospital-2", "status": "missing"}
    final = {
        "phase": "final",
        "round": 3,
        "site": "hospital-1",
        "status": "ok",
        "metrics": {"val_mean_dice": 0.6},
    }
    second = [train(0, SITES[1]), missed, train(2, SITES[1], metrics={"val_mean_dice": 0.8})]
    write_rounds(run, [*(train(number, SITES[0]) for number in range(3)), *second, final])

    curves = metric_curves(read_run(run), "val_mean_dice")

    assert rounded(curves["hospital-1"]) == [(0, 0.2), (1, 0.3), (2, 0.4), (3, 0.6)]
    assert rounded(curves["hospital-2"]) == [(0, 0.2), (2, 0.8)]
    assert rounded(mean_curve(curves)) == [(0, 0.2), (1, 0.3), (2, 0.6), (3, 0.6)]
    assert rounded(gap_curve(curves)) == [(0, 0.0), (2, 0.4)]


def test_rounds_without_validation_and_times_still_make_a_page(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    write_rounds(run, [{"phase": "train", "round": 0, "site": site, "status": "ok"} for site in SITES])

    page = words(page_of(run))

    assert "The rounds have no validation figure and no loss." in page
    assert "The rounds have no times and no bytes." in page


# Comparison


def test_same_cases_are_compared_in_pairs(tmp_path: Path) -> None:
    lower = tuple((case, site, split, [x - 0.1 for x in dice], hd) for case, site, split, dice, hd in ROWS)
    run, other = write_run(tmp_path / "run"), write_run(tmp_path / "other", rows=lower, job="baseline_local")

    page = words(page_of(run, [other]))

    against = json.loads((run / "metrics.json").read_text())["against"][0]
    assert (against["run"], against["common_cases"], against["same_cases"]) == ("other", 4, True)
    assert against["difference"]["All cases"]["dice"]["mean"] == pytest.approx(0.1)
    assert against["difference"]["hospital-2"]["hd95_mm_median"]["tc"] == 0.0
    assert "Against other (baseline_local, 3 rounds; model evaluated: not recorded)" in page
    assert "Both runs were tested on the same 4 cases" in page
    assert "With fewer than 5 pairs no interval is given" in page


def test_only_common_cases_are_compared_where_the_sets_differ(tmp_path: Path) -> None:
    rows: list[Row] = [
        ("a2", "hospital-1", "testing", (0.6, 0.6, 0.6), (5.0, 5.0, 5.0)),
        ("zz", "hospital-1", "testing", (0.0, 0.0, 0.0), (9.0, 9.0, 9.0)),
    ]
    run, other = write_run(tmp_path / "run"), write_run(tmp_path / "other", rows=rows)

    comparison = compare(read_run(run), read_run(other))

    assert comparison.common == 1
    assert comparison.only_here == ("hospital-1/a1", "hospital-1/a3", "hospital-2/b1")
    assert comparison.only_there == ("hospital-1/zz",)
    assert comparison.rows[-1].dice["mean"].difference == pytest.approx(0.7 - 0.6)  # case a2 alone
    notice = "The test cases differ: 1 are in both runs, 3 only in this one, 1 only in the other."
    assert notice in words(page_of(run, [other]))


def test_runs_without_a_common_case_are_said_to_be_unlike(tmp_path: Path) -> None:
    rows: list[Row] = [("zz", "hospital-1", "testing", (0.5, 0.5, 0.5), (9.0, 9.0, 9.0))]
    run, other = write_run(tmp_path / "run"), write_run(tmp_path / "other", rows=rows)
    (other / "rounds.jsonl").unlink()  # not needed of a run that is only compared with

    page = words(page_of(run, [other]))

    assert "The two runs have no test case in common." in page
    difference = json.loads((run / "metrics.json").read_text())["against"][0]["difference"]
    assert difference["All cases"]["dice"]["mean"] == pytest.approx(0.625 - 0.5)


def test_interval_of_equal_differences_is_their_value_and_of_others_encloses_the_mean() -> None:
    assert bootstrap_interval(np.full(6, 0.25)) == (0.25, 0.25)
    low, high = bootstrap_interval(np.array([0.0, 0.1, 0.2, 0.3, 0.4]))
    assert 0.0 < low < 0.2 < high < 0.4


# Page


def test_page_loads_nothing_from_anywhere(shown: Path) -> None:
    page = (shown / "report.html").read_text(encoding="utf-8")

    assert "://" not in page
    assert not re.search(r"<(script|link|iframe|object|embed)\b|@import|url\((?!#)", page)
    links = re.findall(r'(?:src|href)="([^"]{1,9})', page)
    assert {link for link in links if not link.startswith("#")} == {"data:imag"}
    assert "default-src 'none'" in page


@pytest.mark.usefixtures("figures")
def test_names_are_escaped_everywhere(tmp_path: Path) -> None:
    rows: list[Row] = [
        ("<b>", "<i>site</i>", "testing", (0.5, 0.5, 0.5), (1.0, 1.0, 1.0)),
        ('"><img src=x>', "$x^2$ & 病院", "testing", (0.6, 0.6, 0.6), (1.0, 1.0, 1.0)),
    ]
    run = write_run(tmp_path / "run", rows=rows, job="job<script>alert(1)<script>", sites={})
    write_rounds(run, [train(0, row[1]) for row in rows] + [train(1, "<u>")])

    page = page_of(run)

    assert not re.search(r"<(script|b|i|u|s|img)\b", page)
    assert "&lt;b&gt;" in page
    assert "&lt;script&gt;" in page
    assert "$x^2$ & 病院" in html.unescape(page)


def test_figures_and_pictures_have_texts_for_who_does_not_see_them(shown: Path) -> None:
    page = (shown / "report.html").read_text(encoding="utf-8")

    graphics = re.findall(r"<svg[^>]*>", page)
    assert len(graphics) == 10  # 3 learning curves (no gap of single cases), 4 strips, 3 of time and bytes
    assert all('role="img"' in tag and 'aria-label="' in tag for tag in graphics)
    assert all(re.search(r'alt="[^"]{20,}"', tag) for tag in re.findall(r"<img[^>]*>", page))
    assert all("scope=" in tag for tag in re.findall(r"<th\b[^>]*>", page))
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids))


@pytest.mark.usefixtures("figures")
def test_same_run_gives_the_same_page(tmp_path: Path, shown: Path) -> None:
    run = tmp_path / shown.name
    shutil.copytree(shown, run, ignore=shutil.ignore_patterns("report.html", "metrics.json"))

    write_report(run, [shown.parent / OTHER])

    for file in ("report.html", "metrics.json"):
        assert (run / file).read_bytes() == (shown / file).read_bytes()


def test_numbers_are_written_as_a_reader_wants_them() -> None:
    assert format_ranges([5, 1, 3, 4, 8, 9]) == "1, 3 to 5, 8, 9"
    assert [format_duration(seconds) for seconds in (2.5, 431.2, 7500, None)] == [
        "2.5 s",
        "7 min 11 s",
        "2 h 5 min",
        "\N{EN DASH}",
    ]
    assert format_difference(-0.0004, "dice") == "0.000"
    assert format_difference(-0.25, "hd95_mm") == "\N{MINUS SIGN}0.2"
    assert sorted(["site-10", "site-9", "b"], key=natural_key) == ["b", "site-9", "site-10"]


# Overlays


def test_every_case_is_shown_by_its_largest_error_and_tumour_in_two_planes(shown: Path) -> None:
    page = (shown / "report.html").read_text(encoding="utf-8")

    # b1 has the lowest mean Dice, a1 the highest, a3 the lower of the two in the middle; a2 is folded.
    titles = re.findall(r"<h3>((?:[A-Z][a-z]+: )?[ab][12345], [^<]*)</h3>", page)
    assert titles == ["Worst: b1, hospital-2", "Typical: a3, hospital-1", "Best: a1, hospital-1", "a2, hospital-1"]
    slices = re.findall(r"<figcaption>(Largest [^<]*)</figcaption>", page)
    # The prediction is moved sideways and to the front: the slice at half height has the most of both.
    assert slices[:3] == [
        "Largest error and largest tumour: axial slice 23 of 40",
        "Largest error: coronal slice 32 of 60",
        "Largest tumour: coronal slice 34 of 60",
    ]
    assert page.count("data:image/jpeg;base64,") == 4 * 3 * 4  # whole, then WT, TC and ET


def test_page_without_masks_says_why_it_has_no_pictures(tmp_path: Path) -> None:
    files = write_report(write_run(tmp_path / "run"))

    assert "<img" not in files.page.read_text()
    assert files.notes[0].startswith("No case is shown: there are no predicted masks (masks/<site>/<case>_seg.nii.gz)")


@pytest.mark.parametrize(
    ("volume", "reason"),
    [(np.zeros((9, 9, 9), np.int16), "another grid"), (np.full((60, 60, 40), 7, np.int16), "label holds 7")],
)
def test_mask_that_does_not_fit_is_left_out_with_its_reason(
    tmp_path: Path, volume: np.ndarray[Any, Any], reason: str
) -> None:
    run = write_run(tmp_path / "run", rows=ROWS[:1], sites_dir=str(tmp_path / "sites"))
    write_scans(tmp_path / "sites", run, ROWS[:1])
    save(volume, np.diag([-2.0, -2.0, 2.0, 1.0]), run / "masks" / "hospital-1" / "a1_seg.nii.gz")

    files = write_report(run)

    assert len(files.notes) == 1
    assert reason in files.notes[0]
    assert reason in words(files.page.read_text())


def test_cut_off_mask_is_left_out_with_its_reason(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", rows=ROWS[:1], sites_dir=str(tmp_path / "sites"))
    write_scans(tmp_path / "sites", run, ROWS[:1])
    mask = run / "masks" / "hospital-1" / "a1_seg.nii.gz"
    mask.write_bytes(mask.read_bytes()[:600])

    assert "a1_seg.nii.gz is cut short" in write_report(run).notes[0]


# Browser

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
QUIET = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--hide-scrollbars"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)
CHROMIUM = next((path for path in map(shutil.which, BROWSERS) if path), "")


def measure_in_browser(page: str, folder: Path, widths: Sequence[int]) -> dict[str, dict[str, Any]]:
    """What a browser makes of the page in a frame of each width: pixels it wants, rows of its tables."""
    frames = "".join(
        f'<iframe srcdoc="{html.escape(page)}" style="width:{width}px;height:900px;border:0"></iframe>'
        for width in widths
    )
    script = """
      const measure = frame => { const page = frame.contentDocument; return {
        wanted: page.documentElement.scrollWidth,
        dice: page.querySelectorAll('#scores-dice tbody tr').length,
        hd95: page.querySelectorAll('#scores-hd95_mm tbody tr').length,
        cases: page.querySelectorAll('#case-table tbody tr').length,
        further: page.querySelectorAll('.further tbody tr').length,
        sideways: [...page.querySelectorAll('#hospitals .scroll, #pictures .scroll, #pictures .panels, #methods')]
          .filter(part => part.scrollWidth > part.clientWidth).map(part => part.className || part.id),
        pictures: [...page.images].filter(image => image.naturalWidth > 0).length }; };
      addEventListener('load', () => { document.body.innerHTML = '<pre>' + JSON.stringify(
        [...document.querySelectorAll('iframe')].map(measure)) + '</pre>'; });
    """
    outer = folder / "outer.html"
    outer.write_text(f"<!DOCTYPE html><body>{frames}<script>{script}</script>", encoding="utf-8")
    profile = f"--user-data-dir={folder / 'profile'}"
    command = [CHROMIUM, *QUIET, profile, "--dump-dom", outer.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    found = re.search(r"<pre>(.*)</pre>", done.stdout)
    assert found, done.stdout[:500]
    return dict(zip(map(str, widths), json.loads(found.group(1)), strict=True))


@pytest.mark.skipif(not CHROMIUM, reason="no Chromium on this machine to open the page with")
def test_browser_shows_every_row_and_never_scrolls_sideways(shown: Path, tmp_path: Path) -> None:
    page = (shown / "report.html").read_text(encoding="utf-8")

    seen = measure_in_browser(page, tmp_path, widths=(390, 1400))

    for width, frame in seen.items():
        assert frame["wanted"] <= int(width)
        assert frame["sideways"] == []  # nor has a reader to push figures, pictures or methods to and fro
        # hospital-1 (mean, sd, median, worst), hospital-2 (one case: mean), all cases (4), hospitals, their sd.
        assert frame["dice"] == 4 + 1 + 4 + 2
        # hospital-1 (median, missed, worst), hospital-2 (one case: its distance, missed), all cases (3).
        assert frame["hd95"] == 3 + 2 + 3
        assert frame["cases"] == 4
        assert frame["further"] == 3 * 12  # ten figures, bias and limits, of all cases and of each hospital
        assert frame["pictures"] == 48


@pytest.mark.skipif(not (CHROMIUM and shutil.which("pdftotext")), reason="no Chromium or pdftotext on this machine")
def test_print_has_what_is_folded_on_the_screen(shown: Path, tmp_path: Path) -> None:
    pdf = tmp_path / "report.pdf"
    print_in_browser(shown / "report.html", pdf)

    done = subprocess.run(["pdftotext", "-layout", pdf, "-"], capture_output=True, text=True, check=True, timeout=60)

    text = " ".join(done.stdout.split())
    assert text.count("12.5 / 11.0") == 4 * 3  # the table of cases: predicted and reference volume of each region
    assert "Hospitals that answered, time of the slowest of them" in text  # the table of rounds
    assert "Learning curves Per case Pictures" not in text  # links to sections are of no use on paper


@pytest.mark.skipif(not (CHROMIUM and shutil.which("pdftotext")), reason="no Chromium or pdftotext on this machine")
def test_print_repeats_the_head_of_a_long_table_and_splits_no_row(tmp_path: Path) -> None:
    rows: list[Row] = [
        (f"case-{number:03}-of-a-long-name", "hospital-1", "testing", (0.5, 0.5, 0.5), (1.0, 1.0, 1.0))
        for number in range(120)
    ]
    pdf = tmp_path / "report.pdf"
    print_in_browser(write_report(write_run(tmp_path / "run", rows=rows)).page, pdf)

    done = subprocess.run(["pdftotext", "-layout", pdf, "-"], capture_output=True, text=True, check=True, timeout=60)

    pages = [page for page in done.stdout.split("\f") if re.search(r"case-\d{3}", page)]
    assert len(pages) > 1
    assert all("HD95 TC" in page for page in pages)
    for page in pages:  # the name of a case takes two lines, of one page
        assert len(re.findall(r"case-\d{3}", page)) * 3 == page.count("12.5 / 11.0")


def print_in_browser(page: Path, pdf: Path) -> None:
    """Print a page to a file."""
    profile = f"--user-data-dir={pdf.with_name('profile')}"
    command = [CHROMIUM, *QUIET, profile, "--no-pdf-header-footer", f"--print-to-pdf={pdf}", page.as_uri()]
    subprocess.run(command, capture_output=True, timeout=60, check=True)


# A federation whose hospitals keep their tables


def final(site: str, tc: float, wt: float, et: float) -> dict[str, Any]:
    """A hospital's report on the final model."""
    dice = {"val_dice_tc": tc, "val_dice_wt": wt, "val_dice_et": et, "val_mean_dice": (tc + wt + et) / 3}
    return {"phase": "final", "round": 2, "site": site, "status": "ok", "metrics": dice}


@pytest.fixture
def kept_at_home(tmp_path: Path) -> Path:
    """A run folder without evaluation.csv: hospital-1 and hospital-2 reported on the final model."""
    run = write_run(tmp_path / "run", rounds=2)
    (run / "evaluation.csv").unlink()
    lines = [train(number, site) for number in range(2) for site in SITES]
    write_rounds(run, [*lines, final("hospital-1", 0.9, 0.8, 0.7), final("hospital-2", 0.3, 0.6, 0.0)])
    return run


def test_report_without_a_table_of_cases_shows_what_the_hospitals_reported(kept_at_home: Path) -> None:
    files = write_report(kept_at_home)

    metrics = json.loads(files.metrics.read_text(encoding="utf-8"))
    assert metrics["split"] == "validation"
    assert metrics["sites"]["hospital-2"]["dice"] == pytest.approx({"tc": 0.3, "wt": 0.6, "et": 0.0, "mean": 0.3})
    assert metrics["sites"]["hospital-2"]["hd95_mm"] == {"tc": None, "wt": None, "et": None, "mean": None}
    assert metrics["overall"]["dice"] == pytest.approx({"tc": 0.6, "wt": 0.7, "et": 0.35, "mean": 0.55})
    assert (metrics["overall"]["worst_site"], metrics["overall"]["site_gap"]) == (None, None)  # of one case each
    text = words(files.page.read_text(encoding="utf-8"))
    assert "hospital-1 1 0.900 0.800 0.700 0.800 hospital-2 1 0.300 0.600 0.000 0.300" in text
    assert "Validation cases helped to choose the model" in text
    assert "Result on the test cases" not in text
    assert "no evaluation.csv there" in files.notes[0]


def test_reported_figures_are_of_the_final_model_whichever_was_the_best(kept_at_home: Path) -> None:
    info = json.loads((kept_at_home / "run.json").read_text())
    (kept_at_home / "run.json").write_text(json.dumps(info | {"best_round": 1}))

    page = words(page_of(kept_at_home))

    assert "Dice of the final model, validation cases" in page
    assert "Model evaluated final model " in page
    assert "best on validation" not in page


def test_report_of_nothing_is_refused(kept_at_home: Path) -> None:
    write_rounds(kept_at_home, [train(number, site) for number in range(2) for site in SITES])

    with pytest.raises(RunError, match=r"no evaluation.csv there, and no hospital reported .*`brats-fl evaluate "):
        write_report(kept_at_home)

    assert not (kept_at_home / "report.html").exists()


def test_run_without_a_table_of_cases_is_not_compared(kept_at_home: Path, tmp_path: Path) -> None:
    other = write_run(tmp_path / "other")

    with pytest.raises(RunError, match=r"evaluation.csv: no such file; `brats-fl evaluate "):
        write_report(kept_at_home, [other])


# Errors


@pytest.mark.parametrize(
    ("file", "verb"),
    [("run.json", "simulate"), ("rounds.jsonl", "simulate")],
)
def test_missing_file_is_named_with_the_command_that_makes_it(tmp_path: Path, file: str, verb: str) -> None:
    run = write_run(tmp_path / "run")
    (run / file).unlink()

    with pytest.raises(RunError, match=rf"{file}: no such file; `brats-fl {verb} "):
        write_report(run)

    assert not (run / "report.html").exists()
    assert not (run / "metrics.json").exists()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("a1,hospital-1,testing,tc,0.5,1,1,1", r"evaluation.csv:17: case a1 .* has two rows for tc"),
        (",hospital-1,testing,tc,0.5,1,1,1", r"evaluation.csv:17: case is empty; evaluate it again"),
        ("c1,,testing,tc,0.5,1,1,1", r"evaluation.csv:17: site is empty"),
        ("c1,hospital-1,testing,tumor,0.5,1,1,1", r"region must be one of tc, wt, et \(got 'tumor'\)"),
        ("c1,hospital-1,test,tc,0.5,1,1,1", r"split must be one of training, .* \(got 'test'\)"),
        ("c1,hospital-1,testing,tc,1.5,1,1,1", r"dice must be a number from 0 to 1 \(got '1.5'\)"),
        ("c1,hospital-1,testing,tc,0.5,inf,1,1", r"hd95_mm must be .* 0 or more \(got 'inf'\)"),
        ("c1,hospital-1,testing,tc,0.5,1,1,1", r"case c1 of hospital-1 has no row for wt"),
    ],
)
def test_wrong_row_of_the_table_is_named(tmp_path: Path, line: str, message: str) -> None:
    run = write_run(tmp_path / "run")
    with (run / "evaluation.csv").open("a") as file:
        file.write(line + "\n")

    with pytest.raises(RunError, match=message):
        write_report(run)


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        ({}, r"run\.json: has no job; `brats-fl simulate "),
        ({"bundle": "brats_unet"}, "has no job"),
        ({"job": None}, "job must be text"),
        ({"job": "alone", "rounds": -3}, r"rounds must be 0 or more \(got -3\)"),
        ({"job": "alone", "seconds": -0.5}, r"seconds must be 0 or more \(got -0\.5\)"),
        ({"job": "alone", "sites": {"a": {"training": -1}}}, r"sites\.a\.training must be 0 or more"),
    ],
)
def test_run_json_without_a_job_or_with_a_count_below_0_tells_no_run(
    tmp_path: Path, facts: dict[str, object], message: str
) -> None:
    run = write_run(tmp_path / "run")
    (run / "run.json").write_text(json.dumps(facts))

    with pytest.raises(RunError, match=message):
        write_report(run)

    assert not (run / "report.html").exists()


def test_rounds_far_apart_take_no_longer_than_rounds_side_by_side(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", rounds=1)
    late = [train(0, site, round=1_000_000_000) for site in SITES]
    write_rounds(run, [*(train(0, site) for site in SITES), *late])

    assert learning_curves(read_run(run))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"round": 1, "si\n{}', r"rounds.jsonl:1: cannot be read as JSON .*; remove the line"),
        ('{"phase": "train", "site": "a", "status": "ok"}', r"rounds.jsonl:1: round must be a whole number"),
        ('{"phase": "train", "round": "x", "site": "a", "status": "ok"}', r"round must be a whole number.*\(got 'x'\)"),
        ("\n", r"rounds.jsonl: holds no round"),
    ],
)
def test_wrong_line_of_the_rounds_is_named(tmp_path: Path, text: str, message: str) -> None:
    run = write_run(tmp_path / "run")
    (run / "rounds.jsonl").write_text(text)

    with pytest.raises(RunError, match=message):
        write_report(run)


def test_run_without_a_test_case_has_no_report(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", rows=ROWS[-1:])

    with pytest.raises(RunError, match="has no case of split testing with a reference"):
        write_report(run)


def test_report_is_not_overwritten_without_force(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    (run / "report.html").write_text("mine")

    with pytest.raises(RunError, match=r"report.html: is there already; give --force"):
        write_report(run)

    assert (run / "report.html").read_text() == "mine"
    assert "<h1>" in write_report(run, force=True).page.read_text()


def test_earlier_report_stays_whole_when_a_new_one_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = write_run(tmp_path / "run")
    before = page_of(run)

    def fill_the_disk(path: Path, text: str, encoding: str = "") -> int:
        path.touch()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", fill_the_disk)
    with pytest.raises(RunError, match="No space left on device"):
        write_report(run, force=True)

    assert (run / "report.html").read_text(encoding="utf-8") == before
    assert not list(run.glob(".*"))


def test_command_names_the_files_it_wrote_and_what_it_left_out(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    app = typer.Typer()
    app.command()(report)

    result = CliRunner().invoke(app, [str(run), "--against", str(write_run(tmp_path / "other"))])

    assert result.exit_code == 0
    assert result.stdout.splitlines() == [f"wrote {run / 'metrics.json'}", f"wrote {run / 'report.html'}"]
    assert "note: No case is shown" in result.stderr


def test_sites_that_are_no_folder_are_told_before_anything_is_written(tmp_path: Path) -> None:
    app = typer.Typer()
    app.command()(report)
    run = write_run(tmp_path / "run")

    result = CliRunner().invoke(app, [str(run), "--sites", str(tmp_path / "nowhere")])

    assert "no such folder; give the one that holds SITE/datalist.json" in str(result.exception)
    assert not (run / "report.html").exists()
