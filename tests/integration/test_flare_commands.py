"""A built job in FLARE's own `nvflare simulator`; test_poc.py gives one to `nvflare job submit`."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from tests.integration.test_federation import CASES, JOB, TINY
from tests.tiny_sites import make_tiny_sites

from brats_fl.cases.datalists import SITES_VARIABLE
from brats_fl.round_records import read_records
from brats_fl_tools.jobs.assembly import JobOptions, build_job
from brats_fl_tools.runs.processes import last_lines, running

NVFLARE = str(Path(sys.executable).with_name("nvflare"))


@pytest.mark.slow
def test_built_job_runs_with_flares_own_simulator_command(tmp_path: Path) -> None:
    names = ("hospital-1", "hospital-2")
    sites = make_tiny_sites(tmp_path / "sites", {name: CASES[name] for name in names})
    job = build_job(JOB, tmp_path / "job", JobOptions("small", 1, TINY, sites=names))
    log, workspace = tmp_path / "simulator.log", tmp_path / "workspace"
    home = {"HOME": str(tmp_path), SITES_VARIABLE: str(sites), "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    command = [NVFLARE, "simulator", str(job.folder), "-w", str(workspace), "-c", ",".join(names), "-t", "2"]

    with running(command, log, home, cwd=tmp_path) as process:
        process.wait(timeout=300)

    server = workspace / "server" / "simulate_job"
    assert process.returncode == 0, last_lines(log)
    assert (server / "app_server" / "FL_global_model.pt").is_file()
    records = read_records(server / "rounds.jsonl")
    assert sorted((r["phase"], r["site"], r["status"]) for r in records) == [
        ("final", "hospital-1", "ok"), ("final", "hospital-2", "ok"), ("mean", "server", "ok"),
        ("train", "hospital-1", "ok"), ("train", "hospital-2", "ok"),
    ]  # fmt: skip
