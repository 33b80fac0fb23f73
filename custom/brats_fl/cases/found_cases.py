"""What a search finds: cases as their layout names them, with what is wrong or open about each."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from brats_fl.constants import DEFAULT_LABEL_TABLE, MODALITIES
from brats_fl.typed import printable

SEG: Final = "seg"

_NO_TEXT: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
"""Characters that a file's name may hold and no table, list or page: line breaks, and bytes that are not UTF-8."""


@dataclass(frozen=True)
class FoundCase:
    """A case as its layout names it; whether its files can be read is not known yet."""

    case: str
    labels: str
    """The label convention that the layout stands for, a key of ``LABEL_TABLES``."""
    files: Mapping[str, Path]
    """Modality or ``seg`` -> file; a volume of a 4-D file as ``path#k``."""
    folder: Path
    problems: tuple[str, ...] = ()
    """What is wrong with its scans, each with its mend."""
    label_problems: tuple[str, ...] = ()
    """What is wrong with its label alone; whoever needs no label may pass over it."""
    patient: str = ""
    """Empty where the layout tells no more than the case's name does; so is the time point."""
    time_point: str = ""
    question: str = ""
    """Why the layout does not tell the label convention for certain; empty where it does. Whoever reads labels asks."""
    candidates: Mapping[str, Sequence[Path]] = field(default_factory=dict)
    """Modality or ``seg`` -> the files that it may be, where one of them has more than one; empty elsewhere."""


@dataclass(frozen=True)
class Findings:
    """What is beneath a folder."""

    cases: tuple[FoundCase, ...]
    origin_files: tuple[Path, ...]
    strangers: tuple[Path, ...]
    """NIfTI files that belong to no case."""


Candidates = Mapping[str, Sequence[Path]]
"""Modality or ``seg`` -> the files that a layout takes for it."""


def choose_files(
    candidates: Candidates, missing: Callable[[str], str], place: str
) -> tuple[dict[str, Path], list[str], list[str]]:
    """The one file of each kind; problems of the scans and of the label where there is none, or more than one.

    Args:
        candidates: The files to choose from.
        missing: Modality -> what must be where, for the message.
        place: Where the candidates are, for the message.
    """
    files: dict[str, Path] = {}
    problems: dict[bool, list[str]] = {True: [], False: []}
    for kind in (*MODALITIES, SEG):
        found = candidates.get(kind, ())
        if len(found) == 1:
            files[kind] = found[0]
        elif found:
            names = " and ".join(_told_apart(found))
            problems[kind == SEG].append(f"{kind} has {len(found)} candidates, {names}; keep one of them ({place})")
        elif kind != SEG:
            problems[False].append(f"{kind} is missing; {missing(kind)}")
    return files, problems[False], problems[True]


def _told_apart(files: Sequence[Path]) -> list[str]:
    """Names of files; the whole paths where they lie in several folders."""
    return [file.name if len({one.parent for one in files}) == 1 else str(file) for file in files]


def ambiguous(candidates: Candidates) -> Candidates:
    """The candidates, where a kind has more than one; else none."""
    return dict(candidates) if any(len(files) > 1 for files in candidates.values()) else {}


def label_alone(label: Path, expected: str) -> str:
    """The problem of a label that has no scan."""
    return f"{label} has no scan beside it; put {expected} and the others there, or move it away"


def closed_cases(closed: Iterable[OSError]) -> list[FoundCase]:
    """Folders that could not be looked into, each as a case that cannot be used: there may be one in it."""
    folders = [(Path(str(error.filename)), error.strerror) for error in closed]
    mend = "give this user the right to read it, or move it away"
    return [
        FoundCase(folder.name, DEFAULT_LABEL_TABLE, {}, folder, (f"{folder} cannot be looked into ({why}); {mend}",))
        for folder, why in folders
    ]


def refuse_odd_names(cases: Iterable[FoundCase]) -> list[FoundCase]:
    """The cases; one of which the name, or that of a file or folder, is no line of text cannot be used."""
    return [_refuse_odd_name(found) for found in cases]


def _refuse_odd_name(found: FoundCase) -> FoundCase:
    names = (found.case, str(found.folder), *map(str, found.files.values()))
    name, odd = next(((name, match[0]) for name in names if (match := _NO_TEXT.search(name))), ("", ""))
    if not odd:
        return found
    problem = f"the name {printable(name)} holds the character {odd!a}, which is no text; rename it"
    of_scans = bool(found.problems or set(found.files) - {SEG})
    return replace(
        found,
        case=printable(found.case),
        files={},
        folder=Path(printable(str(found.folder))),  # for messages: there is no such folder
        problems=(problem,) if of_scans else (),
        label_problems=() if of_scans else (problem,),
        candidates={},
    )


def join_namesakes(cases: Iterable[FoundCase]) -> list[FoundCase]:
    """The cases sorted by name; those that have one name as one case that cannot be used."""
    named: dict[str, list[FoundCase]] = defaultdict(list)
    for found in cases:
        named[found.case].append(found)
    return [group[0] if len(group) == 1 else _as_one(group) for _, group in sorted(named.items())]


def _as_one(group: list[FoundCase]) -> FoundCase:
    places = ", ".join(str(found.folder) for found in group)
    problem = f"is there {len(group)} times ({places}); keep one of them"
    return replace(group[0], files={}, problems=(problem,), label_problems=(), candidates={})
