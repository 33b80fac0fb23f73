from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from brats_fl.errors import PrivacyBudgetError
from brats_fl.privacy.accounting import NoisedSteps, epsilon_of
from brats_fl.privacy.budget import (
    BUDGET_FILE,
    SPENT_FILE,
    Spending,
    begin_record,
    digests_of,
    find_budget,
    read_budget,
    read_spent,
    refuse_unaccounted,
    reserve,
)

STEPS = NoisedSteps(4.0, 1.0, 4)  # as one Gaussian mechanism of deviation 2
ONE = epsilon_of([STEPS], 1e-3)
TWO = epsilon_of([STEPS, STEPS], 1e-3)
BEGUN = '{"begun": "2026-02-01T12:00:00+00:00"}\n'
ANN, BEN, CAT = (digests_of([name])[0] for name in ("ann", "ben", "cat"))


def write_budget(folder: Path, epsilon: float = TWO + 0.001, **more: object) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / BUDGET_FILE).write_text(json.dumps({"epsilon": epsilon, "delta": 1e-3, **more}), encoding="utf-8")
    begin_record(folder / SPENT_FILE)
    return folder / BUDGET_FILE


def round_of(*patients: str, study: str = "one", number: int = 0) -> Spending:
    return Spending(study, number, tuple(sorted(patients)), STEPS)


def test_round_is_on_the_record_before_it_is_trained(tmp_path):
    budget = write_budget(tmp_path)

    spent = reserve(budget, round_of(ANN, BEN), 1e-3)

    assert spent.total == spent.of_study == ONE
    (line,) = read_spent(tmp_path / SPENT_FILE)
    assert (line.study, line.round, line.patients, line.noise) == ("one", 0, tuple(sorted((ANN, BEN))), STEPS)
    assert line.time


def test_round_that_would_pass_the_budget_is_refused_and_spends_nothing(tmp_path):
    budget = write_budget(tmp_path)
    reserve(budget, round_of(ANN), 1e-3)
    reserve(budget, round_of(ANN, number=1), 1e-3)

    with pytest.raises(PrivacyBudgetError, match="with round 2 a patient would have spent"):
        reserve(budget, round_of(ANN, number=2), 1e-3)

    assert len(read_spent(tmp_path / SPENT_FILE)) == 2
    assert PrivacyBudgetError.code == "PRIVACY_BUDGET"


def test_same_round_again_spends_again_and_other_studies_count_in_the_total_only(tmp_path):
    budget = write_budget(tmp_path)
    reserve(budget, round_of(ANN, study="earlier"), 1e-3)

    again = reserve(budget, round_of(ANN), 1e-3)

    assert (again.total, again.of_study) == (TWO, ONE)
    with pytest.raises(PrivacyBudgetError):
        reserve(budget, round_of(ANN), 1e-3)  # a restart's: new noise, and a new price


def test_what_is_spent_counts_by_patient_and_one_more_on_the_list_is_no_new_list(tmp_path):
    budget = write_budget(tmp_path)
    reserve(budget, round_of(ANN, BEN), 1e-3)
    reserve(budget, round_of(ANN), 1e-3)

    assert reserve(budget, round_of(BEN, CAT), 1e-3).total == TWO  # Ben's second
    assert reserve(budget, round_of(CAT), 1e-3).total == TWO
    with pytest.raises(PrivacyBudgetError):
        reserve(budget, round_of(ANN, "0" * 16), 1e-3)


def test_release_with_an_epsilon_of_its_own_is_added(tmp_path):
    budget = write_budget(tmp_path, epsilon=ONE + 0.5)
    reserve(budget, Spending("statistics", 0, (ANN,), epsilon=0.5), 0.5)

    assert reserve(budget, round_of(ANN), 1e-3).total == pytest.approx(ONE + 0.5)
    with pytest.raises(PrivacyBudgetError, match="with these statistics"):
        reserve(budget, Spending("statistics", 0, (ANN,), epsilon=0.01), 0.5)


@pytest.mark.parametrize("lost", [BUDGET_FILE, SPENT_FILE])
def test_missing_file_refuses(tmp_path, lost: str):
    budget = write_budget(tmp_path)
    (tmp_path / lost).unlink()

    with pytest.raises(PrivacyBudgetError, match="no such file"):
        reserve(budget, round_of(ANN), 1e-3)

    assert not (tmp_path / SPENT_FILE).exists() or not read_spent(tmp_path / SPENT_FILE)


@pytest.mark.parametrize(
    ("file", "content"),
    [
        (BUDGET_FILE, "{}"),
        (BUDGET_FILE, '{"epsilon": 8, "delta": 0.001, "more": 1}'),
        (BUDGET_FILE, '{"epsilon": 0, "delta": 0.001}'),
        (BUDGET_FILE, '{"epsilon": "all", "delta": 0.001}'),
        (SPENT_FILE, ""),
        (SPENT_FILE, "\n\n"),
        (SPENT_FILE, '{"study": "one", "round": 0, "patients": ["a"], "epsilon": 1.0}'),
        (SPENT_FILE, BEGUN + '{"study": "one", "rou'),
        (SPENT_FILE, BEGUN + '{"study": "one", "round": 0, "patients": []}'),
    ],
)
def test_file_that_cannot_be_used_refuses(tmp_path, file: str, content: str):
    budget = write_budget(tmp_path)
    (tmp_path / file).write_text(content, encoding="utf-8")

    with pytest.raises(PrivacyBudgetError, match=file):
        reserve(budget, round_of(ANN), 1e-3)


def test_record_that_was_emptied_is_no_record_of_nothing_spent(tmp_path):
    budget = write_budget(tmp_path)
    reserve(budget, round_of(ANN), 1e-3)
    os.truncate(tmp_path / SPENT_FILE, 0)

    with pytest.raises(PrivacyBudgetError, match=f"{SPENT_FILE}: is empty.*restore it from a backup"):
        reserve(budget, round_of(ANN), 1e-3)


def test_record_that_cannot_be_written_refuses(tmp_path):
    budget = write_budget(tmp_path)
    (tmp_path / SPENT_FILE).unlink()
    (tmp_path / SPENT_FILE).mkdir()

    with pytest.raises(PrivacyBudgetError):
        reserve(budget, round_of(ANN), 1e-3)


def test_budget_of_a_kit_comes_before_that_of_the_simulator(tmp_path):
    environ = {"BRATS_FL_SITES": str(tmp_path / "sites")}
    in_sites = write_budget(tmp_path / "sites" / "hospital-1")
    assert find_budget("hospital-1", tmp_path / "kit", environ) == in_sites

    in_kit = write_budget(tmp_path / "kit" / "local")
    assert find_budget("hospital-1", tmp_path / "kit", environ) == in_kit


def test_budget_refuses_what_is_not_accounted_unless_it_says_otherwise(tmp_path):
    refuse_unaccounted(tmp_path / BUDGET_FILE, "an update")  # no budget, no refusal

    with pytest.raises(PrivacyBudgetError, match="an update would leave without an account"):
        refuse_unaccounted(write_budget(tmp_path), "an update")

    refuse_unaccounted(write_budget(tmp_path, allow_unaccounted=True), "an update")
    assert read_budget(tmp_path / BUDGET_FILE).allow_unaccounted
