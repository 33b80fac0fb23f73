"""``--start-from`` in FLARE's simulator: the server begins with the given weights, and the run says so."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from tests.tiny_sites import make_tiny_sites
from typer.testing import CliRunner

from brats_fl.bundle import build_network
from brats_fl.provenance import hash_file
from brats_fl_tools.cli import app
from brats_fl_tools.repository import BUNDLES

pytestmark = pytest.mark.slow

TINY = ("patch_size=[32,32,32]", "steps_per_epoch=1", "batch_size=1", "learning_rate=1e-9")


def test_run_begins_with_the_weights_of_the_start(tmp_path: Path):
    sites = make_tiny_sites(tmp_path / "sites", {"hospital-1": (1, 1, 1), "hospital-2": (1, 1, 1)})
    state = build_network(BUNDLES / "brats_unet", "small", seed=7).state_dict()
    start, run = tmp_path / "start.pt", tmp_path / "run"
    torch.save({"state_dict": {f"module.{name}": value for name, value in state.items()}}, start)
    options = [part for value in TINY for part in ("--set", value)]
    command = ["simulate", "brats_unet_fedavg", "--sites", sites, "--out", run, "--profile", "small", "--rounds", "1"]

    result = CliRunner().invoke(app, [*map(str, command), *options, "--start-from", str(start)], catch_exceptions=False)

    assert result.exit_code == 0, result.output
    trained = torch.load(run / "final_model.pt", weights_only=True)["model"]
    assert all(torch.allclose(trained[name], state[name], atol=1e-6) for name in state)
    assert json.loads((run / "run.json").read_text())["start_sha256"] == hash_file(start)
    assert not (run / "seen_cases.json").exists()  # what the start had seen, nobody can tell
