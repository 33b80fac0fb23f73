"""Each algorithm's job in FLARE's simulator: two hospitals or as many as it needs, two rounds, tiny cases."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.integration.test_federation import load, local_models, options
from tests.tiny_sites import make_tiny_sites

from brats_fl.algorithms import algorithm_names, load_algorithm
from brats_fl.bundle import build_network
from brats_fl.kept_updates import ALGORITHM_STATE
from brats_fl.round_records import read_records
from brats_fl_tools.repository import BUNDLES
from brats_fl_tools.runs.simulate import run_simulation

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("name", [name for name in algorithm_names() if name not in ("fedavg", "dp")])
def test_job_of_the_algorithm_trains_and_keeps_the_state_that_the_algorithm_has(name: str, tmp_path: Path):
    algorithm = load_algorithm(name)
    names = tuple(f"hospital-{number}" for number in range(1, max(2, algorithm.least_updates()) + 1))
    sites = make_tiny_sites(tmp_path / "sites", {name: (2 if name == "hospital-1" else 1, 1, 0) for name in names})
    run = tmp_path / "run"

    run_simulation(f"brats_unet_{name}", sites, run, replace(options(rounds=2), sites=names))

    final = load(run / "final_model.pt")
    start = {k: v.numpy() for k, v in build_network(BUNDLES / "brats_unet", "small", seed=0).state_dict().items()}
    records = [record for record in read_records(run / "rounds.jsonl") if record["phase"] == "train"]
    assert [record["status"] for record in records] == ["ok"] * 2 * len(names)
    assert all(np.isfinite(value).all() for value in final.values())
    moved = {key for key, value in final.items() if not np.array_equal(value, start[key])}
    assert moved == {key for key in start if not algorithm.is_local(key)}
    kept = torch.load(run / "final_model.pt", weights_only=True)
    assert set(kept.get(ALGORITHM_STATE, {})) == set(algorithm.server_state(start))
    if any(map(algorithm.is_local, start)):
        first, second = local_models(run).values()
        assert any(not np.array_equal(first[key], second[key]) for key in start if algorithm.is_local(key))
