"""``brats-fl withdraw``: a study again, without a hospital, from the last model that it did not touch."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import typer

from brats_fl.best_model import vote
from brats_fl.errors import JobError, RunError
from brats_fl.files import write_whole
from brats_fl.provenance import hash_file
from brats_fl.round_records import RECORDS_FILE, read_records
from brats_fl_tools.jobs.assembly import JobOptions
from brats_fl_tools.jobs.built import BuiltJob, describe_job
from brats_fl_tools.jobs.options import ForceOption
from brats_fl_tools.jobs.participants import check_sites
from brats_fl_tools.jobs.source import read_source
from brats_fl_tools.kit.kits import read_kit
from brats_fl_tools.one_writer import only_writer, writes
from brats_fl_tools.runs import federated, simulator
from brats_fl_tools.runs.folder import (
    EARLIER,
    FINAL_MODEL,
    JOB_FOLDER,
    LAST_MODEL,
    begin_run_folder,
    now,
    read_state,
    records_files,
)
from brats_fl_tools.runs.lists import SEEN_FILE, describe_lists, take_seen, write_seen
from brats_fl_tools.runs.seal import head_of
from brats_fl_tools.runs.session import admin_session, is_running
from brats_fl_tools.runs.submission import Part, Submission, read_submission
from brats_fl_tools.withdrawal.rewind import distance, rewind, take_updates_before
from brats_fl_tools.withdrawn import DIFFERENCE_FILE, Withdrawal, note_withdrawal

FACTS_THAT_STAY = ("mode", "sites_dir", "poc_workspace", "gpu", "left_out", "sites")


@dataclass(frozen=True)
class Asked:
    """Who withdraws from what."""

    run: Path
    hospital: str
    of_patients: bool = False
    """Patients of the hospital do, which takes part again with the list that it has now."""
    from_round: int = 0


def withdraw(
    hospital: Annotated[str, typer.Argument(metavar="HOSPITAL", help="Who withdraws, or whose patients do.")],
    run: Annotated[Path, typer.Option("--run", metavar="RUN", help="Run folder of the study.")],
    out: Annotated[Path, typer.Option("--out", help="Run folder to write: the study without it.")],
    from_round: Annotated[
        int, typer.Option("--from-round", min=0, help="First round whose contribution is withdrawn; those before stay.")
    ] = 0,
    of_patients: Annotated[
        bool,
        typer.Option(
            "--patients",
            help="Patients of HOSPITAL withdrew, not the hospital: it takes part again with the list that it has now.",
        ),
    ] = False,
    force: ForceOption = False,
) -> None:
    """Write a run folder OUT: the study of RUN without HOSPITAL, from the last model that it did not touch.

    Notes in RUN that it is to be used no more, and prints what the withdrawal changes.
    """
    withdraw_from(Asked(run.resolve(), hospital, of_patients, from_round), out.resolve(), force)


@writes("out")
def withdraw_from(asked: Asked, out: Path, force: bool = False) -> None:
    """As the command.

    Raises:
        RunError: The run is still going on, trains nothing, or has no update of the hospital to withdraw.
        JobError: Nobody would be left.
        DataListError: The list of a hospital whose patients withdrew is what it was.
    """
    run, submission = asked.run, read_submission(asked.run)
    job = describe_job(run / JOB_FOLDER / submission.job)
    if job.result:
        raise RunError(f"{submission.job}: trains nothing that could be done again; start it again without the site")
    with only_writer(run):
        refuse_running(run, submission)
        records = [line for path in records_files(run, read_state(run)) for line in read_records(path)]
        first = first_touched(records, asked)
        withdrawal = Withdrawal(
            asked.hospital, asked.of_patients, asked.from_round, first, now(), head_of(run), out.name
        )
        with tempfile.TemporaryDirectory(prefix=".brats-fl-", suffix=".tmp", dir=run.parent) as scratch:
            withdrawal, later = _begin_again(withdrawal, run, submission, job, records, out, Path(scratch), force)
        note_withdrawal(run, withdrawal)
    again = describe_job(out / JOB_FOLDER / submission.job)
    (federated if later.kit else simulator).carry_out(out, again, later)
    for line in write_difference(run, out, withdrawal):
        typer.echo(line)


def refuse_running(run: Path, submission: Submission) -> None:
    """Raise ``RunError`` where the run's job still goes on."""
    if not submission.kit:
        if simulator.is_simulating(run):
            raise RunError(f"{run}: is still being simulated by another process; wait for it, or end it first")
        return
    with admin_session(read_kit(Path(submission.kit))) as session:
        if is_running(session, submission.job_id):
            raise RunError(f"job {submission.job_id} is still running; wait for its end, or abort it first")


def first_touched(records: Sequence[Mapping[str, Any]], asked: Asked) -> int:
    """The first round of those withdrawn whose mean has an update of the hospital.

    Raises:
        RunError: There is none.
    """
    of_training = [line for line in records if line["phase"] == "train"]
    touched = {line["round"] for line in of_training if line["site"] == asked.hospital and line["status"] == "ok"}
    if found := sorted(number for number in touched if number >= asked.from_round):
        return int(found[0])
    if touched:
        raise RunError(f"{asked.run}: the last update of {asked.hospital} was in round {max(touched)}")
    names = ", ".join(sorted({str(line["site"]) for line in of_training if line["status"] == "ok"}))
    raise RunError(f"{asked.run}: no update of {asked.hospital} is in it; hospitals with updates: {names or 'none'}")


def _begin_again(
    withdrawal: Withdrawal,
    run: Path,
    submission: Submission,
    before: BuiltJob,
    records: Sequence[Mapping[str, Any]],
    out: Path,
    scratch: Path,
    force: bool,
) -> tuple[Withdrawal, Submission]:
    """The new run folder as it begins; the withdrawal, with the round that it begins with, and its submission."""
    first = _rewind(run, records, withdrawal.first_round, bool(submission.options.start_sha256), scratch)
    withdrawal = replace(withdrawal, first_round=first)
    sites = before.sites if withdrawal.of_patients else tuple(s for s in before.sites if s != withdrawal.hospital)
    if not sites:
        raise JobError(f"{withdrawal.hospital} is the only hospital of {run}: without it there is no study")
    options = _options(submission.options, before.total_rounds, first, sites, scratch)
    facts = _facts(submission, options, withdrawal)
    begin_run_folder(out, read_source(submission.source).folder, options, force)
    earlier: tuple[Part, ...] = ()
    if first:
        (out / EARLIER).mkdir()
        for path in scratch.iterdir():
            shutil.move(path, out / EARLIER / path.name)
        take_updates_before(run, first, out)
        options = replace(options, checkpoint=out / EARLIER / LAST_MODEL)
        began = submission.earlier[0] if submission.earlier else submission.part(0.0)
        earlier = (Part(began.started, 0.0, 0),)
    _write_seen(run, out, first, options, facts)
    typer.echo(f"{submission.job} without {withdrawal.who}: from round {first} on, with {', '.join(sites)}")
    return withdrawal, Submission(
        submission.job, submission.source, now(), options, facts, submission.kit, earlier=earlier
    )


def _rewind(run: Path, records: Sequence[Mapping[str, Any]], number: int, start_given: bool, scratch: Path) -> int:
    """The round that the study goes on with: the one asked for where the model before it can be had, else the first."""
    if not number:
        return 0
    try:
        rewind(run, records, number, start_given, scratch)
    except RunError as error:
        typer.echo(f"the model before round {number} cannot be had again: {error}; the study begins anew")
        return 0
    return number


def _options(before: JobOptions, total: int, first: int, sites: tuple[str, ...], scratch: Path) -> JobOptions:
    """Of the job without it.

    Raises:
        RunError: The model that the study started from is not there any more.
    """
    values = {name: value for name, value in before.values.items() if name != "start_round"}
    later = replace(before, rounds=total - first, values=values, sites=sites, ledger_head="")
    if first:
        head = head_of(scratch)
        return replace(
            later, values={**values, "start_round": first}, checkpoint=scratch / LAST_MODEL, ledger_head=head
        )
    if not before.start_sha256:
        return replace(later, checkpoint=None)
    start = before.checkpoint
    if start is None or not start.is_file() or hash_file(start) != before.start_sha256:
        raise RunError(
            f"the model that the study started from, SHA-256 {before.start_sha256}, is not at {start} any "
            "more; put it there again"
        )
    return later


def _facts(submission: Submission, options: JobOptions, withdrawal: Withdrawal) -> dict[str, Any]:
    """For ``run.json``, with the lists as they are now where they are on this machine."""
    facts = {name: value for name, value in submission.facts.items() if name in FACTS_THAT_STAY}
    sites = options.sites or ()
    if "sites_dir" in facts:
        folder = Path(facts["sites_dir"])
        lists = describe_lists(folder, sites)
        facts |= {"sites": check_sites(folder, sites, trains=True), **lists}
        _refuse_same_list(folder, submission.facts.get("lists"), lists["lists"], withdrawal)
    elif not withdrawal.of_patients:
        facts["left_out"] = sorted({*facts.get("left_out", ()), withdrawal.hospital})
    return {**facts, "withdrawals": [*submission.facts.get("withdrawals", ()), asdict(withdrawal)]}


def _refuse_same_list(folder: Path, before: object, lists: Mapping[str, Any], withdrawal: Withdrawal) -> None:
    known = before.get(withdrawal.hospital) if isinstance(before, Mapping) else None
    if withdrawal.of_patients and known == lists[withdrawal.hospital]:
        raise RunError(
            f"{folder / withdrawal.hospital / 'datalist.json'}: is the list that the run was made with; take out the "
            "patients who withdrew, then say this again"
        )


def _write_seen(run: Path, out: Path, first: int, options: JobOptions, facts: Mapping[str, Any]) -> None:
    """What the new run's model has seen, before its first round and in it, where the lists are on this machine."""
    if "sites_dir" not in facts:
        return
    if first and (run / SEEN_FILE).is_file():
        shutil.copyfile(run / SEEN_FILE, out / SEEN_FILE)
    elif first or (options.checkpoint and not take_seen(options.checkpoint, out)):
        return
    write_seen(out, Path(facts["sites_dir"]), options.sites or ())


def write_difference(run: Path, out: Path, withdrawal: Withdrawal) -> Iterator[str]:
    """Write what a withdrawal changed, and say it: the last models' votes by hospital, and how far they are apart."""
    before, after = last_votes(run), last_votes(out)
    far = distance(run / FINAL_MODEL, out / FINAL_MODEL) if (run / FINAL_MODEL).is_file() else None
    votes = {site: {"with": before.get(site), "without": value} for site, value in after.items()}
    content = {"withdrawal": asdict(withdrawal), "validation_dice": votes, "distance": far}
    write_whole(out / DIFFERENCE_FILE, json.dumps(content, indent=1) + "\n")
    for site, value in after.items():
        was = f"{before[site]:.3f}" if site in before else "none"
        yield f"{site}: mean Dice {was} with {withdrawal.who}, {value:.3f} without (own validation cases, last model)"
    if far is not None:
        yield f"the last models differ by {far:.1%} of the norm of the weights"
    yield f"on test cases: brats-fl evaluate and brats-fl report {out} --against {run}"


def last_votes(run: Path) -> dict[str, float]:
    """Hospital -> key metric of the last model on its validation cases, where it reported one."""
    records = read_records(run / RECORDS_FILE) if (run / RECORDS_FILE).is_file() else ()
    found = {line["site"]: vote(line.get("metrics")) for line in records if line["phase"] == "final"}
    return {site: value for site, value in sorted(found.items()) if value is not None}
