"""Carries out a built job in a running federation: submits it, follows it round by round, collects its run folder."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import typer

from brats_fl.errors import RunError
from brats_fl.round_records import RECORDS_FILE, read_records
from brats_fl_tools.jobs.built import BuiltJob
from brats_fl_tools.kit.kits import read_kit
from brats_fl_tools.runs.approvals import refusal
from brats_fl_tools.runs.collect import collect, collect_interrupted, is_finished
from brats_fl_tools.runs.folder import SERVER_FILES, now
from brats_fl_tools.runs.processes import Interrupted, ended_by_sigterm, reason
from brats_fl_tools.runs.progress import Progress, announce
from brats_fl_tools.runs.session import (
    GOOD_ENDS,
    admin_session,
    deployment,
    download,
    follow,
    job_seconds,
    submit,
)
from brats_fl_tools.runs.submission import Submission, begin, state_run

POC_MODE = "poc"
"""Mode of a run on this host, whose job nobody else waits for."""


def carry_out(run: Path, job: BuiltJob, submission: Submission) -> None:
    """Submit a job, print its rounds until it ends, and collect its run folder.

    Args:
        run: Run folder, absolute.
        job: What ``build_job`` wrote.
        submission: Whose kit may submit jobs; its job's id and start are added here.

    Raises:
        RunError: The server refused the job, or it did not finish.
        Interrupted: By Ctrl-C or SIGTERM; in a POC the job is aborted, elsewhere it goes on without this command.
    """
    with admin_session(read_kit(Path(submission.kit))) as session:
        submission = replace(submission, job_id=submit(session, job), started=now())
        begin(run, job, submission)
        typer.echo(f"{announce(job)}: job {submission.job_id}, content hash {job.content_hash[:12]}")
        watch(session, run, job, submission)


def watch(session: Any, run: Path, job: BuiltJob, submission: Submission) -> None:
    """Print a job's rounds until it ends, and collect its run folder.

    Raises:
        RunError: The job ended badly; what the server kept lies in the run folder's ``server`` all the same.
        Interrupted: As ``carry_out``.
    """
    progress = Progress()

    def tell_refusal() -> None:
        with contextlib.suppress(RunError):
            if without := refusal(session, submission.job_id, job):
                typer.echo(f"going on without some: {without}")

    with _interruptible(session, run, submission):
        status = follow(session, submission.job_id, progress, tell_refusal)
        try:
            files = download(session, submission.job_id, run / SERVER_FILES)
        except RunError as error:
            state_run(run, job, submission, "interrupted", since(submission.started), {"status": status})
            detail = refusal(session, submission.job_id, job) or "; ".join(deployment(session, submission.job_id))
            raise RunError(f"{job.name} ended as {status}: {detail or error}") from error
    progress.show(read_records(files / RECORDS_FILE))
    seconds = job_seconds(session, submission.job_id) or since(submission.started)
    facts: Mapping[str, Any] = {"job_id": submission.job_id, "status": status}
    if status not in GOOD_ENDS or not is_finished(job, files):
        if job.bundle:
            collect_interrupted(run, files, job, submission, seconds, facts)
        else:
            state_run(run, job, submission, "interrupted", seconds, facts)
        raise RunError(f"{job.name} ended as {status} ({reason(files / 'log.txt')}); see {files / 'log.txt'}")
    collect(run, files, job, submission, seconds, facts)
    typer.echo(f"done in {seconds:.0f} s: {run}")


@contextlib.contextmanager
def _interruptible(session: Any, run: Path, submission: Submission) -> Iterator[None]:
    """Turn Ctrl-C and SIGTERM into words on what becomes of the job."""
    try:
        with ended_by_sigterm():
            yield
    except (KeyboardInterrupt, SystemExit):
        if submission.facts.get("mode") != POC_MODE:
            words = f"job {submission.job_id} goes on at the hospitals; see it again with `brats-fl collect {run}`"
            raise Interrupted(words) from None
        with contextlib.suppress(Exception):
            session.abort_job(submission.job_id)
        words = f"job {submission.job_id} has been aborted; go on after its last round with `brats-fl resume {run}`"
        raise Interrupted(words) from None


def since(started: str) -> float:
    """Seconds from a time in ISO 8601 to now."""
    return (datetime.now(timezone.utc) - datetime.fromisoformat(started)).total_seconds()
