"""Mappings that would read a folder, for a user to choose from: each was tried, none is taken unasked."""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final

from brats_fl.cases.found_cases import SEG, FoundCase
from brats_fl.cases.namings import modality_of
from brats_fl.cases.nifti import nifti_stem
from brats_fl.constants import DEFAULT_LABEL_TABLE, LABEL_TABLES, MODALITIES
from brats_fl_tools.data.folder_mapping import FolderMapping, find_mapped_cases, placeholders_of

ANY_TABLE: Final = " or ".join(LABEL_TABLES)
"""In place of the convention, where nothing tells it."""

_LABEL_WORDS: Final = ("seg", "segm", "segmentation", "mask", "label", "tumor", "tumour", "roi", "gtv", "lesion")

Patterns = Mapping[str, str]
"""Modality or ``seg`` -> pattern."""

Way = Callable[[Path, int], dict[str, str]]
"""(file, where in its name the word for its kind begins) -> what stands in its path -> placeholder."""


def as_json(patterns: Patterns, labels: str = ANY_TABLE) -> str:
    """A mapping as its file has it, on one line."""
    ordered = {kind: patterns[kind] for kind in (*MODALITIES, SEG) if kind in patterns}
    return json.dumps({**ordered, "labels": labels})


def propose_choices(root: Path, cases: Iterable[FoundCase]) -> list[str]:
    """For the first case with several files for one purpose: a mapping for each choice among them."""
    found = next((case for case in cases if case.candidates), None)
    if found is None:
        return []
    count = max(len(files) for files in found.candidates.values())
    choices = [
        {kind: files[min(number, len(files) - 1)] for kind, files in found.candidates.items()}
        for number in range(count)
    ]
    labels = ANY_TABLE if found.question else found.labels
    proposals = [_patterns_of(choice, _names_of(found), root) for choice in choices]
    return [as_json(patterns, labels) for patterns in proposals if _complete_cases(root, patterns)]


def _names_of(found: FoundCase) -> dict[str, str]:
    """What stands in the paths of a case -> placeholder."""
    session = re.fullmatch(rf"{re.escape(found.patient)}_(.+)", found.case) if found.patient else None
    if session:
        return {session[1]: "{time_point}", found.patient: "{patient}"}
    return {found.case: "{case}"}


def _patterns_of(files: Mapping[str, Path], names: Mapping[str, str], root: Path) -> dict[str, str]:
    return {kind: _pattern_of(file, names, root) for kind, file in files.items()}


def _pattern_of(file: Path, names: Mapping[str, str], root: Path) -> str:
    pattern = file.relative_to(root).as_posix()
    for name, placeholder in names.items():
        pattern = pattern.replace(name, placeholder)
    return pattern


def propose_for(root: Path, images: Sequence[Path]) -> list[str]:
    """The mapping that reads most cases of files in a layout that nobody knows; none where none reads any."""
    proposals = [_commonest(root, images, way) for way in _WAYS]
    counted = [(_complete_cases(root, patterns), patterns) for patterns in proposals]
    best = max(counted, key=lambda one: one[0], default=(0, {}))
    return [as_json(best[1])] if best[0] else []


def _complete_cases(root: Path, patterns: Patterns) -> int:
    """How many cases a mapping finds whole; 0 where it would be refused."""
    placeholders = {placeholders_of(pattern) for pattern in patterns.values()}
    if not set(MODALITIES) <= patterns.keys() or len(placeholders) != 1 or not (names := placeholders.pop()):
        return 0
    mapping = FolderMapping(dict(patterns), DEFAULT_LABEL_TABLE, names)
    return sum(not found.problems for found in find_mapped_cases(root, mapping))


def _by_folder(file: Path, kind_begins: int) -> dict[str, str]:
    return {file.parent.name: "{case}"}


def _by_two_folders(file: Path, kind_begins: int) -> dict[str, str]:
    return {file.parent.parent.name: "{patient}", file.parent.name: "{time_point}"}


def _by_prefix(file: Path, kind_begins: int) -> dict[str, str]:
    return {file.name[:kind_begins].rstrip("_-. "): "{case}"}


_WAYS: Final = (_by_folder, _by_two_folders, _by_prefix)
"""How a path may tell the case; of two that read as many cases the first counts."""


def _commonest(root: Path, images: Iterable[Path], names_of: Way) -> dict[str, str]:
    """Of each kind the pattern that most files have, cases named in one of ``_WAYS``."""
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for file in images:
        if (told := _kind(file)) is None:
            continue
        kind, begins = told
        names = {name: placeholder for name, placeholder in names_of(file, begins).items() if name}
        counts[kind][_pattern_of(file, names, root)] += 1
    return {kind: count.most_common(1)[0][0] for kind, count in counts.items()}


def _kind(file: Path) -> tuple[str, int] | None:
    """The kind that a name tells, and where in it the word begins, the last where several do; None where none does.

    Two words count before one: ``t1_post`` is t1c and not t1n.
    """
    words = list(re.finditer(r"[A-Za-z0-9]+", nifti_stem(file) or ""))
    for length in (2, 1):
        for first in reversed(range(len(words) - length + 1)):
            text = "".join(word[0] for word in words[first : first + length])
            kind = modality_of(text) or (SEG if text.lower() in _LABEL_WORDS else None)
            if kind:
                return kind, words[first].start()
    return None
