"""What a hospital lets out for a cross-site evaluation, and the matrix that comes of it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.tiny_sites import make_tiny_sites

from brats_fl.cases.datalists import DATALIST_FILE, read_datalist, write_datalist
from brats_fl.errors import BratsFLError, DataListError, JobError, NotSharedError, PrivacyError, TooFewCasesError
from brats_fl.sharing.cross_site import (
    CROSS_SITE_FILE,
    RULES_FILE,
    Cell,
    CrossSite,
    Row,
    Scores,
    SiteRules,
    as_json,
    check_split,
    count_scored,
    read_cross_site,
    read_rules,
)
from brats_fl.sharing.site_statistics import Protection
from brats_fl.typed import NotTypedError, typed

DICE = {"tc": 0.5, "wt": 0.9, "et": 0.4}
ALLOWED = SiteRules(score_test_cases=True)


def test_without_a_file_the_model_may_go_and_test_cases_stay(tmp_path: Path) -> None:
    assert read_rules("hospital-1", tmp_path, {}) == SiteRules(send_local_model=True, score_test_cases=False)


def test_rules_are_those_of_the_kit_and_in_a_simulation_those_beside_the_data_list(tmp_path: Path) -> None:
    for folder, keeps in ((tmp_path / "sites" / "hospital-1", False), (tmp_path / "kit" / "local", True)):
        folder.mkdir(parents=True)
        (folder / RULES_FILE).write_text(json.dumps({"send_local_model": keeps}))
    environ = {"BRATS_FL_SITES": str(tmp_path / "sites")}

    assert read_rules("hospital-1", tmp_path / "kit", environ).send_local_model
    assert not read_rules("hospital-1", tmp_path / "other", environ).send_local_model
    assert read_rules("hospital-2", tmp_path / "other", environ).send_local_model


@pytest.mark.parametrize("text", ['{"send_local_models": false}', '{"send_local_model": "no"}', "[]", "{"])
def test_rules_that_cannot_be_read_let_nothing_out(text: str, tmp_path: Path) -> None:
    (tmp_path / "local").mkdir()
    (tmp_path / "local" / RULES_FILE).write_text(text)

    with pytest.raises(PrivacyError, match="nothing is sent before"):
        read_rules("hospital-1", tmp_path, {})


@pytest.fixture
def datalist(tmp_path: Path) -> Path:
    """Of six patients: three for training, one for validation, two for testing."""
    return make_tiny_sites(tmp_path, {"hospital-1": (3, 1, 2)}) / "hospital-1" / DATALIST_FILE


@pytest.mark.parametrize(
    ("split", "rules", "fewest", "outcome"),
    [
        ("validation", SiteRules(), 6, 1),
        ("validation", SiteRules(), 7, TooFewCasesError),
        ("testing", SiteRules(), 2, NotSharedError),
        ("testing", ALLOWED, 2, 2),
        ("testing", ALLOWED, 3, TooFewCasesError),
    ],
)
def test_mean_over_cases_leaves_by_the_hospitals_own_rules(
    split: str, rules: SiteRules, fewest: int, outcome: int | type[BratsFLError], datalist: Path
) -> None:
    protection = Protection(min_cases=fewest)
    if isinstance(outcome, int):
        assert count_scored(datalist, split, rules, protection) == outcome
    else:
        with pytest.raises(outcome):
            count_scored(datalist, split, rules, protection)


def test_hospital_without_a_case_to_score_has_too_few(datalist: Path) -> None:
    write_datalist(datalist, replace(read_datalist(datalist), validation=()))

    with pytest.raises(TooFewCasesError, match="0 cases for validation"):
        count_scored(datalist, "validation", SiteRules(), Protection(min_cases=2))


def test_test_case_without_a_label_is_an_error_and_not_left_out(datalist: Path) -> None:
    content = read_datalist(datalist)
    write_datalist(datalist, replace(content, testing=(replace(content.testing[0], label=None), content.testing[1])))

    with pytest.raises(DataListError, match="has no label"):
        count_scored(datalist, "testing", ALLOWED, Protection(min_cases=2))


def test_job_may_not_ask_for_the_cases_that_models_were_trained_on() -> None:
    with pytest.raises(JobError, match="one of validation, testing"):
        check_split("training")


@pytest.mark.parametrize(
    "sent",
    [
        {"cases": 3, "dice": DICE | {"tc": 1.5}},
        {"cases": 3, "dice": DICE | {"tc": float("nan")}},
        {"cases": 3, "dice": DICE | {"tc": "0.5"}},
        {"cases": 3, "dice": DICE | {"tc": True}},
        {"cases": 3, "dice": DICE | {"case-7": 0.5}},
        {"cases": 3, "dice": {"tc": 0.5}},
        {"cases": 3, "dice": {str(number): 0.5 for number in range(10_000)}},
        {"cases": 0, "dice": DICE},
        {"cases": 10**9, "dice": DICE},
        {"cases": 3, "dice": DICE, "names": ["case-7"]},
        {"dice": DICE},
        [],
    ],
)
def test_what_is_no_scores_is_refused(sent: Any) -> None:
    with pytest.raises(NotTypedError):
        typed(Scores, sent)


def test_mean_is_over_regions() -> None:
    assert Scores(9, DICE).mean == pytest.approx(0.6)  # (0.5 + 0.9 + 0.4) / 3


def test_matrix_is_read_as_it_was_written(tmp_path: Path) -> None:
    cells = {"hospital-2": Cell("ok", Scores(3, DICE)), "hospital-1": Cell("missing")}
    matrix = CrossSite("testing", (Row("global", "final", "ok", cells), Row("local", "hospital-3", "NOT_SHARED")))
    (tmp_path / CROSS_SITE_FILE).write_text(json.dumps(as_json(matrix)))

    assert read_cross_site(tmp_path / CROSS_SITE_FILE) == matrix
    assert matrix.sites == ["hospital-1", "hospital-2", "hospital-3"]


@pytest.mark.parametrize("cell", [{"status": "ok"}, {"status": "CASE_ERROR", "scores": {"cases": 1, "dice": DICE}}])
def test_cell_has_scores_exactly_where_it_is_ok(cell: Any) -> None:
    with pytest.raises(NotTypedError, match="a cell has scores"):
        typed(Cell, cell)
