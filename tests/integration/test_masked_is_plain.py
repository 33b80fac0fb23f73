"""Five rounds of FedAvg in FLARE's simulator, plain and masked, one hospital dropping out of the third: one model.

A masked value is a whole number of units of 16 / 2^31 = 7.5e-9. Each hospital rounds its part of the mean by half a
unit at most, five of them by 1.9e-8 together, and a drop-out of 1 case in 8 makes that of the other four 1.7e-8: 1e-7
over five rounds. float32 rounds a weight near 1 by up to 6e-8 in each round, masked or not. The rest of 1e-6 is room
for training that goes on from models that differ so much. The network has no instance norm: a bias in front of one has
no gradient but rounding noise, of which AdamW makes whole steps, so that two such runs differ by that wherever they do.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.integration.test_federation import CASES, load
from tests.integration.test_own_study import write_study
from tests.tiny_sites import make_tiny_sites

from brats_fl.round_records import MEAN_PHASE, read_records
from brats_fl_tools.drill.broken_sites import write_fault
from brats_fl_tools.jobs.assembly import JobOptions
from brats_fl_tools.runs.simulate import run_simulation
from brats_fl_tools.runs.simulator import POLLING_SECONDS

LOST, LOST_ROUND, ROUNDS = "hospital-5", 2, 5

DROPS_OUT = f"""import sys

if "brats_fl.trainer_process" in " ".join(sys.orig_argv):
    import brats_fl.training

    honest = brats_fl.training.train_round

    def train_round(training, task):
        if (training.settings.site, task.round_index) == ({LOST!r}, {LOST_ROUND}):
            raise RuntimeError("dropped out")
        return honest(training, task)

    brats_fl.training.train_round = train_round
"""

NETWORK = '''
"""Two convolutions, 67 values."""

from torch import nn


class Pointwise(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Conv3d(4, 8, 1), nn.Tanh(), nn.Conv3d(8, 3, 1))
'''

OPTIONS = JobOptions(
    "small",
    rounds=ROUNDS,
    values={"patch_size": [32, 32, 32], "steps_per_epoch": 4, "batch_size": 1, "num_workers": 0, "amp": False},
    polling_seconds=POLLING_SECONDS,
)


def write_jobs(root: Path) -> dict[str, Path]:
    """Jobs ``plain`` and ``masked``, which differ in nothing else."""
    written = write_study(root)
    (root / "bundles" / "own_net" / "scripts" / "pointwise.py").write_text(NETWORK)
    jobs = {}
    for name, differs in (("plain", {}), ("masked", {"secure_aggregation": True})):
        jobs[name] = written.with_name(name)
        jobs[name].mkdir()
        common: dict[str, Any] = {"description": "a mean", "bundle": "own_net", "num_rounds": ROUNDS, "min_clients": 4}
        (jobs[name] / "job.json").write_text(json.dumps(common | differs))
        deployed = {"app_server": ["server"], "app_client": list(CASES)}
        (jobs[name] / "meta.json").write_text(json.dumps({"name": name, "min_clients": 4, "deploy_map": deployed}))
    return jobs


@pytest.mark.slow
def test_masked_and_plain_rounds_give_one_model_to_a_millionth_with_a_drop_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sites, jobs = make_tiny_sites(tmp_path / "sites", CASES), write_jobs(tmp_path)
    monkeypatch.setenv("PYTHONPATH", write_fault(tmp_path / "fault", DROPS_OUT))
    for name, job in jobs.items():
        run_simulation(job, sites, tmp_path / name, OPTIONS)

    for name in jobs:
        records = read_records(tmp_path / name / "rounds.jsonl")
        lost = [(r["round"], r["site"]) for r in records if r["phase"] == "train" and r["status"] != "ok"]
        assert lost == [(LOST_ROUND, LOST)], name
    masked = [r for r in read_records(tmp_path / "masked" / "rounds.jsonl") if r["phase"] == MEAN_PHASE]
    assert [line["secure_aggregation"]["dropped_out"] for line in masked] == [[], [], [LOST], [], []]
    plain, secure = (load(tmp_path / name / "final_model.pt") for name in jobs)
    assert sum(value.size for value in plain.values()) == 67  # 4 x 8 + 8 + 8 x 3 + 3
    difference = max(float(np.abs(plain[name] - secure[name]).max()) for name in plain)
    print(f"largest difference {difference:.1e}")
    assert difference <= 1e-6
