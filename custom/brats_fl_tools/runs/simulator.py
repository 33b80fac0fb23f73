"""Carries out a built job in FLARE's simulator, one process per site, and keeps what was done, whatever ends it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from pathlib import Path
from typing import Final

import psutil
import typer

from brats_fl.cases.datalists import SITES_VARIABLE
from brats_fl.errors import JobError, RunError
from brats_fl.round_records import RECORDS_FILE, read_records
from brats_fl.site_state import STATE_VARIABLE
from brats_fl.tracking import TRACKING_FOLDER, TRACKING_VARIABLE
from brats_fl_tools.jobs.built import BuiltJob
from brats_fl_tools.runs.collect import collect, collect_interrupted, is_finished
from brats_fl_tools.runs.folder import SIMULATED_SERVER, SIMULATOR_WORKSPACE, STATE_FOLDER
from brats_fl_tools.runs.processes import Interrupted, end_marked, python_module, reason, running
from brats_fl_tools.runs.progress import Progress, announce
from brats_fl_tools.runs.submission import Submission, begin, sites_folder_of
from brats_fl_tools.runs.turns import refuse_turns

POLLING_SECONDS = 0.05
"""All processes are on one machine: a round's fixed cost is polling, and loopback bears twenty looks a second."""

MODE: Final = "simulator"
"""Of ``run.json``."""

PROCESS: Final = "brats_fl_tools.runs.simulator_process"
LOG_FILE: Final = "simulator.log"

_GPU_GROUP = r"(?:\d+|\[\d+(?:,\d+)*\])"
_GPU_GROUPS = re.compile(rf"{_GPU_GROUP}(?:,{_GPU_GROUP})*")


def gpu_groups(gpu: str, sites: int) -> list[str]:
    """The groups of GPUs that sites share, as ``0,[1,2]`` names them: one site at a time works with each.

    Raises:
        JobError: It is written in another way, a GPU stands twice, or there are more groups than sites.
    """
    text = gpu.replace(" ", "")
    if not _GPU_GROUPS.fullmatch(text):
        raise JobError(
            f"--gpu must list GPUs, or groups of them, as FLARE's simulator does: 0,1 or [0,1],[2,3] (got {gpu!r})"
        )
    numbers = re.findall(r"\d+", text)
    if len(set(numbers)) < len(numbers):
        raise JobError(f"--gpu {gpu}: a GPU stands twice; name each once")
    groups = re.findall(_GPU_GROUP, text)
    if len(groups) > sites:
        raise JobError(f"--gpu {gpu}: {len(groups)} groups of GPUs for {sites} sites; give at most one a site")
    return groups


def carry_out(run: Path, job: BuiltJob, submission: Submission) -> None:
    """Run a job, print a line per round and site, and collect its run folder.

    Args:
        run: Run folder, absolute.
        job: What ``build_job`` wrote.
        submission: With ``sites_dir`` in its facts, ``gpu`` where GPUs are shared, ``at_once`` where sites take turns.

    Raises:
        JobError: Sites of this job cannot take turns; nothing was started.
        RunError: The run did not finish; the message names its log.
        Interrupted: By Ctrl-C or SIGTERM.
    """
    log, server = run / LOG_FILE, run / SIMULATED_SERVER
    gpu = str(submission.facts.get("gpu") or "")
    at_once = min(int(submission.facts.get("at_once", len(job.sites))), len(job.sites))
    refuse_turns(job, at_once)
    environment = {
        SITES_VARIABLE: str(sites_folder_of(run, submission)),
        STATE_VARIABLE: str(run / STATE_FOLDER),
        TRACKING_VARIABLE: str(run / TRACKING_FOLDER),
        # Each site's process would take every core; together they would fight for them (only this variable works).
        "OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // at_once)),
        "PYTHONWARNINGS": "ignore",
    }
    command = python_module(
        PROCESS, str(job.folder), str(run / SIMULATOR_WORKSPACE), ",".join(job.sites), gpu, str(at_once)
    )
    # FLARE empties it, too, but later: the records of an earlier part of this run are not this part's.
    shutil.rmtree(run / SIMULATOR_WORKSPACE, ignore_errors=True)
    begin(run, job, submission)
    typer.echo(f"{announce(job)}; log {log}")
    start = time.perf_counter()
    try:
        try:
            with running(command, log, environment, cwd=run) as process:
                follow(process, server / RECORDS_FILE)
        finally:
            # The sites of a server that was killed are nobody's descendants any more.
            end_marked(STATE_VARIABLE, environment[STATE_VARIABLE])
    except (KeyboardInterrupt, SystemExit):
        kept = _keep(run, server, job, submission, time.perf_counter() - start)
        raise Interrupted(f"what was started has been stopped; {kept}") from None
    seconds = time.perf_counter() - start
    if process.returncode != 0 or not is_finished(job, server):
        kept = _keep(run, server, job, submission, seconds)
        raise RunError(f"{job.name} did not finish ({reason(log)}); see {log}; {kept}")
    collect(run, server, job, submission, seconds, {})
    typer.echo(f"done in {seconds:.0f} s: {run}")


def _keep(run: Path, server: Path, job: BuiltJob, submission: Submission, seconds: float) -> str:
    """Keep what was done; in words, what that is and how to go on."""
    done = collect_interrupted(run, server, job, submission, seconds) if job.bundle else 0
    if not done:
        return "nothing was done that could be kept: start it again with --force"
    return f"{done} of {job.total_rounds} rounds are kept: go on with `brats-fl resume {run}`"


def follow(process: subprocess.Popen[bytes], records: Path) -> None:
    """Print each record as it appears until the process ends."""
    progress = Progress()
    while process.poll() is None:
        progress.show(read_records(records))
        time.sleep(0.5)
    progress.show(read_records(records))


def is_simulating(run: Path) -> bool:
    """Whether a process of the simulator works for a run folder."""
    workspace = str(run / SIMULATOR_WORKSPACE)
    lines = (process.info["cmdline"] or [] for process in psutil.process_iter(["cmdline"]))
    return any(PROCESS in line and workspace in line for line in lines)
