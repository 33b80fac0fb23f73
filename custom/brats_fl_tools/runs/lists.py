"""What a simulated run keeps of its hospitals' data lists: hashes and marks, and neither names nor places of cases.

From it, whoever evaluates the model can tell which cases it has seen, without the lists. The hashes of cases are keyed
with a random number of the run, so that they are of use beside this run alone.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from brats_fl.cases.cache_folder import FileHashes, digest, hash_file
from brats_fl.cases.datalists import (
    DATALIST_FILE,
    Case,
    DataList,
    default_cache_dir,
    list_sites,
    read_datalist,
    scans_of,
)
from brats_fl.cases.scans import split_volume
from brats_fl.constants import SPLITS
from brats_fl.errors import DataListError
from brats_fl.files import write_whole
from brats_fl.reading import Reader, read_if_sound
from brats_fl_tools.data.synthetic import is_synthetic
from brats_fl_tools.partition.manifest import MANIFEST_FILE, hash_list, hash_split
from brats_fl_tools.weights import BEST_MODEL, FINAL_MODEL, PRETRAINED

SEEN_FILE: Final = "seen_cases.json"
"""In a run folder: keyed hashes of the cases that the model was trained or chosen on."""

SEEN_SPLITS: Final = ("training", "validation")


def describe_lists(sites: Path, chosen: Sequence[str]) -> dict[str, Any]:
    """For ``run.json``: hashes of the lists, the study that they are of, who is left out, whose cases are synthetic.

    Args:
        sites: Folder with ``SITE/datalist.json``.
        chosen: The sites that take part.

    Raises:
        DataListError: A list of one that takes part is wrong.
    """
    lists = {site: read_datalist(sites / site / DATALIST_FILE) for site in chosen}
    present = {path.parent.name for path in list_sites(sites)}
    partition = _read_partition(sites)
    left_out = {site for site, facts in partition.get("sites", {}).items() if facts.get("left_out")}
    facts: dict[str, Any] = {
        "lists": {site: {split: hash_split(found, split) for split in SPLITS} for site, found in lists.items()},
        "left_out": sorted((present | left_out) - set(chosen)),
        "synthetic": [site for site, found in lists.items() if any(map(is_synthetic, found.training[:1]))],
    }
    if _is_as_dealt(lists, partition):
        facts["study_sha256"] = partition.get("study_sha256")
    return facts


def _read_partition(sites: Path) -> dict[str, Any]:
    content = read_if_sound(sites / MANIFEST_FILE)
    dealt = content.get("sites")
    return content if isinstance(dealt, dict) and all(isinstance(facts, dict) for facts in dealt.values()) else {}


def _is_as_dealt(lists: dict[str, DataList], partition: dict[str, Any]) -> bool:
    """Whether the lists are those that the partition's record names: one that was edited is of another study."""
    dealt = partition.get("sites", {})
    return bool(dealt) and all(
        site in dealt and hash_list(found, dealt[site].get("shift", 0.0)) == dealt[site].get("sha256")
        for site, found in lists.items()
    )


def write_seen(run: Path, sites: Path, chosen: Iterable[str]) -> None:
    """Write ``SEEN_FILE``: what tells a case that is trained or chosen on again, each keyed.

    What an earlier part of the run saw stays in it. The files' hashes are kept in the sites' caches, which ask for them
    anyway.

    Raises:
        DataListError: A list is wrong, or the file of an earlier part is damaged.
    """
    key, before = _read_seen(run / SEEN_FILE) if (run / SEEN_FILE).is_file() else (secrets.token_hex(16), frozenset())
    marks = set(before)
    for site in chosen:
        path = sites / site / DATALIST_FILE
        hashes, found = FileHashes(Path(default_cache_dir(path))), read_datalist(path)
        for case in (case for split in SEEN_SPLITS for case in found.split(split)):
            marks.update(_marks_of(key, site, case, hashes.read))
    write_whole(run / SEEN_FILE, json.dumps({"key": key, "cases": sorted(marks)}, indent=1) + "\n")


def take_seen(start: Path, run: Path) -> bool:
    """Copy what a start had seen into a new run, whose model has seen it, too; False where the start does not tell."""
    if not _tells(start):
        return False
    write_whole(run / SEEN_FILE, (start.parent / SEEN_FILE).read_text(encoding="utf-8"))
    return True


def _tells(model: Path) -> bool:
    """Whether what a model had seen lies beside it."""
    return model.name in (BEST_MODEL, FINAL_MODEL, PRETRAINED) and (model.parent / SEEN_FILE).is_file()


def find_seen(model: Path, sites: Path, names: Iterable[str], split: str) -> list[str] | None:
    """Cases of a split that a model was trained or chosen on, as SITE/CASE; None where its run does not tell.

    A case counts as seen where its four scans are the same files, wherever they lie, or where its patient is one of the
    same hospital's that was.

    Args:
        model: Best or final model in its run folder, or a pretrained one in its own.
        sites: Folder with ``SITE/datalist.json``.
        names: The sites to look at.
        split: Of their lists.

    Raises:
        DataListError: ``SEEN_FILE`` is damaged.
    """
    if not _tells(model):
        return None
    key, marks = _read_seen(model.parent / SEEN_FILE)
    seen = []
    for site in names:
        found = read_datalist(sites / site / DATALIST_FILE)
        cases = found.split(split)
        seen += [f"{site}/{case.case}" for case in cases if marks & {*_marks_of(key, site, case, _hash_files)}]
    return seen


def _read_seen(path: Path) -> tuple[str, frozenset[str]]:
    """Key and marks of ``SEEN_FILE``."""
    reader = Reader(DataListError, "remove it, and what was seen is not checked")
    content = reader.json_object(path)
    return reader.at(str, content, ["key"], path), reader.at(frozenset[str], content, ["cases"], path)


def _hash_files(files: Sequence[Path]) -> list[str]:
    """SHA-256 of each file, of which nothing is kept: an evaluation leaves no folder at a hospital."""
    return [hash_file(str(file)) for file in files]


def _marks_of(key: str, site: str, case: Case, read: Callable[[Sequence[Path]], list[str] | None]) -> Iterator[str]:
    """Keyed hashes of a case's scans and of its patient."""
    yield _keyed(key, f"patient {site} {case.patient}")
    scans = [split_volume(scan) for scan in case.image]
    files = list(dict.fromkeys(split_volume(scan)[0] for scan in scans_of(case).values()))
    try:
        known = dict(zip(files, read(files) or (), strict=True))
    except OSError:
        return  # reading the case will say what is wrong
    yield _keyed(key, f"scans {digest([[known[file], number] for file, number in scans], 64)}")


def _keyed(key: str, text: str) -> str:
    return hmac.new(key.encode(), text.encode(), hashlib.sha256).hexdigest()
