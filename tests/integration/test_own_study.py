"""A job, a bundle with a network of its own and an algorithm, all by new files in a folder of one's own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.tiny_sites import make_tiny_sites

from brats_fl.bundle import build_network
from brats_fl.round_records import read_records
from brats_fl_tools.jobs.assembly import JobOptions
from brats_fl_tools.model.evaluate import evaluate_sites
from brats_fl_tools.repository import BUNDLES
from brats_fl_tools.runs.simulate import run_simulation
from brats_fl_tools.runs.simulator import POLLING_SECONDS

NETWORK = '''
"""One convolution: 4 x 3 weights and 3 biases."""

from torch import nn


class Pointwise(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv3d(4, 3, 1)

    def forward(self, image):
        return self.conv(image)
'''

ALGORITHM = '''
"""The server takes a part of the mean, and counts rounds; sites are pulled to a centre that the server sends."""

import numpy as np

from brats_fl.aggregation import weighted_mean

SETTINGS = {"part": 1.0, "pull": 0.0}
SENT = ("seen",)


def server_state(model, settings):
    return {"centre": {name: np.full_like(value, 2.0) for name, value in model.items()}}


def broadcast(state, settings):
    return {"centre": state["centre"]}


def local_term(weight, start, received, own, settings):
    return settings["pull"] * (weight - received["centre"])


def client_update(run, received, own, settings):
    rounds = {name: own["rounds"][name] + 1 if own else np.ones_like(value) for name, value in run.start.items()}
    return {"rounds": rounds}, {"seen": rounds}


def server_update(model, state, contributions, settings):
    mean = weighted_mean([(part.update, part.cases) for part in contributions])
    seen = weighted_mean([(part.payloads["seen"], 1) for part in contributions])
    update = {name: np.float32(settings["part"]) * value for name, value in mean.items()}
    return update, {"centre": {name: state["centre"][name] + seen[name] for name in model}}
'''

RECORDS = '''
"""The round records, with a count of the rounds that were done."""

from pathlib import Path

from nvflare.app_common.app_event_type import AppEventType

from brats_fl.components.records import RoundRecords


class CountingRecords(RoundRecords):
    def __init__(self, unit):
        super().__init__()
        self.unit = unit
        self.done = 0

    def handle_event(self, event_type, fl_ctx):
        super().handle_event(event_type, fl_ctx)
        if event_type == AppEventType.ROUND_DONE:
            self.done += 1
            run = Path(fl_ctx.get_engine().get_workspace().get_run_dir(fl_ctx.get_job_id()))
            (run / "counted.txt").write_text(f"{self.done} {self.unit}")
'''

CASES = {"north": (2, 1, 1), "south": (1, 1, 1)}


def write_study(root: Path) -> Path:
    """Job ``own``, bundle ``own_net`` and algorithm ``pulled`` in a folder; the job's path."""
    bundle, job = root / "bundles" / "own_net", root / "jobs" / "own"
    (bundle / "configs").mkdir(parents=True)
    (bundle / "scripts").mkdir()
    for config in (BUNDLES / "brats_unet" / "configs").iterdir():
        content: dict[str, Any] = json.loads(config.read_text()) if config.suffix == ".json" else {}
        own = {key: value for key, value in content.items() if not key.startswith("network_def#")}
        if "network_def" in own:
            own["network_def"] = {"_target_": "scripts.pointwise.Pointwise"}
        (bundle / "configs" / config.name).write_text(json.dumps(own) if content else config.read_text())
    (bundle / "scripts" / "__init__.py").write_text("")
    (bundle / "scripts" / "pointwise.py").write_text(NETWORK)
    (job / "custom").mkdir(parents=True)
    (job / "custom" / "pulled.py").write_text(ALGORITHM)
    (job / "custom" / "counting.py").write_text(RECORDS)
    meta = {"name": "own", "min_clients": 2, "deploy_map": {"app_server": ["server"], "app_client": list(CASES)}}
    (job / "meta.json").write_text(json.dumps(meta))
    differences = {
        "description": "a study of one's own",
        "bundle": "own_net",
        "algorithm": "pulled",
        "algorithm_settings": {"part": 0.5},
        "min_clients": 2,
        "num_rounds": 2,
        "components": {"round_records": {"path": "counting.CountingRecords", "args": {"unit": "rounds"}}},
    }
    (job / "job.json").write_text(json.dumps(differences))
    return job


@pytest.fixture(scope="module")
def own_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two rounds over two hospitals with names of their own, in the simulator."""
    root = tmp_path_factory.mktemp("own")
    sites = make_tiny_sites(root / "sites", CASES)
    values = {"patch_size": [32, 32, 32], "steps_per_epoch": 2, "pull": 0.25}
    options = JobOptions("small", values=values, polling_seconds=POLLING_SECONDS)
    run_simulation(write_study(root), sites, root / "run", options)
    return root / "run"


def test_component_of_the_job_took_the_place_of_the_one_with_its_id(own_run: Path) -> None:
    assert (own_run / "workspace/server/simulate_job/counted.txt").read_text() == "2 rounds"


def load(path: Path) -> dict[str, Any]:
    return torch.load(path, weights_only=True)


def test_both_hospitals_train_in_both_rounds(own_run: Path) -> None:
    train = [record for record in read_records(own_run / "rounds.jsonl") if record["phase"] == "train"]

    assert sorted((r["round"], r["site"], r["status"]) for r in train) == [
        (0, "north", "ok"),
        (0, "south", "ok"),
        (1, "north", "ok"),
        (1, "south", "ok"),
    ]
    # 15 float32 parameters, and as many of what the algorithm sends beside them, in each direction.
    assert {(r["bytes_down"], r["bytes_up"]) for r in train} == {(120, 120)}


def test_state_of_the_algorithm_went_through_both_rounds_at_server_and_sites(own_run: Path) -> None:
    final = load(own_run / "final_model.pt")

    # 2 at first, then + 1 (each site's first round) + 2 (its second).
    assert set(final["brats_fl_algorithm_state"]["centre"]["conv.bias"].tolist()) == {5.0}
    kept = {path.parents[1].name: load(path) for path in own_run.glob("state/*/*/round-0001.pt")}
    assert {site: state["rounds"]["conv.bias"].tolist() for site, state in kept.items()} == {
        "north": [2.0] * 3,
        "south": [2.0] * 3,
    }


def test_server_took_half_of_the_mean_of_the_last_round(own_run: Path) -> None:
    final = {name: value.numpy() for name, value in load(own_run / "final_model.pt")["model"].items()}
    local = {path.parents[1].name: load(path)["model"] for path in own_run.glob("state/*/*/local_model.pt")}
    mean = {name: (2 * local["north"][name].numpy() + local["south"][name].numpy()) / 3 for name in final}

    # final = before + (mean - before) / 2, so that before = 2 final - mean; it began as random weights of seed 0, and
    # in two rounds of two steps at .003 no parameter moved by more than 4 x .003 and what little AdamW adds.
    before = {name: 2 * final[name] - mean[name] for name in final}
    job = own_run.parent / "bundles" / "own_net"
    start = {name: value.numpy() for name, value in build_network(job, "small", seed=0).state_dict().items()}
    for name in final:
        assert 1e-5 < float(np.abs(final[name] - before[name]).max()) < 0.004
        assert float(np.abs(before[name] - start[name]).max()) < 0.004


def test_model_of_the_own_network_is_evaluated_by_the_bundles_command(own_run: Path) -> None:
    root = own_run.parent

    table = evaluate_sites(
        root / "bundles" / "own_net", own_run / "global_model.pt", root / "sites", root / "eval", "small"
    )

    assert sorted(set(table.site)) == ["north", "south"]
