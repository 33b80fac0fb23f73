"""``brats-fl simulate``: a whole federation on one machine with FLARE's simulator, one process per site."""

from __future__ import annotations

import os
import subprocess
import time
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from brats_fl.cases.datalists import SITES_VARIABLE
from brats_fl.errors import RunError
from brats_fl.site_state import STATE_VARIABLE
from brats_fl.tracking import TRACKING_FOLDER, TRACKING_VARIABLE
from brats_fl_tools.jobs.options import (
    ForceOption,
    LeaveOutOption,
    NameArgument,
    ProfileOption,
    RoundsOption,
    SetOption,
    TimeoutsOption,
    TrackingOption,
    options_from,
)
from brats_fl.round_records import RECORDS_FILE, read_records
from brats_fl_tools.jobs.assembly import BuiltJob, JobOptions, build_job
from brats_fl_tools.jobs.participants import choose_sites
from brats_fl_tools.jobs.source import read_source
from brats_fl_tools.runs.processes import python_module, running
from brats_fl_tools.runs.folder import (
    Progress,
    announce,
    check_sites,
    collect,
    is_finished,
    now,
    prepare_run_folder,
    reason,
)

POLLING_SECONDS = 0.05
"""All processes are on one machine: a round's fixed cost is polling, and loopback bears twenty looks a second."""

SERVER_RUN_DIR = Path("workspace/server/simulate_job")
STATE_FOLDER = "state"
"""Of a run folder: what each simulated site keeps for itself."""


def simulate(
    name: NameArgument,
    sites: Annotated[Path, typer.Option("--sites", help="Folder with SITE/datalist.json for each site of the job.")],
    out: Annotated[Path, typer.Option("--out", help="Run folder to write.")],
    profile: ProfileOption = "full",
    rounds: RoundsOption = None,
    values: SetOption = None,
    leave_out: LeaveOutOption = None,
    timeouts_from: TimeoutsOption = None,
    tracking: TrackingOption = None,
    force: ForceOption = False,
) -> None:
    """Write a run folder OUT: global_model.pt, final_model.pt, rounds.jsonl, run.json, from a run on this machine."""
    options = options_from(profile, rounds, values, timeouts_from, polling_seconds=POLLING_SECONDS, tracking=tracking)
    run_simulation(name, sites, out, replace(options, sites=choose_sites(read_source(name), leave_out)), force)


def run_simulation(name: str, sites: Path, run: Path, options: JobOptions, force: bool = False) -> BuiltJob:
    """Run a job in FLARE's simulator and collect its run folder; prints a line per round and site.

    Raises:
        JobError, DataListError: The job or a data list is wrong; nothing was started.
        RunError: The run did not finish; the message names its log.
    """
    sites, run = sites.resolve(), run.resolve()
    source = read_source(name)
    counts = check_sites(sites, options.sites or source.sites, source.trains)
    prepare_run_folder(run, force)
    job = build_job(name, run / "job", options)
    log = run / "simulator.log"
    threads = max(1, (os.cpu_count() or 1) // len(job.sites))
    environment = {
        SITES_VARIABLE: str(sites),
        STATE_VARIABLE: str(run / STATE_FOLDER),
        TRACKING_VARIABLE: str(run / TRACKING_FOLDER),
        # Each site's process would take every core; together they would fight for them (only this variable works).
        "OMP_NUM_THREADS": str(threads),
        "PYTHONWARNINGS": "ignore",
    }
    typer.echo(f"{announce(job)}; log {log}")
    started, begin = now(), time.perf_counter()
    command = python_module(
        "brats_fl_tools.runs.simulator_process", str(job.folder), str(run / "workspace"), ",".join(job.sites)
    )
    with running(command, log, environment, cwd=run) as process:
        follow(process, run / SERVER_RUN_DIR / RECORDS_FILE)
    if process.returncode != 0 or not is_finished(job, run / SERVER_RUN_DIR):
        raise RunError(f"{name} did not finish ({reason(log)}); see {log}")
    facts: dict[str, Any] = {
        "mode": "simulator",
        "sites": counts,
        "sites_dir": str(sites),
        "started": started,
        "seconds": round(time.perf_counter() - begin, 1),
    }
    collect(run, run / SERVER_RUN_DIR, job, facts)
    typer.echo(f"done in {facts['seconds']:.0f} s: {run}")
    return job


def follow(process: subprocess.Popen[bytes], records: Path) -> None:
    """Print each record as it appears until the process ends."""
    progress = Progress()
    while process.poll() is None:
        progress.show(read_records(records))
        time.sleep(0.5)
    progress.show(read_records(records))
