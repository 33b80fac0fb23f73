"""``simulate --gpu``: each site's processes see the GPUs of its group and no others, as FLARE deals them out."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from tests.integration.test_own_study import write_study
from tests.tiny_sites import make_tiny_sites

from brats_fl.round_records import read_records
from brats_fl_tools.jobs.assembly import JobOptions
from brats_fl_tools.runs.simulate import run_simulation
from brats_fl_tools.runs.simulator import POLLING_SECONDS

ALGORITHM = '''
"""Federated averaging; a site remembers in each round which GPUs it saw: 3 for GPU 3, 45 for GPUs 4 and 5."""

import os

import numpy as np

from brats_fl.aggregation import weighted_mean


def client_update(run, received, own, settings):
    seen = int(os.environ["CUDA_VISIBLE_DEVICES"].replace(",", ""))
    before = own["seen"] if own else {name: np.zeros_like(value) for name, value in run.start.items()}
    return {"seen": {name: 100 * before[name] + np.float32(seen) for name in run.start}}, {}


def server_update(model, state, contributions, settings):
    return weighted_mean([(part.update, part.cases) for part in contributions]), state
'''


@pytest.mark.slow
def test_sites_share_groups_of_gpus_and_keep_what_they_remember_when_they_take_turns(tmp_path: Path) -> None:
    job = write_study(tmp_path)
    (job / "custom" / "looking.py").write_text(ALGORITHM)
    differences = json.loads((job / "job.json").read_text())
    (job / "job.json").write_text(json.dumps({**differences, "algorithm": "looking", "algorithm_settings": {}}))
    sites = make_tiny_sites(tmp_path / "sites", dict.fromkeys(("east", "north", "south"), (1, 1, 0)))
    values = {"patch_size": [32, 32, 32], "steps_per_epoch": 1, "num_workers": 0}
    options = JobOptions("small", 2, values, sites=("east", "north", "south"), polling_seconds=POLLING_SECONDS)

    run_simulation(job, sites, tmp_path / "run", options, gpu="3,[4,5]")

    kept = {path.parents[1].name: path for path in (tmp_path / "run").glob("state/*/*/round-0001.pt")}
    seen = {site: torch.load(path, weights_only=True)["seen"]["conv.bias"][0].item() for site, path in kept.items()}
    # The groups go round: the first and the third site take turns on GPU 3. Two rounds: 3 and 3, 45 and 45.
    assert seen == {"east": 303, "north": 4545, "south": 303}
    assert {record["status"] for record in read_records(tmp_path / "run" / "rounds.jsonl")} == {"ok"}
    assert json.loads((tmp_path / "run" / "run.json").read_text())["gpu"] == "3,[4,5]"
