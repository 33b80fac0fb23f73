"""How many sites of a simulation work at once."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.tiny_sites import make_tiny_sites

from brats_fl.errors import JobError
from brats_fl.round_records import read_records
from brats_fl_tools.jobs.assembly import JobOptions
from brats_fl_tools.jobs.built import BuiltJob
from brats_fl_tools.runs.simulate import run_simulation
from brats_fl_tools.runs.simulator import POLLING_SECONDS
from brats_fl_tools.runs.turns import choose_at_once, describe_turns, refuse_turns, sites_at_once


@pytest.mark.parametrize(
    ("sites", "profile", "memory_gb", "cores", "at_once"),
    [
        (15, "small", 24, 2, 15),  # 15 x 1.4 + 2 = 23 GB
        (16, "small", 24, 2, 2),  # 24.4 GB: in turns, one a core
        (50, "small", 24, 64, 15),  # no more than fit, whatever the cores
        (50, "small", 3, 8, 1),
        (50, "full", 34, 8, 4),  # 4 x 8 + 2
        (50, "none", 24, 2, 50),  # 50 x 0.4 + 2 = 22 GB
        (5, "full", 8, 2, 5),  # the usual five are let be
    ],
)
def test_all_sites_work_at_once_where_they_fit_into_memory_and_one_a_core_where_they_do_not(
    sites: int, profile: str, memory_gb: float, cores: int, at_once: int
):
    assert sites_at_once(sites, profile, memory_gb, cores) == at_once


def test_users_number_is_taken_and_one_that_cannot_be_is_refused():
    assert choose_at_once(3, 0, 50, "small") == 3
    assert choose_at_once(None, 2, 50, "small") == 2
    for number in (0, 51):
        with pytest.raises(JobError, match=r"--at-once must be from 1 to 50, .* \(got"):
            choose_at_once(number, 0, 50, "small")
    with pytest.raises(JobError, match="--at-once 3: with 2 groups of GPUs so many sites"):
        choose_at_once(3, 2, 50, "small")


def test_turns_are_told_with_the_memory_that_all_at_once_would_take():
    told = describe_turns(2, 50, "small")

    assert "all at once would need 72 GB (1.4 GB a site in profile small, 2 GB for the server)" in told


def test_sites_that_keep_secrets_in_memory_cannot_take_turns(tmp_path: Path):
    config = tmp_path / "app_client" / "config" / "config_fed_client.json"
    config.parent.mkdir(parents=True)
    executor = {"path": "brats_fl.components.secure_executor.SecureExecutor"}
    config.write_text(json.dumps({"executors": [{"executor": executor}]}))
    job = BuiltJob(tmp_path, "brats_unet_secagg", "brats_unet", ("east", "north", "south"), {}, "")

    refuse_turns(job, 3)
    with pytest.raises(JobError, match=r"unet_secagg: its sites keep secrets .* \(2 of 3 at a time\); .*--at-once 3"):
        refuse_turns(job, 2)


@pytest.mark.slow
def test_sites_that_take_turns_have_the_same_rounds_and_the_same_model_as_sites_that_do_not(tmp_path: Path):
    sites = make_tiny_sites(tmp_path / "sites", dict.fromkeys(("east", "north", "south"), (1, 1, 0)))
    values = {"patch_size": [32, 32, 32], "steps_per_epoch": 1, "num_workers": 0, "min_clients": 3}
    options = JobOptions("small", 2, values, sites=("east", "north", "south"), polling_seconds=POLLING_SECONDS)

    run_simulation("brats_unet_fedavg", sites, tmp_path / "turns", options, at_once=1)
    run_simulation("brats_unet_fedavg", sites, tmp_path / "all", options)

    in_turns, at_once = (
        {(record["round"], record["site"]): record for record in read_records(tmp_path / run / "rounds.jsonl")}
        for run in ("turns", "all")
    )
    assert in_turns.keys() == at_once.keys()
    trained = [record for record in in_turns.values() if record["phase"] == "train" and record["site"] != "server"]
    assert len(trained) == 6  # nobody missed a round
    for place, record in in_turns.items():
        assert record["status"] == "ok"
        # Of an evaluation, no loss. Sites at once share the cores: fewer threads add up in another order.
        assert record.get("loss") == pytest.approx(at_once[place].get("loss"), abs=1e-5)
    assert json.loads((tmp_path / "turns" / "run.json").read_text())["at_once"] == 1
