"""A real federation in FLARE's simulator whose models and updates travel as int8."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.tiny_sites import make_tiny_sites

from brats_fl.ledger import LEDGER_FILE, read_ledger
from brats_fl.round_records import read_records
from brats_fl_tools.jobs.assembly import JobOptions
from brats_fl_tools.ledger.command import judge
from brats_fl_tools.ledger.replay import replay_run
from brats_fl_tools.runs.simulate import run_simulation
from brats_fl_tools.runs.simulator import POLLING_SECONDS

ROUNDS = 3
TINY = {"patch_size": [32, 32, 32], "steps_per_epoch": 1, "batch_size": 1}


pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of three rounds over two hospitals."""
    root = tmp_path_factory.mktemp("compressed")
    sites = make_tiny_sites(root / "sites", {"hospital-1": (2, 1, 0), "hospital-2": (1, 1, 0)})
    options = JobOptions(
        "small", ROUNDS, {**TINY, "compression": "int8", "keep_updates": True}, polling_seconds=POLLING_SECONDS
    )
    run_simulation("brats_unet_fedavg", sites, root / "run", options)
    return root / "run"


def test_first_model_goes_whole_and_all_else_takes_a_quarter_of_the_bytes(run: Path) -> None:
    whole = 4 * json.loads((run / "run.json").read_text(encoding="utf-8"))["parameters"]
    train = [record for record in read_records(run / "rounds.jsonl") if record["phase"] == "train"]

    assert [record["status"] for record in train] == ["ok"] * 2 * ROUNDS
    assert {record["bytes_down"] for record in train if record["round"] == 0} == {whole}
    later = {record["bytes_down"] for record in train if record["round"] > 0}
    for size in later | {record["bytes_up"] for record in train}:
        assert 0.25 <= size / whole <= 0.27


def test_models_come_out_again_to_the_bit_from_updates_that_were_kept_as_they_came(run: Path) -> None:
    lines = read_ledger(run / LEDGER_FILE)

    assert len(list(replay_run(run, lines))) == ROUNDS
    assert judge(run).problems == ()
    assert lines[0].settings["compression"] == "int8"
