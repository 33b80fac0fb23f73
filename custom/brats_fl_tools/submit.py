"""A job in a running federation: submitted, followed, and collected into a run folder like the simulator's."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import typer

from brats_fl.errors import RunError
from brats_fl_tools.federation import write_json
from brats_fl_tools.jobs import BuiltJob
from brats_fl_tools.processes import ended_by_sigterm
from brats_fl_tools.runs import RECORDS_FILE, collect, now, reached_last_round, read_records, reason
from brats_fl_tools.session import GOOD_ENDS, Progress, download, follow, submit

SUBMISSION_FILE = "submission.json"


def run_job(session: Any, job: BuiltJob, run: Path, facts: Mapping[str, Any], abort_on_interrupt: bool = False) -> None:
    """Submit a job, print its rounds until it ends, and collect its run folder.

    Args:
        session: Of an admin who may submit jobs.
        job: What ``build_job`` wrote.
        run: Run folder; its ``submission.json`` is there from the start, for a run that is cut off.
        facts: For ``run.json``.
        abort_on_interrupt: Abort the job on Ctrl-C; else it goes on without this command.

    Raises:
        RunError: The server refused the job, or it did not finish.
    """
    started, begin = now(), time.perf_counter()
    job_id = submit(session, job)
    write_json(run / SUBMISSION_FILE, {"job": job.name, "job_id": job_id, "started": started, **facts})
    typer.echo(f"{job.name}: job {job_id}, {job.variables['num_rounds']} rounds, content hash {job.content_hash[:12]}")
    progress = Progress()
    try:
        with ended_by_sigterm():
            status = follow(session, job_id, progress)
    except (KeyboardInterrupt, SystemExit):
        if abort_on_interrupt:
            with contextlib.suppress(Exception):
                session.abort_job(job_id)
        else:
            typer.echo(f"job {job_id} goes on; fetch it later with `brats-fl collect {run}`")
        raise
    finish(session, job_id, status, job, run, {**facts, "started": started}, time.perf_counter() - begin)
    progress.show(read_records(run / RECORDS_FILE))
    typer.echo(f"done in {time.perf_counter() - begin:.0f} s: {run}")


def finish(
    session: Any, job_id: str, status: str, job: BuiltJob, run: Path, facts: Mapping[str, Any], seconds: float
) -> None:
    """Fetch an ended job's files and write its run folder.

    Raises:
        RunError: The job ended badly; what the server kept lies in the run folder's ``server`` all the same.
    """
    files = download(session, job_id, run / "server")
    if status not in GOOD_ENDS or not reached_last_round(read_records(files / RECORDS_FILE), job):
        raise RunError(f"{job.name} ended as {status} ({reason(files / 'log.txt')}); see {files / 'log.txt'}")
    collect(run, files, job, {**facts, "job_id": job_id, "status": status, "seconds": round(seconds, 1)})
