"""One run of the simulator, which several tests look at: starting a federation takes most of a minute."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from tests.integration.test_federation import CASES, JOB, options
from tests.integration.test_tracking import tracker_if_installed
from tests.tiny_sites import make_tiny_sites

from brats_fl_tools.runs.simulate import run_simulation


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder of one round over five sites in the simulator, with curves for TensorBoard."""
    root = tmp_path_factory.mktemp("federation")
    sites = make_tiny_sites(root / "sites", CASES)
    asked = options(rounds=1)
    values = {**asked.values, "keep_updates": True}
    asked = replace(asked, values=values, tracking=tracker_if_installed("tensorboard"))
    run_simulation(JOB, sites, root / "run", asked)
    return root / "run"
