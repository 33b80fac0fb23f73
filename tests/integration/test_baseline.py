"""Baselines by the federation's own code, in FLARE's simulator, on tiny cases."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
import torch
from tests.tiny_sites import make_tiny_sites
from typer.testing import CliRunner

from brats_fl.bundle import build_network
from brats_fl.network.checkpoints import read_state
from brats_fl.provenance import hash_file
from brats_fl.round_records import read_records
from brats_fl_tools.cli import app
from brats_fl_tools.report import write_report
from brats_fl_tools.repository import BUNDLES

pytestmark = pytest.mark.slow

SMALL = ["--profile", "small", "--rounds", "1"]
TINY = [part for value in ("patch_size=[32,32,32]", "steps_per_epoch=2", "batch_size=1") for part in ("--set", value)]


def baseline(kind: str, sites: Path, out: Path, *more: str) -> str:
    """What the command prints."""
    result = CliRunner().invoke(
        app, ["baseline", kind, "--sites", str(sites), "--out", str(out), *SMALL, *TINY, *more], catch_exceptions=False
    )
    assert result.exit_code == 0, result.output
    return result.output


@pytest.fixture(scope="module")
def sites(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_sites(tmp_path_factory.mktemp("sites"), {"hospital-1": (2, 1, 1), "hospital-2": (1, 1, 2)})


def test_each_hospital_alone_is_tested_on_its_own_cases_and_compared_with_a_pooled_run(sites: Path, tmp_path: Path):
    told = baseline("local", sites, tmp_path / "local")
    baseline("central", sites, tmp_path / "central")

    assert "2 runs of one hospital each, each of 1 round: 2 steps one after the other" in told
    table = pd.read_csv(tmp_path / "local" / "evaluation.csv")
    assert {site: set(rows.case) for site, rows in table.groupby("site")}.keys() == {"hospital-1", "hospital-2"}
    assert table[["site", "case"]].drop_duplicates().shape[0] == 3
    models = json.loads((tmp_path / "local" / "evaluation.json").read_text())["models_sha256"]
    assert len(set(models.values())) == 2
    write_report(tmp_path / "central" / "pooled", [tmp_path / "local"])
    page = (tmp_path / "central" / "pooled" / "report.html").read_text()
    assert "2 models of local" in page


def test_hospital_keeps_the_global_model_where_fitting_makes_it_worse_on_its_validation_cases(
    sites: Path, tmp_path: Path
):
    start = tmp_path / "global.pt"
    torch.save(build_network(BUNDLES / "brats_unet", "small", seed=10).state_dict(), start)

    baseline("local", sites, tmp_path / "own", "--start-from", str(start), "--set", "learning_rate=0.1")

    run = tmp_path / "own" / "hospital-1"
    records = [record for record in read_records(run / "rounds.jsonl") if record["site"] == "hospital-1"]
    dice = {record["phase"]: record["metrics"]["val_mean_dice"] for record in records}
    assert dice["train"] > dice["final"]  # of the model that it started from, and of what training made of it
    assert json.loads((run / "run.json").read_text())["best_round"] == 0
    kept, given = read_state(run / "global_model.pt"), read_state(start)
    assert all(torch.equal(kept[name], given[name]) for name in given)


def test_weights_of_the_sample_come_with_their_card(tmp_path: Path):
    command = [
        "pretrain",
        "--out",
        str(tmp_path / "start"),
        "--cases-per-site",
        "3",
        *SMALL,
        "--set",
        "steps_per_epoch=2",
    ]

    result = CliRunner().invoke(app, command, catch_exceptions=False)

    assert result.exit_code == 0, result.output
    card = json.loads((tmp_path / "start" / "model.json").read_text())
    assert card["sample"] == {"seed": 0, "cases_per_site": 3, "cases": {"training": 7, "validation": 5, "testing": 5}}
    assert (card["steps"], card["model_sha256"]) == (2, hash_file(tmp_path / "start" / "model.pt"))


def test_second_call_goes_on_with_what_is_missing_and_another_baseline_is_refused(sites: Path, tmp_path: Path):
    out = tmp_path / "out"
    baseline("leave-one-out", sites, out)
    (out / "without-hospital-2" / "evaluation.csv").unlink()

    told = baseline("leave-one-out", sites, out)

    assert "without-hospital-1: done before" in told
    assert "without-hospital-2: training" not in told
    assert (out / "without-hospital-2" / "evaluation.csv").is_file()
    refused = CliRunner().invoke(app, ["baseline", "local", "--sites", str(sites), "--out", str(out), *SMALL])
    assert refused.exit_code == 1
    assert "it holds a baseline" in str(refused.exception)
