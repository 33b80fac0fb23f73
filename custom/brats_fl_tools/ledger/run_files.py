"""Whether the files of a run folder are those that its ledger names: records, models, the job and its lists."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from brats_fl.errors import BratsFLError
from brats_fl.ledger import Line, digests_of_values
from brats_fl.provenance import hash_file
from brats_fl.reading import read_if_sound
from brats_fl.round_records import RECORDS_FILE, read_records
from brats_fl_tools.jobs.built import content_hash_of
from brats_fl_tools.runs.folder import BEST_MODEL, FINAL_MODEL, JOB_FOLDER, OF_THE_MACHINE, RUN_FILE, text_of
from brats_fl_tools.runs.seal import OF_LISTS, SEALED_MODELS, digest_of_checkpoint, lists_of, sealed_files

Record = Mapping[str, Any]


def wrong_files(run: Path, lines: Sequence[Line]) -> Iterator[str]:
    """What of a run folder is not what its ledger says: the file, and the field."""
    seal = lines[-1]
    told = [*wrong_records(read_records(run / RECORDS_FILE), [r for line in lines for r in line.records])]
    told += wrong_models(run, lines)
    if seal.kind == "seal":
        told += [*wrong_job(run, seal), *wrong_facts(run, seal)]
        told += [
            f"{name}: {why}"
            for name, why in wrong_bytes(run, seal)
            if not any(one.startswith(f"{name}: ") for one in told)
        ]
    yield from told


def wrong_records(file: Sequence[Record], ledger: Sequence[Record]) -> Iterator[str]:
    """Where the lines of ``rounds.jsonl`` are not those of the ledger."""
    there, stated = by_what_they_are_of(file), by_what_they_are_of(ledger)
    for key in sorted({*there, *stated}):
        place = "{}: {} of round {} at {}".format(RECORDS_FILE, *key)
        here, said = there.get(key, []), stated.get(key, [])
        if len(here) != len(said):
            yield f"{place}: {len(here)} lines, the ledger has {len(said)}"
            continue
        for one, other in zip(here, said, strict=True):
            for name in sorted(name for name in {*one, *other} if one.get(name) != other.get(name)):
                yield f"{place}: {name} is {one.get(name)!r}, the ledger has {other.get(name)!r}"


def by_what_they_are_of(records: Sequence[Record]) -> dict[tuple[str, int, str], list[Record]]:
    """Phase, round and site -> records, in their order."""
    found: dict[tuple[str, int, str], list[Record]] = {}
    for record in records:
        key = (str(record.get("phase")), int(record.get("round", -1)), str(record.get("site")))
        found.setdefault(key, []).append(record)
    return found


def wrong_models(run: Path, lines: Sequence[Line]) -> Iterator[str]:
    """Where the models of the run folder are not those that the ledger names."""
    known = [line.model for line in lines if line.model]
    began = {line.round: before.model for before, line in pairwise(lines) if line.kind == "round"}
    last = known[-1] if known else ""
    best = read_if_sound(run / RUN_FILE).get("best_round")
    expected = {FINAL_MODEL: last, BEST_MODEL: last if best == "final" else began.get(best, "")}
    for name in SEALED_MODELS:
        try:
            digest = digest_of_checkpoint(run / name)
        except BratsFLError as error:
            yield f"{name}: {error}"
            continue
        if digest not in known:
            yield f"{name}: is none of the models that the ledger names"
        elif expected[name] and digest != expected[name]:
            yield f"{name}: is another of the ledger's models than the one that it should be"
        if lines[-1].kind == "seal" and lines[-1].models.get(name) != digest:
            yield f"line {len(lines)}: models.{name} is not the digest of {name}"


def wrong_bytes(run: Path, seal: Line) -> Iterator[tuple[str, str]]:
    """Sealed files that have other bytes, and why they are wrong; a seal of an earlier release names none."""
    for name in sealed_files(str(seal.job.get("name"))) if seal.files else ():
        if not (run / name).is_file():
            yield name, "is not there"
        elif hash_file(run / name) != seal.files.get(name):
            yield name, "its bytes are not those that were sealed"
    info = run / RUN_FILE
    if seal.facts and not (info.is_file() and info.read_bytes() == text_of(read_if_sound(info)).encode()):
        yield RUN_FILE, "is missing, damaged, or not as brats-fl writes it"


def wrong_facts(run: Path, seal: Line) -> Iterator[str]:
    """Fields of ``run.json`` that are not those that were sealed; a seal of an earlier release names none.

    Those that the seal has in words are for ``wrong_job``.
    """
    digests = digests_of_values(read_if_sound(run / RUN_FILE))
    in_words = {"job", "content_hash", "state", *OF_LISTS}
    for key in sorted({*digests, *seal.facts} - in_words) if seal.facts else ():
        if key in digests and digests[key] != seal.facts.get(key):
            yield f"{RUN_FILE}: {key} is not what was sealed"
        elif key not in digests and key not in OF_THE_MACHINE:
            yield f"{RUN_FILE}: {key} was taken out after it was sealed"


def wrong_job(run: Path, seal: Line) -> Iterator[str]:
    """Where the job of the run folder, or what ``run.json`` says of it, is not what the seal says."""
    name, stated = str(seal.job.get("name")), seal.job.get("content_hash")
    info = read_if_sound(run / RUN_FILE)
    folder = run / JOB_FOLDER / Path(name).name
    if content_hash_of(folder) != stated:
        yield f"{folder.relative_to(run)}: its files are not those of content hash {str(stated)[:12]}"
    for key, there, said in (
        ("job", info.get("job"), name),
        ("content_hash", info.get("content_hash"), stated),
        ("state", info.get("state"), seal.state),
        *((key, info.get(key), value) for key, value in seal.lists.items()),
    ):
        if there != said:
            yield f"{RUN_FILE}: {key} is not what the seal says"
    for key in lists_of(info).keys() - seal.lists.keys():
        yield f"{RUN_FILE}: {key} is not in the seal"
