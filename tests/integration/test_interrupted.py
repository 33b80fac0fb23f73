"""A simulated run that is interrupted and resumed ends with the model of an uninterrupted one, to the bit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from tests.integration.test_own_study import CASES, write_study
from tests.tiny_sites import make_tiny_sites

from brats_fl.errors import RunError
from brats_fl.round_records import read_records
from brats_fl_tools.jobs.assembly import JobOptions
from brats_fl_tools.ledger.command import judge
from brats_fl_tools.report import write_report
from brats_fl_tools.runs.resume import resume_run
from brats_fl_tools.runs.simulate import run_simulation
from brats_fl_tools.runs.simulator import POLLING_SECONDS

STOP = "STOP_AFTER_THREE_ROUNDS"
"""Variable that names a file: while it is there, the server dies at the end of round 3, before it saves the model."""

ALGORITHM = f'''
"""The server moves with momentum, and each site steers by what it did in the rounds before."""

import os
import signal
from pathlib import Path

import numpy as np

from brats_fl.aggregation import weighted_mean

SETTINGS = {{"momentum": 0.9, "steering": 0.5}}


def server_state(model, settings):
    zeros = {{name: np.zeros_like(value) for name, value in model.items()}}
    return {{"velocity": zeros, "rounds": zeros}}


def local_term(weight, start, received, own, settings):
    return settings["steering"] * own["control"] if own else 0 * weight


def client_update(run, received, own, settings):
    control = {{name: run.start[name] - run.trained[name] for name in run.start}}
    if own:
        control = {{name: value + own["control"][name] / 2 for name, value in control.items()}}
    return {{"control": control}}, {{}}


def server_update(model, state, contributions, settings):
    file = Path(os.environ.get("{STOP}", "/nowhere"))
    if file.is_file() and max(value.max() for value in state["rounds"].values()) == 3:
        file.unlink()
        os.kill(os.getpid(), signal.SIGKILL)
    mean = weighted_mean([(part.update, part.cases) for part in contributions])
    velocity = {{name: np.float32(settings["momentum"]) * state["velocity"][name] + mean[name] for name in mean}}
    return velocity, {{"velocity": velocity, "rounds": {{name: value + 1 for name, value in state["rounds"].items()}}}}
'''

OPTIONS = JobOptions(
    "small",
    rounds=5,
    values={
        "patch_size": [32, 32, 32],
        "steps_per_epoch": 2,
        "num_workers": 0,
        "amp": False,
    },
    polling_seconds=POLLING_SECONDS,
)


def write_job(root: Path) -> Path:
    job = write_study(root)
    (job / "custom" / "swinging.py").write_text(ALGORITHM)
    differences = json.loads((job / "job.json").read_text())
    (job / "job.json").write_text(json.dumps({**differences, "algorithm": "swinging", "algorithm_settings": {}}))
    return job


def load(path: Path) -> dict[str, Any]:
    return torch.load(path, weights_only=True)


def same(one: Any, other: Any) -> bool:
    """Whether two checkpoints are equal to the bit."""
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    return torch.equal(one, other) if isinstance(one, torch.Tensor) else one == other


@pytest.mark.slow
def test_resumed_run_ends_with_the_model_of_an_uninterrupted_one_to_the_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job, sites = write_job(tmp_path), make_tiny_sites(tmp_path / "sites", CASES)
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    monkeypatch.setenv(STOP, str(tmp_path / "stop"))
    run_simulation(job, sites, whole, OPTIONS)
    (tmp_path / "stop").touch()

    with pytest.raises(RunError, match=r"own did not finish .*; 3 of 5 rounds are kept: go on with `brats-fl resume"):
        run_simulation(job, sites, broken, OPTIONS)
    left = [p for p in psutil.process_iter(["cmdline"]) if str(broken) in " ".join(p.info["cmdline"] or [])]
    assert left == []
    facts = json.loads((broken / "run.json").read_text())
    assert (facts["state"], facts["rounds_done"], facts["rounds"]) == ("interrupted", 3, 5)
    assert {record["round"] for record in read_records(broken / "rounds.jsonl")} == {0, 1, 2}
    with pytest.raises(RunError, match=r"did not finish, .*; 3 of 5 rounds were done: go on with `brats-fl resume"):
        write_report(broken)
    resume_run(broken)

    assert same(load(broken / "final_model.pt"), load(whole / "final_model.pt"))
    for path in whole.glob("state/*/*/*.pt"):
        assert same(load(broken / path.relative_to(whole)), load(path)), path.name
    facts = json.loads((broken / "run.json").read_text())
    assert facts["state"] == "finished"
    assert [part["first_round"] for part in facts["parts"]] == [0, 3]
    assert facts["started"] == facts["parts"][0]["started"] < facts["parts"][1]["started"]
    assert facts["seconds"] == pytest.approx(sum(part["seconds"] for part in facts["parts"]), abs=0.2)
    records = read_records(broken / "rounds.jsonl")
    assert [(r["phase"], r["round"], r["site"]) for r in sorted(records, key=lambda r: (r["round"], r["site"]))] == [
        *(line for n in range(5) for line in (("train", n, "north"), ("mean", n, "server"), ("train", n, "south"))),
        ("final", 5, "north"),
        ("final", 5, "south"),
    ]
    assert judge(broken).problems == ()
    write_report(broken)
    with pytest.raises(RunError, match="all 5 rounds were done; nothing is left to do"):
        resume_run(broken)
