"""``brats-fl resume``: goes on from the last global model of a run that was interrupted, or whose server was lost."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from brats_fl.errors import RunError
from brats_fl.names import check_folder
from brats_fl.provenance import find_commit
from brats_fl_tools.jobs.assembly import JobOptions, build_job, configure
from brats_fl_tools.jobs.built import BuiltJob, describe_job
from brats_fl_tools.jobs.source import read_source
from brats_fl_tools.kit.kits import read_kit
from brats_fl_tools.one_writer import writes
from brats_fl_tools.runs import federated, simulator
from brats_fl_tools.runs.collect import FLARE_FINAL, collect, keep_earlier_part, model_of, rounds_done
from brats_fl_tools.runs.folder import EARLIER, JOB_FOLDER, LAST_MODEL, SERVER_FILES, SIMULATED_SERVER, now, read_state
from brats_fl_tools.runs.lists import SEEN_FILE, write_seen
from brats_fl_tools.runs.seal import head_of
from brats_fl_tools.runs.session import admin_session, is_running, job_seconds
from brats_fl_tools.runs.submission import Submission, read_submission, seconds_until_lost, sites_folder_of


def resume(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Run folder of a job that did not finish.")],
    server_files: Annotated[
        Path | None,
        typer.Option(
            "--server-files",
            help="Folder of the job in the server's kit, SERVER_KIT/JOB_ID, or a copy of it; default: found beside the "
            "lead's kit, or what was fetched into RUN.",
        ),
    ] = None,
) -> None:
    """Complete RUN by a new job from the last global model, at the round after it; what was there before is kept.

    Of a run of `simulate` as of a submitted one. The hospitals go on with what they had kept for themselves.
    """
    resume_run(run.resolve(), server_files)


def can_resume(run: Path) -> bool:
    """Whether a simulated run that did not finish has a model to go on from."""
    return model_of(run / SIMULATED_SERVER).is_file() or (run / EARLIER / LAST_MODEL).is_file()


@writes("run")
def resume_run(run: Path, server_files: Path | None = None) -> None:
    """As the command.

    Raises:
        RunError: The job is still running, nothing is left to do, no global model is found, or the job has changed.
        ModelError: The model is damaged.
    """
    submission = read_submission(run)
    before = describe_job(run / JOB_FOLDER / submission.job)
    if before.result:
        raise RunError(f"{submission.job} has no rounds to go on with; start it again")
    if submission.kit:
        _resume_in_federation(run, before, submission, server_files)
    else:
        _resume_in_simulator(run, before, submission)


def _resume_in_federation(run: Path, before: BuiltJob, submission: Submission, server_files: Path | None) -> None:
    with admin_session(read_kit(Path(submission.kit))) as session:
        if is_running(session, submission.job_id):
            raise RunError(
                f"job {submission.job_id} is still running; watch it with `brats-fl collect`, or abort it first"
            )
        known = job_seconds(session, submission.job_id)
    files = find_server_files(run, submission, server_files)
    seconds = known if known is not None else seconds_until_lost(submission, files)
    done = keep_earlier_part(run, files)
    if done >= before.total_rounds:
        raise RunError(f"{run}: all {done} rounds were done; fetch the run with `brats-fl collect {run}`")
    job, later = _next_part(run, before, submission, done, seconds)
    federated.carry_out(run, job, later)


def _resume_in_simulator(run: Path, before: BuiltJob, submission: Submission) -> None:
    check_folder(run, "run folder")
    check_folder(Path(sys.executable), "Python environment")
    if simulator.is_simulating(run):
        raise RunError(f"{run}: is still being simulated by another process; wait for it, or end it first")
    files = run / SIMULATED_SERVER
    seconds = seconds_until_lost(submission, files)
    if model_of(files).is_file():
        done = keep_earlier_part(run, files)
    elif (run / EARLIER / LAST_MODEL).is_file():  # lost again before it had finished a round
        done = rounds_done(run / EARLIER / LAST_MODEL)
    else:
        raise RunError(f"{run}: no round was done; simulate it again with --force")
    if done >= before.total_rounds:
        if read_state(run) == "finished":
            raise RunError(f"{run}: all {done} rounds were done; nothing is left to do")
        typer.echo(f"{submission.job}: all {done} rounds were done, and perhaps not the last evaluation")
        collect(run, files, before, submission, seconds, {})
        return
    job, later = _next_part(run, before, submission, done, seconds)
    if (run / SEEN_FILE).is_file():  # a list may have changed since
        write_seen(run, sites_folder_of(run, submission), job.sites)
    simulator.carry_out(run, job, later)


def _next_part(
    run: Path, before: BuiltJob, submission: Submission, done: int, seconds: float
) -> tuple[BuiltJob, Submission]:
    """The job that does the rounds that are left, built in the place of the one before, and its submission.

    Raises:
        RunError: The job is not what it was when the run began.
    """
    options = replace(
        submission.options,
        rounds=before.total_rounds - done,
        values={**submission.options.values, "start_round": done},
        checkpoint=run / EARLIER / LAST_MODEL,
        ledger_head=head_of(run / EARLIER),
    )
    refuse_another_study(run, before, submission, options)
    typer.echo(f"{submission.job}: {done} of {before.total_rounds} rounds were done; going on with round {done}")
    job = build_job(submission.source, run / JOB_FOLDER, options, force=True)
    earlier = (*submission.earlier, submission.part(seconds))
    commit = find_commit() or ""
    return job, replace(submission, options=options, started=now(), earlier=earlier, commit=commit)


def refuse_another_study(run: Path, before: BuiltJob, submission: Submission, options: JobOptions) -> None:
    """Raise ``RunError`` where what is learnt would be another thing: the hospitals would not find their own state."""
    if configure(read_source(submission.source), options).study != before.study:
        raise RunError(
            f"{run}: the bundle or a variable of {submission.source} has changed since the run began; go back to what "
            "it was, or start a new run"
        )


def find_server_files(run: Path, submission: Submission, given: Path | None) -> Path:
    """Folder with the last global model of the lost job.

    Raises:
        RunError: There is none in any of the places.
    """
    servers = Path(submission.kit).parent.glob("*/startup/fed_server.json")
    beside = [path.parent.parent / submission.job_id for path in servers]
    places = [given] if given else [run / SERVER_FILES, *beside]
    for place in places:
        if model_of(place).is_file():
            return place
    tried = ", ".join(str(model_of(place).parent) for place in places)
    raise RunError(
        f"no {FLARE_FINAL} in {tried}; copy SERVER_KIT/{submission.job_id} from the server's machine and give it as "
        "--server-files (a job that was lost in its first round leaves none: submit it again)"
    )
