"""What the simulator is started with; the runs themselves are in ``tests/integration``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from brats_fl.errors import JobError, RunError
from brats_fl_tools.runs import simulator_process
from brats_fl_tools.runs.simulator import gpu_groups
from brats_fl_tools.runs.submission import Submission, sites_folder_of


@pytest.mark.parametrize(
    ("gpu", "groups"),
    [("0", ["0"]), ("0,1", ["0", "1"]), ("[0,1],[2]", ["[0,1]", "[2]"]), ("0, [1]", ["0", "[1]"])],
)
def test_gpus_are_grouped_as_flare_groups_them(gpu: str, groups: list[str]):
    from nvflare.private.fed.utils.fed_utils import split_gpus

    assert gpu_groups(gpu, sites=2) == groups
    assert split_gpus(gpu) == [group.strip("[]") for group in groups]


@pytest.mark.parametrize("gpu", ["0,,1", "a", "[0,1", "[[0]]", "0;1", "-1", "[]", "0,"])
def test_gpus_that_are_written_in_another_way_are_refused(gpu: str):
    with pytest.raises(JobError, match="--gpu must list GPUs, or groups of them"):
        gpu_groups(gpu, sites=5)


def test_gpu_stands_once_and_there_are_no_more_groups_than_sites():
    with pytest.raises(JobError, match="--gpu 0,0: a GPU stands twice"):
        gpu_groups("0,0", sites=5)
    with pytest.raises(JobError, match="--gpu 0,1,2: 3 groups of GPUs for 2 sites"):
        gpu_groups("0,1,2", sites=2)


@pytest.mark.parametrize(("gpu", "given"), [("", None), ("0,[1,2]", "0,[1,2]")])
def test_gpus_and_sites_reach_flares_runner(gpu: str, given: str | None, monkeypatch: pytest.MonkeyPatch):
    from nvflare.private.fed.app.simulator import simulator_runner

    got: dict[str, Any] = {}

    class Runner:
        def __init__(self, **arguments: Any) -> None:
            got.update(arguments)

        def run(self) -> int:
            return 0

    monkeypatch.setattr(simulator_runner, "SimulatorRunner", Runner)
    monkeypatch.setattr(simulator_process, "end_with_parent", lambda parent: None)
    monkeypatch.setattr(sys, "argv", ["", "/run/job", "/run/workspace", "north,south", gpu, "1"])

    assert simulator_process.main() == 0
    assert got == {
        "job_folder": "/run/job",
        "workspace": "/run/workspace",
        "clients": "north,south",
        "threads": 1,
        "gpu": given,
        "max_clients": 2,
    }


def test_run_that_does_not_say_where_its_sites_lie_is_refused_with_its_file(tmp_path: Path) -> None:
    submission = Submission("brats_unet_fedavg", "brats_unet_fedavg", "2026-02-01T10:00:00+00:00")

    with pytest.raises(RunError, match=r"submission\.json: has no sites_dir; it is damaged"):
        sites_folder_of(tmp_path, submission)
