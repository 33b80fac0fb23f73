"""``brats-fl resume``: goes on from the last global model of a run whose server was lost."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from brats_fl.errors import ModelError, RunError
from brats_fl.files import write_whole
from brats_fl_tools.jobs.assembly import build_job, describe_job
from brats_fl_tools.kit.kits import read_kit
from brats_fl.round_records import RECORDS_FILE, as_lines, read_records
from brats_fl_tools.runs.curves import keep_curves
from brats_fl_tools.runs.folder import EARLIER, FLARE_BEST, FLARE_FINAL, choose_best
from brats_fl_tools.runs.session import admin_session, is_running
from brats_fl_tools.runs.submit import SERVER_FILES, Submission, read_submission, run_job

LAST_MODEL = "last_model.pt"


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
    """Complete RUN by a new job from the last global model, at the round after it; what was there before is kept."""
    resume_run(run.resolve(), server_files)


def resume_run(run: Path, server_files: Path | None = None) -> None:
    """As the command.

    Raises:
        RunError: The job is still running, nothing is left to do, or no global model is found.
        ModelError: The model is damaged.
    """
    submission = read_submission(run)
    before = describe_job(run / "job" / submission.job)
    if before.result:
        raise RunError(f"{submission.job} has no rounds to go on with; submit it again")
    kit = read_kit(Path(submission.kit))
    with admin_session(kit) as session:
        refuse_if_running(session, submission)
    files = find_server_files(run, submission, server_files)
    rounds_done = keep_earlier_part(run, files)
    total = int(before.variables["start_round"]) + int(before.variables["num_rounds"])
    if rounds_done >= total:
        raise RunError(f"{run}: all {total} rounds were done; fetch the run with `brats-fl collect {run}`")
    options = replace(
        submission.options,
        rounds=total - rounds_done,
        values={**submission.options.values, "start_round": rounds_done},
        checkpoint=run / EARLIER / LAST_MODEL,
    )
    typer.echo(f"{submission.job}: {rounds_done} of {total} rounds were done; going on with round {rounds_done}")
    job = build_job(submission.job, run / "job", options, force=True)
    resumed = [*submission.facts.get("resumed_at", []), rounds_done]
    run_job(kit, job, options, run, {**submission.facts, "resumed_at": resumed})


def refuse_if_running(session: Any, submission: Submission) -> None:
    """Raise ``RunError`` where the server has a process for the job."""
    if is_running(session, submission.job_id):
        raise RunError(f"job {submission.job_id} is still running; watch it with `brats-fl collect`, or abort it first")


def find_server_files(run: Path, submission: Submission, given: Path | None) -> Path:
    """Folder with the last global model of the lost job.

    Raises:
        RunError: There is none in any of the places.
    """
    servers = Path(submission.kit).parent.glob("*/startup/fed_server.json")
    beside = [path.parent.parent / submission.job_id for path in servers]
    places = [given] if given else [run / SERVER_FILES, *beside]
    for place in places:
        if (place / "app_server" / FLARE_FINAL).is_file():
            return place
    tried = ", ".join(str(place / "app_server") for place in places)
    raise RunError(
        f"no {FLARE_FINAL} in {tried}; copy SERVER_KIT/{submission.job_id} from the server's machine and give it as "
        "--server-files (a job that was lost in its first round leaves none: submit it again)"
    )


def keep_earlier_part(run: Path, files: Path) -> int:
    """Copy records, curves, best and last model of the lost job into the run; the number of rounds that were done.

    Raises:
        ModelError: The model is damaged or does not say how many rounds made it.
    """
    import torch

    last = files / "app_server" / FLARE_FINAL
    try:
        rounds_done = int(torch.load(last, map_location="cpu", weights_only=True)["rounds_done"])
    except Exception as error:
        raise ModelError(f"{last}: damaged, or not of this release ({error!r}); submit the job again") from error
    folder = run / EARLIER
    folder.mkdir(exist_ok=True)
    found = [r for r in read_records(files / RECORDS_FILE) if r["round"] < rounds_done and r["phase"] == "train"]
    first = min((record["round"] for record in found), default=rounds_done)
    kept = [record for record in read_records(folder / RECORDS_FILE) if record["round"] < first]
    best = files / "app_server" / FLARE_BEST
    if best.is_file() and choose_best(kept, found).where == "later":
        shutil.copyfile(best, folder / FLARE_BEST)
    shutil.copyfile(last, folder / LAST_MODEL)
    keep_curves(files, folder, rounds_done)
    write_whole(folder / RECORDS_FILE, as_lines([*kept, *found]))
    return rounds_done
