"""Private training in FLARE's simulator: two hospitals, three rounds; the second's budget is enough for one."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from tests.integration.test_federation import load, options
from tests.tiny_sites import make_tiny_sites

from brats_fl.ledger import LEDGER_FILE, read_ledger
from brats_fl.privacy.accounting import NoisedSteps, epsilon_of
from brats_fl.privacy.budget import SPENT_FILE, Budget, read_spent
from brats_fl.round_records import read_records
from brats_fl_tools.privacy.budgets import write_budgets
from brats_fl_tools.report import write_report
from brats_fl_tools.runs.simulate import run_simulation

pytestmark = pytest.mark.slow

CASES = {"hospital-1": (2, 1, 1), "hospital-2": (2, 1, 1)}
CHOSEN = {"noise_multiplier": 2.0, "clipping_norm": 1.0, "sampling_rate": 1.0, "delta": 1e-3}
ROUNDS = 3
EPSILON = [epsilon_of([NoisedSteps(2.0, 1.0, 2 * done)], 1e-3) for done in range(1, ROUNDS + 1)]
"""After each round of two steps."""


@pytest.fixture(scope="module")
def sites(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = make_tiny_sites(tmp_path_factory.mktemp("private") / "sites", CASES)
    write_budgets(root, Budget(EPSILON[-1] + 0.01, 1e-3), force=False)
    write_budgets(root / "hospital-2", Budget(EPSILON[0] + 0.01, 1e-3), force=True)
    return root


@pytest.fixture(scope="module")
def run(sites: Path) -> Path:
    run = sites.parent / "run"
    asked = options(ROUNDS)
    asked = replace(asked, values={**asked.values, **CHOSEN}, sites=tuple(CASES))
    run_simulation("brats_unet_dp", sites, run, asked)
    return run


def test_epsilon_of_each_round_is_recorded_and_the_round_that_would_pass_a_budget_is_not_trained(run: Path):
    records = [record for record in read_records(run / "rounds.jsonl") if record["phase"] == "train"]
    of_site = {site: [one for one in records if one["site"] == site] for site in CASES}

    assert [one["epsilon"] for one in of_site["hospital-1"]] == pytest.approx(EPSILON, abs=1e-5)
    assert [one["status"] for one in of_site["hospital-2"]] == ["ok", "PRIVACY_BUDGET", "PRIVACY_BUDGET"]
    assert of_site["hospital-2"][0]["epsilon"] == pytest.approx(EPSILON[0], abs=1e-5)
    assert of_site["hospital-1"][0]["delta"] == 1e-3


def test_nothing_else_is_told_and_the_last_model_is_the_result(run: Path):
    records = read_records(run / "rounds.jsonl")

    of_sites = [one for one in records if one["phase"] != "mean" and one["status"] == "ok"]
    assert not any(one.get("metrics") for one in of_sites)
    assert not {"loss", "seconds", "train_seconds"} & {
        key for one in of_sites if one["phase"] == "train" for key in one
    }
    assert json.loads((run / "run.json").read_text(encoding="utf-8"))["best_round"] == "final"
    best, final = load(run / "global_model.pt"), load(run / "final_model.pt")
    assert all((best[name] == final[name]).all() for name in final)


def test_each_hospital_keeps_a_record_of_what_it_spent(run: Path, sites: Path):
    assert [one.round for one in read_spent(sites / "hospital-1" / SPENT_FILE)] == [0, 1, 2]
    assert [one.round for one in read_spent(sites / "hospital-2" / SPENT_FILE)] == [0]


def test_report_and_ledger_tell_the_epsilon(run: Path):
    write_report(run)

    page = (run / "report.html").read_text(encoding="utf-8")
    assert "withheld all figures" in page
    assert 'id="reported-table"' not in page
    assert 'id="privacy-table"' in page
    assert f"<td>{EPSILON[-1]:.3f}</td><td>0.001</td><td>3</td>" in page
    told = [one for line in read_ledger(run / LEDGER_FILE) for one in line.records if "epsilon" in one]
    assert len(told) == 4
