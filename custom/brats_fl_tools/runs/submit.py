"""A job in a running federation: ``brats-fl submit``, ``collect`` and ``status``."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from brats_fl.errors import RunError
from brats_fl_tools.jobs.assembly import JobOptions
from brats_fl_tools.jobs.built import describe_job
from brats_fl_tools.jobs.evaluated import check_of_run
from brats_fl_tools.jobs.options import ForceOption, NameArgument, SentJobFlags, takes_job_options
from brats_fl_tools.jobs.participants import Asked, choose_sites, in_federation
from brats_fl_tools.jobs.quorum import updates_of_a_round
from brats_fl_tools.jobs.source import JobSource, read_source
from brats_fl_tools.kit.kits import Kit, read_kit
from brats_fl_tools.one_writer import writes
from brats_fl_tools.runs.federated import carry_out, watch
from brats_fl_tools.runs.folder import JOB_FOLDER, begin_run_folder
from brats_fl_tools.runs.session import admin_session, connected_clients, job_status
from brats_fl_tools.runs.submission import Submission, read_submission

KitOption = Annotated[Path, typer.Option("--kit", help="Startup kit of an admin who may submit jobs: the lead's.")]


@takes_job_options
@writes("out")
def submit(
    name: NameArgument,
    kit: KitOption,
    out: Annotated[Path, typer.Option("--out", help="Run folder to write.")],
    flags: SentJobFlags,
    force: ForceOption = False,
) -> None:
    """Write a run folder OUT from a job in a running federation; prints a line per round and site.

    Ctrl-C leaves the job running: `brats-fl collect OUT` watches it again and fetches what it made.
    """
    run, admin, source = out.resolve(), read_kit(kit), read_source(name)
    check_of_run(source, flags.of_run)
    options = flags.options(source)
    options = replace(options, sites=choose_connected(admin, source, flags.asked, options))
    job = begin_run_folder(run, source.folder, options, force)
    carry_out(
        run,
        job,
        Submission(
            job.name,
            source.reference,
            "",
            options,
            {"mode": "federation", "left_out": list(flags.asked.leave_out)},
            kit=str(admin.folder.resolve()),
        ),
    )


def choose_connected(admin: Kit, source: JobSource, asked: Asked, options: JobOptions) -> tuple[str, ...]:
    """The sites that take part, of those that are connected to the server."""
    with admin_session(admin) as session:
        connected = connected_clients(session)
    return choose_sites(
        source, asked, in_federation(source, asked, connected, updates_of_a_round(source, options.values))
    )


@writes("run")
def collect_run(run: Annotated[Path, typer.Argument(metavar="RUN", help="Run folder of a submitted job.")]) -> None:
    """Watch the job of RUN until it ends, and write its models, rounds.jsonl and run.json into RUN."""
    run, submission = run.resolve(), read_submission(run)
    if not submission.kit:
        raise RunError(f"{run}: was run by the simulator, on this machine; go on with it with `brats-fl resume {run}`")
    with admin_session(read_kit(Path(submission.kit))) as session:
        watch(session, run, describe_job(run / JOB_FOLDER / submission.job), submission)


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
