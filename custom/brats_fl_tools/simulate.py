"""``brats-fl simulate``: a whole federation on one machine with FLARE's simulator, one process per site."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from brats_fl.constants import KEY_METRIC
from brats_fl.datalists import SITES_VARIABLE
from brats_fl.errors import RunError
from brats_fl_tools.jobs import (
    BuiltJob,
    ForceOption,
    JobOptions,
    NameArgument,
    ProfileOption,
    RoundsOption,
    SetOption,
    build_job,
    job_sites,
    options_from,
)
from brats_fl_tools.processes import last_lines, python_module, running
from brats_fl_tools.runs import check_sites, collect, now, prepare_run_folder, read_records

POLLING_SECONDS = 0.05
"""All processes are on one machine: a round's fixed cost is polling, and loopback bears twenty looks a second."""

SERVER_RUN_DIR = Path("workspace/server/simulate_job")


def simulate(
    name: NameArgument,
    sites: Annotated[Path, typer.Option("--sites", help="Folder with SITE/datalist.json for each site of the job.")],
    out: Annotated[Path, typer.Option("--out", help="Run folder to write.")],
    profile: ProfileOption = "full",
    rounds: RoundsOption = None,
    values: SetOption = None,
    force: ForceOption = False,
) -> None:
    """Write a run folder OUT: global_model.pt, final_model.pt, rounds.jsonl, run.json, from a run on this machine."""
    run_simulation(name, sites, out, options_from(profile, rounds, values, POLLING_SECONDS), force)


def run_simulation(name: str, sites: Path, run: Path, options: JobOptions, force: bool = False) -> BuiltJob:
    """Run a job in FLARE's simulator and collect its run folder; prints a line per round and site.

    Raises:
        JobError, DataListError: The job or a data list is wrong; nothing was started.
        RunError: The run did not finish; the message names its log.
    """
    sites, run = sites.resolve(), run.resolve()
    counts = check_sites(sites, job_sites(name))
    prepare_run_folder(run, force)
    job = build_job(name, run / "job", options)
    log = run / "simulator.log"
    threads = max(1, (os.cpu_count() or 1) // len(job.sites))
    environment = {
        SITES_VARIABLE: str(sites),
        # Each site's process would take every core; together they would fight for them (only this variable works).
        "OMP_NUM_THREADS": str(threads),
        "PYTHONWARNINGS": "ignore",
    }
    typer.echo(
        f"{name}: {job.variables['num_rounds']} rounds, {len(job.sites)} sites, profile {options.profile}; log {log}"
    )
    started, begin = now(), time.perf_counter()
    command = python_module(
        "brats_fl_tools.simulator_process", str(job.folder), str(run / "workspace"), ",".join(job.sites)
    )
    with running(command, log, environment, cwd=run) as process:
        follow(process, run / SERVER_RUN_DIR / "rounds.jsonl")
    if process.returncode != 0 or not finished(run, job):
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


def finished(run: Path, job: BuiltJob) -> bool:
    """Whether the records reach the last round."""
    rounds = {record["round"] for record in read_records(run / SERVER_RUN_DIR / "rounds.jsonl")}
    return int(job.variables["num_rounds"]) - 1 in rounds


def follow(process: subprocess.Popen[bytes], records: Path) -> None:
    """Print each record as it appears until the process ends."""
    shown = 0
    while True:
        ended = process.poll() is not None
        lines = read_records(records)
        for record in lines[shown:]:
            typer.echo(describe_record(record))
        shown = len(lines)
        if ended:
            return
        time.sleep(0.5)


def describe_record(record: dict[str, Any]) -> str:
    """One line: ``round=3 site=hospital-2 cases=61 loss=0.412 val_mean_dice=0.731 seconds=214``."""
    label = f"round={record['round']}" if record["phase"] == "train" else "final"
    parts = [label, f"site={record['site']}"]
    if record["status"] != "ok":
        return " ".join([*parts, f"status={record['status']}"])
    parts.append(f"cases={record.get('cases', '?')}")
    if record.get("loss") is not None:
        parts.append(f"loss={record['loss']:.3f}")
    metric = (record.get("metrics") or {}).get(KEY_METRIC)
    parts.append(f"{KEY_METRIC}={'none' if metric is None else f'{metric:.3f}'}")
    parts.append(f"seconds={record.get('seconds', record.get('evaluate_seconds', 0)):.0f}")
    return " ".join(parts)


def reason(log: Path) -> str:
    """The last error line of FLARE's log, else its last line."""
    text = log.read_text(encoding="utf-8", errors="replace").splitlines() if log.is_file() else []
    errors = [line for line in text if "ERROR" in line or "Error" in line]
    return errors[-1].strip()[-300:] if errors else last_lines(log, 1)
