"""From what a server kept of a job to a run folder: records, last and best model, and what a resumed run had before."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, Literal

from brats_fl.best_model import mean_votes
from brats_fl.errors import ModelError, RunError
from brats_fl.files import write_whole
from brats_fl.reading import read_if_sound
from brats_fl.round_records import RECORDS_FILE, as_lines, read_records
from brats_fl.typed import shorten
from brats_fl_tools.jobs.built import BuiltJob
from brats_fl_tools.runs.curves import keep_curves, take_curves
from brats_fl_tools.runs.folder import BEST_MODEL, EARLIER, FINAL_MODEL, LAST_MODEL, RUN_FILE, write_facts
from brats_fl_tools.runs.seal import done_records, keep_ledger, write_ledger
from brats_fl_tools.runs.submission import Submission, facts_of_run, state_run

FLARE_FINAL: Final = "FL_global_model.pt"
FLARE_BEST: Final = "best_FL_global_model.pt"

Records = Iterable[Mapping[str, Any]]


def model_of(server_files: Path) -> Path:
    """The last global model that a server kept of a job."""
    return server_files / "app_server" / FLARE_FINAL


def is_finished(job: BuiltJob, server_files: Path) -> bool:
    """Whether a job did what it was to do: its records reach the last round, or its result is there."""
    if job.result:
        return (server_files / job.result).is_file()
    records = read_records(server_files / RECORDS_FILE)
    return any(record["round"] >= job.total_rounds - 1 for record in records if record["phase"] == "train")


def collect(
    run: Path, server_files: Path, job: BuiltJob, submission: Submission, seconds: float, facts: Mapping[str, Any]
) -> None:
    """Write records, final and best model and ``run.json`` of a finished run; of a job that trains nothing its result.

    The best model is the one with the highest mean of the key metric over the sites: FLARE's own choice among the
    models that began a round, unless the last evaluation found the final model better. Without any validation case it
    is the final model. What an earlier part of a resumed run left in ``run/earlier`` counts as well.

    Args:
        run: Run folder.
        server_files: What the server kept of the job.
        job: As it was built for this part.
        submission: This part.
        seconds: That it took.
        facts: What else is known of it, for ``run.json``.

    Raises:
        RunError: The server left no model.
    """
    later = read_records(server_files / RECORDS_FILE)
    take_curves(server_files, run)
    if job.result:
        shutil.copyfile(server_files / job.result, run / job.result)
        write_whole(run / RECORDS_FILE, as_lines(later))
        state_run(run, job, submission, "finished", seconds, facts)
        return
    if not model_of(server_files).is_file():
        raise RunError(f"the run left no global model ({model_of(server_files)})")
    chosen = _write_models(run, server_files, submission, later, bool(job.start_sha256))
    told = facts_of_run(run, job, submission, "finished", seconds, {**chosen, **facts})
    write_ledger(run, server_files, job, submission, told)
    write_facts(run, told)


def collect_interrupted(
    run: Path,
    server_files: Path,
    job: BuiltJob,
    submission: Submission,
    seconds: float,
    facts: Mapping[str, Any] = MappingProxyType({}),
) -> int:
    """Keep what was done of a run that did not finish, in the same files; the number of rounds that were done.

    ``run.json`` says that it was interrupted. Where no round was done there is nothing but that.
    """
    try:
        done = rounds_done(model_of(server_files))
    except ModelError:
        begun = submission.first_round
        state_run(run, job, submission, "interrupted", seconds, {"rounds_done": begun, **facts})
        return begun
    later = done_records(server_files, done)
    chosen = _write_models(run, server_files, submission, later, bool(job.start_sha256))
    told = facts_of_run(run, job, submission, "interrupted", seconds, {**chosen, "rounds_done": done, **facts})
    write_ledger(run, server_files, job, submission, told, done)
    write_facts(run, told)
    return done


def _write_models(
    run: Path, server_files: Path, submission: Submission, later: list[dict[str, Any]], start_given: bool
) -> dict[str, Any]:
    """Write records and models of all parts; which model is the best, and its number of parameters."""
    final = model_of(server_files)
    earlier = [r for r in read_records(run / EARLIER / RECORDS_FILE) if r["round"] < submission.first_round]
    write_whole(run / RECORDS_FILE, as_lines([*earlier, *later]))
    shutil.copyfile(final, run / FINAL_MODEL)
    best = choose_best(earlier, later, start_given)
    places = {"final": final, "later": final.with_name(FLARE_BEST), "earlier": run / EARLIER / FLARE_BEST}
    found = places[best.where].is_file()
    shutil.copyfile(places[best.where] if found else final, run / BEST_MODEL)
    chosen = best.round if found and best.where != "final" else "final"
    return {"best_round": chosen, "parameters": count_parameters(final)}


@dataclass(frozen=True)
class Best:
    """Which model of a run is the best."""

    where: Literal["final", "later", "earlier"]
    """The last model, or FLARE's best of this part of the run, or of an earlier one."""
    round: int


def choose_best(earlier: Records, later: Records, start_given: bool = False) -> Best:
    """The best model by the mean of the sites' votes; among equals the latest.

    Args:
        earlier: Records of the parts before.
        later: Records of the last part.
        start_given: Round 0 began with a given model: it is a candidate, as random weights are not.
    """
    first = 0 if start_given else 1
    rated = [(mean, key[1], "earlier") for key, mean in mean_votes(earlier).items() if key[1] >= first]
    for (phase, round_index), mean in mean_votes(later).items():
        if phase == "final":
            rated.append((mean, round_index, "final"))
        elif round_index >= first:
            rated.append((mean, round_index, "later"))
    if not rated:
        return Best("final", -1)
    _, round_index, where = max(rated, key=lambda entry: entry[:2])
    return Best(where, round_index)  # type: ignore[arg-type]


def keep_earlier_part(run: Path, server_files: Path) -> int:
    """Copy what a lost job left, records, curves and models, into ``run/earlier``; the number of rounds that were done.

    Raises:
        ModelError: The model is damaged or does not say how many rounds made it.
    """
    last = model_of(server_files)
    done = rounds_done(last)
    folder = run / EARLIER
    folder.mkdir(exist_ok=True)
    found = done_records(server_files, done)
    first = min((record["round"] for record in found), default=done)
    kept = [record for record in read_records(folder / RECORDS_FILE) if record["round"] < first]
    best = last.with_name(FLARE_BEST)
    start_given = bool(read_if_sound(run / RUN_FILE).get("start_sha256"))
    if best.is_file() and choose_best(kept, found, start_given).where == "later":
        shutil.copyfile(best, folder / FLARE_BEST)
    shutil.copyfile(last, folder / LAST_MODEL)
    keep_curves(server_files, folder, done)
    keep_ledger(server_files, folder, done)
    write_whole(folder / RECORDS_FILE, as_lines([*kept, *found]))
    return done


def rounds_done(model: Path) -> int:
    """How many rounds made a global model.

    Raises:
        ModelError: The file is missing, damaged, or does not say it.
    """
    import torch

    try:
        done = torch.load(model, map_location="cpu", weights_only=True)["rounds_done"]
    except Exception as error:  # torch, zipfile and pickle each raise their own
        raise ModelError(f"{model}: damaged, or not of this release ({error!r}); start the job again") from error
    if not isinstance(done, int) or done < 0:
        raise ModelError(f"{model}: rounds_done must be a whole number (got {shorten(done)}); start the job again")
    return done


def count_parameters(model: Path) -> int:
    """Number of values in a checkpoint."""
    from brats_fl.network.checkpoints import read_state

    return sum(value.numel() for value in read_state(model).values())
