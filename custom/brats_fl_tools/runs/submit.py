"""A job in a running federation: ``brats-fl submit``, ``collect`` and ``status``.

A submitted job is followed round by round and collected into a run folder like the simulator's. What is needed to find
it again lies in the run folder's ``submission.json`` from the start.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

import typer

from brats_fl.errors import RunError
from brats_fl.files import write_whole
from brats_fl_tools.jobs.options import (
    ForceOption,
    LeaveOutOption,
    NameArgument,
    PreinstalledOption,
    ProfileOption,
    RoundsOption,
    SetOption,
    TimeoutsOption,
    TrackingOption,
    options_from,
)
from brats_fl.round_records import RECORDS_FILE, read_records
from brats_fl_tools.jobs.assembly import BuiltJob, JobOptions, build_job, describe_job
from brats_fl_tools.jobs.participants import choose_sites
from brats_fl_tools.jobs.source import read_source
from brats_fl_tools.kit.kits import Kit, read_kit
from brats_fl_tools.runs.processes import ended_by_sigterm
from brats_fl_tools.runs.folder import (
    Progress,
    announce,
    collect,
    is_finished,
    now,
    prepare_run_folder,
    reason,
)
from brats_fl_tools.runs.session import (
    GOOD_ENDS,
    admin_session,
    connected_clients,
    deployment,
    download,
    follow,
    job_status,
)
from brats_fl_tools.runs.session import submit as submit_job

SUBMISSION_FILE = "submission.json"
SERVER_FILES = "server"
"""Folder of a run: what the server kept of the job."""

KitOption = Annotated[Path, typer.Option("--kit", help="Startup kit of an admin who may submit jobs: the lead's.")]


@dataclass(frozen=True)
class Submission:
    """What is needed to find a submitted job again, and to go on with it."""

    job: str
    job_id: str
    kit: str
    """Folder of the admin's kit."""
    started: str
    options: JobOptions = field(default_factory=JobOptions)
    facts: Mapping[str, Any] = field(default_factory=dict)
    """For ``run.json``."""


def write_submission(run: Path, submission: Submission) -> None:
    """Write ``submission.json``."""
    content = asdict(submission)
    content["options"]["checkpoint"] = str(submission.options.checkpoint) if submission.options.checkpoint else None
    write_whole(run / SUBMISSION_FILE, json.dumps(content, indent=1) + "\n")


def read_submission(run: Path) -> Submission:
    """The submission of a run folder.

    Raises:
        RunError: There is none, or it is damaged.
    """
    path = run / SUBMISSION_FILE
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        options = content.pop("options")
        checkpoint, sites = options.pop("checkpoint"), options.pop("sites")
        found = JobOptions(
            checkpoint=Path(checkpoint) if checkpoint else None, sites=tuple(sites) if sites else None, **options
        )
        return Submission(options=found, **content)
    except FileNotFoundError:
        raise RunError(f"{run}: no {SUBMISSION_FILE} there; give the run folder of a submitted job") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(f"{path}: damaged ({error!r}); fetch the job with FLARE's own `nvflare job download`") from error


def run_job(
    kit: Kit, job: BuiltJob, options: JobOptions, run: Path, facts: Mapping[str, Any], abort_on_interrupt: bool = False
) -> None:
    """Submit a job, print its rounds until it ends, and collect its run folder.

    Args:
        kit: Of an admin who may submit jobs.
        job: What ``build_job`` wrote.
        options: What it was built with.
        run: Run folder.
        facts: For ``run.json``.
        abort_on_interrupt: Abort the job on Ctrl-C; else it goes on without this command.

    Raises:
        RunError: The server refused the job, or it did not finish.
    """
    with admin_session(kit) as session:
        submission = Submission(
            job.name, submit_job(session, job), str(kit.folder.resolve()), now(), options, dict(facts)
        )
        write_submission(run, submission)
        typer.echo(f"{announce(job)}: job {submission.job_id}, content hash {job.content_hash[:12]}")
        try:
            watch(session, submission, job, run)
        except (KeyboardInterrupt, SystemExit):
            if abort_on_interrupt:
                with contextlib.suppress(Exception):
                    session.abort_job(submission.job_id)
            else:
                typer.echo(f"job {submission.job_id} goes on; see it again with `brats-fl collect {run}`")
            raise


def watch(session: Any, submission: Submission, job: BuiltJob, run: Path) -> None:
    """Print a job's rounds until it ends, and collect its run folder.

    Raises:
        RunError: The job ended badly; what the server kept lies in the run folder's ``server`` all the same.
    """
    progress, begin = Progress(), time.perf_counter()
    with ended_by_sigterm():
        status = follow(session, submission.job_id, progress)
    try:
        files = download(session, submission.job_id, run / SERVER_FILES)
    except RunError as error:
        detail = "; ".join(deployment(session, submission.job_id))
        raise RunError(f"{job.name} ended as {status}: {detail or error}") from error
    progress.show(read_records(files / RECORDS_FILE))
    if status not in GOOD_ENDS or not is_finished(job, files):
        raise RunError(f"{job.name} ended as {status} ({reason(files / 'log.txt')}); see {files / 'log.txt'}")
    seconds = time.perf_counter() - begin
    facts = {"started": submission.started, "job_id": submission.job_id, "status": status, "seconds": round(seconds, 1)}
    collect(run, files, job, {**submission.facts, **facts})
    typer.echo(f"done in {seconds:.0f} s: {run}")


def submit(
    name: NameArgument,
    kit: KitOption,
    out: Annotated[Path, typer.Option("--out", help="Run folder to write.")],
    profile: ProfileOption = "full",
    rounds: RoundsOption = None,
    values: SetOption = None,
    preinstalled: PreinstalledOption = False,
    leave_out: LeaveOutOption = None,
    timeouts_from: TimeoutsOption = None,
    tracking: TrackingOption = None,
    force: ForceOption = False,
) -> None:
    """Write a run folder OUT from a job in a running federation; prints a line per round and site.

    Ctrl-C leaves the job running: `brats-fl collect OUT` watches it again and fetches what it made.
    """
    run, admin = out.resolve(), read_kit(kit)
    options = options_from(profile, rounds, values, timeouts_from, preinstalled, tracking=tracking)
    options = replace(options, sites=choose_sites(read_source(name), leave_out))
    prepare_run_folder(run, force)
    run_job(admin, build_job(name, run / "job", options), options, run, {"mode": "federation"})


def collect_run(run: Annotated[Path, typer.Argument(metavar="RUN", help="Run folder of a submitted job.")]) -> None:
    """Watch the job of RUN until it ends, and write its models, rounds.jsonl and run.json into RUN."""
    submission = read_submission(run)
    with admin_session(read_kit(Path(submission.kit))) as session:
        watch(session, submission, describe_job(run / "job" / submission.job), run.resolve())


def status(kit: KitOption) -> None:
    """Print which hospitals are connected and what jobs there are."""
    with admin_session(read_kit(kit)) as session:
        print_status(session)


def print_status(session: Any) -> None:
    """Connected hospitals and the jobs that have not been deleted."""
    typer.echo(f"connected: {', '.join(sorted(connected_clients(session))) or 'none'}")
    for job in session.list_jobs():
        status = job_status(session, job["job_id"])
        typer.echo(f"job {job['job_id']} {job['job_name']} {status}")
