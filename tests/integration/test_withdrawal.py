"""A hospital withdraws from a simulated study: the rounds after its first withdrawn one are done again without it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.tiny_sites import make_tiny_sites
from typer.testing import CliRunner

from brats_fl.ledger import read_ledger
from brats_fl_tools.cli import app

pytestmark = pytest.mark.slow

TINY = ("patch_size=[32,32,32]", "steps_per_epoch=1", "batch_size=1", "keep_updates=true")


def invoke(*words: object) -> str:
    done = CliRunner().invoke(app, [str(word) for word in words], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


def test_study_without_a_hospital_begins_where_it_had_not_touched_the_model_yet(tmp_path: Path):
    sites = make_tiny_sites(tmp_path / "sites", {f"hospital-{number}": (1, 1, 1) for number in (1, 2, 3)})
    run, out = tmp_path / "runs/study", tmp_path / "runs/without"
    options = [part for value in TINY for part in ("--set", value)]
    invoke(
        "simulate", "brats_unet_fedavg", "--sites", sites, "--out", run, "--profile", "small", "--rounds", 3, *options
    )

    said = invoke("withdraw", "hospital-3", "--run", run, "--out", out, "--from-round", 1)

    assert "hospital-1: mean Dice " in said
    before, after = (
        {line.round: line for line in read_ledger(folder / "ledger.jsonl") if line.kind == "round"}
        for folder in (run, out)
    )
    assert after[0] == before[0]
    assert after[1].sent == before[1].sent  # the same model, to the last bit
    assert [sorted(after[number].updates) for number in (0, 1, 2)] == [
        ["hospital-1", "hospital-2", "hospital-3"],
        ["hospital-1", "hospital-2"],
        ["hospital-1", "hospital-2"],
    ]
    assert "the ledger holds" in invoke("ledger", "verify", out)
    assert invoke("ledger", "replay", out).count("give the model") == 3
    assert json.loads((out / "run.json").read_text())["withdrawals"][0]["hospital"] == "hospital-3"
    assert "Withdrawn from this run: hospital-3" in invoke_report(run)
    assert "Done again without" in invoke_report(out)


def invoke_report(run: Path) -> str:
    invoke("report", run)
    return (run / "report.html").read_text(encoding="utf-8")
