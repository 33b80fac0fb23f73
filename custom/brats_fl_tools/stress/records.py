"""What a stopped stress leaves in ``.stress`` of its folder: a file a case, with the figures of what is done."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

from brats_fl.cases.cache_folder import digest
from brats_fl.errors import FolderError, RunError
from brats_fl.files import write_whole
from brats_fl.reading import Reader
from brats_fl.scoring.mask_records import hash_scans
from brats_fl_tools.stress.plan import Grade

RECORDS_FOLDER: Final = ".stress"
SHA256_DIGITS: Final = 64

READER: Final = Reader(RunError, "remove it, and its case is segmented again")


@dataclass(frozen=True)
class Score:
    """Figures of one segmentation, by region."""

    degradation: str
    grade: str
    dice: Mapping[str, float]
    hd95_mm: Mapping[str, float]


@dataclass(frozen=True)
class CaseRecord:
    """What is known of a case: by what and of what its figures were made, and the figures."""

    made_by: str
    """Digest of weights, settings and degradations."""
    files_sha256: str
    """Of scans and label."""
    scores: tuple[Score, ...] = ()


def hash_case(item: Mapping[str, Any]) -> str:
    """Digest of a case's scans, label and label convention; empty where a file cannot be read."""
    try:
        return digest([hash_scans([*item["image"], item["label"]]), item["labels"]], SHA256_DIGITS)
    except OSError:
        return ""


def read_record(path: Path) -> CaseRecord:
    """The record of a case.

    Raises:
        RunError: It cannot be used.
    """
    return READER.typed(CaseRecord, READER.json_object(path), path)


class Records:
    """Figures that are known, by case and grade; each new one is on disk before the next is made.

    Args:
        folder: Of the results.
        made_by: Digest of what makes the figures.
        items: The cases, with ``site``, ``case``, ``image``, ``label`` and ``labels``.

    Raises:
        FolderError: Something else made what is there, or of other scans.
        RunError: A record cannot be read.
    """

    def __init__(self, folder: Path, made_by: str, items: Iterable[Mapping[str, Any]]) -> None:
        self._folder = folder / RECORDS_FOLDER
        self._known = {(item["site"], item["case"]): self._read(made_by, item) for item in items}

    def _path(self, site: str, case: str) -> Path:
        return self._folder / site / f"{case}.json"

    def _read(self, made_by: str, item: Mapping[str, Any]) -> CaseRecord:
        path, empty = self._path(item["site"], item["case"]), CaseRecord(made_by, hash_case(item))
        if not path.is_file():
            return empty
        found = read_record(path)
        if replace(found, scores=()) != empty:
            raise FolderError(
                f"{path} is of another model, of other settings or of other scans; choose another --out, or add "
                "--force to make all anew"
            )
        return found

    def of(self, site: str, case: str) -> dict[Grade, Score]:
        """Figures of a case that are known."""
        return {Grade(score.degradation, score.grade): score for score in self._known[site, case].scores}

    def add(self, site: str, case: str, score: Score) -> None:
        """Keep the figures of a segmentation."""
        before = self._known[site, case]
        record = replace(before, scores=(*before.scores, score))
        path = self._path(site, case)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, json.dumps(asdict(record), indent=1) + "\n")
        self._known[site, case] = record
