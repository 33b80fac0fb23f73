"""The ledger of a run folder: that of all its parts, and the lead's seal over it."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from brats_fl.digests import digest_of_model
from brats_fl.files import write_whole
from brats_fl.kept_updates import UPDATES_FOLDER
from brats_fl.ledger import LEDGER_FILE, Line, as_text, digests_of_values, follow, hash_of, read_ledger, signed_part
from brats_fl.provenance import hash_file
from brats_fl.round_records import RECORDS_FILE, read_records
from brats_fl.signatures import find_signer
from brats_fl_tools.jobs.built import BuiltJob
from brats_fl_tools.kit.kits import read_kit
from brats_fl_tools.runs.folder import BEST_MODEL, EARLIER, FINAL_MODEL, JOB_FOLDER, State, now
from brats_fl_tools.runs.submission import Submission

SEALED_MODELS: Final = (FINAL_MODEL, BEST_MODEL)
OF_LISTS: Final = ("sites", "study_sha256", "lists", "withdrawals")
"""Facts of a run that say whose data it is of: its lists, which only who simulates has, and who withdrew."""


def of_server(server_files: Path) -> list[Line]:
    """The lines that a server wrote of a job; of one that was lost, those that it finished."""
    return read_ledger(server_files / LEDGER_FILE, may_be_cut=True)


def done_lines(lines: list[Line], done: int) -> list[Line]:
    """The lines of the rounds before a number, and what stands in front of them."""
    return [line for line in lines if line.kind == "start" or (line.round is not None and line.round < done)]


def done_records(server_files: Path, done: int) -> list[dict[str, Any]]:
    """The round records of the rounds before a number: those that the ledger's lines of them hold, where there is one.

    What arrived when a round was over stands in the line of the next, which a lost part may not have.
    """
    of_lines = [record for line in done_lines(of_server(server_files), done) for record in line.records]
    found = of_lines or read_records(server_files / RECORDS_FILE)
    return [dict(record) for record in found if record["round"] < done and record["phase"] != "final"]


def take_updates(server_files: Path, run: Path) -> None:
    """Copy the updates that a server kept, if it did, to those of the parts before."""
    if (server_files / UPDATES_FOLDER).is_dir():
        shutil.copytree(server_files / UPDATES_FOLDER, run / UPDATES_FOLDER, dirs_exist_ok=True)


def keep_ledger(server_files: Path, folder: Path, done: int) -> None:
    """Add what a lost part's ledger says of the rounds that were done to that of the parts before.

    Raises:
        LedgerError: A line is damaged.
    """
    take_updates(server_files, folder.parent)
    kept, found = read_ledger(folder / LEDGER_FILE), done_lines(of_server(server_files), done)
    if found:
        before = kept[: kept.index(found[0])] if found[0] in kept else kept  # asked twice for the same part
        write_whole(folder / LEDGER_FILE, as_text([*before, *found]))


def head_of(folder: Path) -> str:
    """Hash of the last line of a ledger; empty where there is none."""
    lines = read_ledger(folder / LEDGER_FILE)
    return hash_of(lines[-1]) if lines else ""


def write_ledger(
    run: Path,
    server_files: Path,
    job: BuiltJob,
    submission: Submission,
    told: Mapping[str, Any],
    done: int | None = None,
) -> None:
    """Write the run folder's ledger: what earlier parts left, the server's, and the seal; nothing where there is none.

    Args:
        run: Run folder, with its models, records and job.
        server_files: What the server kept of the job.
        job: As it was built for this part.
        submission: Whose kit signs; without one, as in the simulator, the seal is not signed.
        told: What ``run.json`` is about to say.
        done: Rounds that were done of a run that was interrupted; None of one that has finished.

    Raises:
        LedgerError: A line of the server's is damaged.
        KitError: The kit cannot be read, or its key.
    """
    take_updates(server_files, run)
    later = of_server(server_files)
    if not later:
        return
    earlier = read_ledger(run / EARLIER / LEDGER_FILE)
    lines = [*earlier, *(later if done is None else done_lines(later, done))]
    write_whole(run / LEDGER_FILE, as_text([*lines, seal(run, lines[-1], job, submission, told["state"], told)]))


def seal(
    run: Path, last: Line, job: BuiltJob, submission: Submission, state: State, told: Mapping[str, Any] | None = None
) -> Line:
    """The last line: what the run folder holds and which job made it, signed by the lead.

    Args:
        run: Run folder, with its models, records and job.
        last: The line before.
        job: As it was built for the last part.
        submission: Of that part.
        state: Of the run.
        told: What ``run.json`` says, if that is to be sealed.
    """
    kit = read_kit(Path(submission.kit)) if submission.kit else None
    signer = find_signer(kit.certificate.parent) if kit else None
    line = Line(
        "seal",
        **follow(last),
        time=now(),
        job={"name": job.name, "content_hash": job.content_hash, "study": job.study, "sites": list(job.sites)},
        lists=lists_of(submission.facts),
        models={name: digest_of_checkpoint(run / name) for name in SEALED_MODELS},
        files={name: hash_file(run / name) for name in sealed_files(job.name)},
        facts=digests_of_values(told or {}),
        state=state,
        by=kit.name if kit else "",
        certificates={kit.name: signer.certificate} if kit and signer else {},
    )
    return replace(line, signature=signer.sign(signed_part(line))) if signer else line


def sealed_files(job: str) -> tuple[str, ...]:
    """Files of a run folder that are sealed byte by byte; of ``run.json`` each field is."""
    return (*SEALED_MODELS, RECORDS_FILE, f"{JOB_FOLDER}/{Path(job).name}/meta.json")


def lists_of(facts: Mapping[str, Any]) -> dict[str, Any]:
    """What a run's facts say of its data lists."""
    return {key: facts[key] for key in OF_LISTS if key in facts}


def digest_of_checkpoint(path: Path) -> str:
    """Digest of the model in a file, as the ledger names it.

    Raises:
        ModelError: It is no checkpoint.
    """
    from brats_fl.network.checkpoints import read_state

    return digest_of_model({name: value.numpy(force=True) for name, value in read_state(path).items()})
