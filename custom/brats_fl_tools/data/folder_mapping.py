"""A hospital's own folder, described by a small JSON file: a pattern for each modality, and the label convention.

```
{
    "t1c": "{patient}/{time_point}/t1_post.nii.gz",
    "t1n": "{patient}/{time_point}/t1_pre.nii.gz",
    "t2w": "{patient}/{time_point}/t2.nii.gz",
    "t2f": "{patient}/{time_point}/flair.nii.gz",
    "seg": "{patient}/{time_point}/tumour*.nii.gz",
    "labels": "brats2023"
}
```

A pattern is relative to the folder of the import, and beneath it. ``{case}``, ``{patient}`` and ``{time_point}`` stand
for one name each, and ``*`` for anything, within a folder's or file's name. Without ``{case}`` a case is named after
its patient and time point. A volume of a 4-D file is ``...nii.gz#k``. ``seg`` may be left out.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path

from brats_fl.cases.found_cases import SEG, FoundCase, closed_cases, refuse_odd_names
from brats_fl.cases.layouts import walk
from brats_fl.cases.nifti import nifti_stem
from brats_fl.cases.scans import name_volume, split_volume
from brats_fl.constants import LABEL_TABLES, MODALITIES
from brats_fl.errors import CaseError
from brats_fl.reading import Reader
from brats_fl.typed import shorten
from brats_fl_tools.data.path_patterns import match_path, parts_of, placeholders_in

PLACEHOLDERS = ("case", "patient", "time_point")

Key = tuple[str, ...]
"""What the placeholders stand for, in the order of ``FolderMapping.placeholders``."""


@dataclass(frozen=True)
class FolderMapping:
    """Where the files of a case are, and what their label values mean."""

    patterns: dict[str, str]
    """Modality or ``seg`` -> pattern."""
    labels: str
    placeholders: tuple[str, ...]


def read_mapping(path: Path) -> FolderMapping:
    """Mapping of a file.

    Raises:
        CaseError: The file cannot be read; a key is unknown, missing or of another kind; a pattern lacks a placeholder
            or leads out of the folder.
    """
    content = Reader(CaseError, "mend it").json(path)
    keys = (*MODALITIES, SEG, "labels")
    if not isinstance(content, dict) or not all(isinstance(value, str) for value in content.values()):
        raise CaseError(f"{path}: must hold an object of texts with the keys {', '.join(keys)}")
    for key in content:
        if key not in keys:
            raise CaseError(f"{path}: unknown key {shorten(key)}; a mapping has {', '.join(keys)}: remove it")
    for key in (*MODALITIES, "labels"):
        if key not in content:
            raise CaseError(f"{path}: has no {shorten(key)}; add it")
    labels = content.pop("labels")
    if labels not in LABEL_TABLES:
        raise CaseError(f"{path}: labels must be one of {', '.join(LABEL_TABLES)} (got {shorten(labels)})")
    for kind, pattern in content.items():
        if fault := _place_fault(pattern):
            raise CaseError(
                f"{path}: {kind} must be a path beneath the folder of the import, {fault} (got {shorten(pattern)})"
            )
    return FolderMapping(content, labels, _check_placeholders(path, content))


def _place_fault(pattern: str) -> str | None:
    """Why no file beneath the folder of the import can have such a path; None where one can."""
    rules = {
        "without blanks around it": pattern != pattern.strip(),
        "with / between folders": "\\" in pattern,
        "such as {case}/t1.nii.gz: neither absolute nor with ~": pattern[:1] in ("/", "~"),
        "without ..": ".." in pattern.split("/"),
    }
    return next((rule for rule, broken in rules.items() if broken), None)


def placeholders_of(pattern: str) -> tuple[str, ...]:
    """The placeholders in a pattern, each once: known ones in the order of ``PLACEHOLDERS``, then others."""
    names = placeholders_in(pattern)
    return (*(name for name in PLACEHOLDERS if name in names), *sorted(names - set(PLACEHOLDERS)))


def _check_placeholders(path: Path, patterns: dict[str, str]) -> tuple[str, ...]:
    used = {kind: set(placeholders_of(pattern)) for kind, pattern in patterns.items()}
    for kind, names in used.items():
        if unknown := sorted(names - set(PLACEHOLDERS)):
            odd = "{" + shorten(unknown[0])[1:-1] + "}"
            raise CaseError(f"{path}: {kind} has the placeholder {odd}; there are {', '.join(PLACEHOLDERS)}")
        if not names & {"case", "patient"}:
            raise CaseError(f"{path}: {kind} has neither {{case}} nor {{patient}}, and would fit every case; add one")
        if names != used[MODALITIES[0]]:
            raise CaseError(f"{path}: {kind} has other placeholders than {MODALITIES[0]}; all patterns need the same")
    return placeholders_of(patterns[MODALITIES[0]])


def find_mapped_cases(root: Path, mapping: FolderMapping) -> list[FoundCase]:
    """The cases that the mapping finds beneath a folder."""
    closed: list[OSError] = []
    images = [file for _, files in walk(root, closed) for file in files if nifti_stem(file) is not None]
    found: dict[Key, dict[str, list[Path]]] = defaultdict(lambda: defaultdict(list))
    for kind, pattern in mapping.patterns.items():
        pattern_file, number = split_volume(pattern)
        parts = parts_of(str(pattern_file))
        for file in images:
            if names := match_path(parts, file.relative_to(root).as_posix()):
                key = tuple(names[name] for name in mapping.placeholders)
                found[key][kind].append(file if number is None else name_volume(file, number))
    cases = [_as_case(mapping, key, candidates, root) for key, candidates in found.items()]
    return refuse_odd_names([*cases, *closed_cases(closed)])


def _as_case(mapping: FolderMapping, key: Key, candidates: dict[str, list[Path]], root: Path) -> FoundCase:
    names = dict(zip(mapping.placeholders, key, strict=True))
    case = names.get("case") or "_".join(key)
    problems = []
    for kind, pattern in mapping.patterns.items():
        count = len(candidates[kind])
        if count > 1:
            files = " and ".join(file.name for file in candidates[kind])
            problems.append(f"{kind} has {count} candidates, {files}; keep one of them or mend {shorten(pattern)}")
        elif not count and kind != SEG:
            problems.append(f"{kind} is missing; {shorten(pattern)} finds no file of this case in {root}")
    alone = {kind: files[0] for kind, files in candidates.items() if len(files) == 1}
    for file, times in Counter(alone.values()).items():
        if times > 1:
            kinds = " and ".join(kind for kind in alone if alone[kind] == file)
            problems.append(f"{kinds} are the same file, {file.name}; mend the pattern of one")
    return FoundCase(
        case=case,
        labels=mapping.labels,
        files=alone,
        folder=next(files[0].parent for files in candidates.values() if files),
        problems=tuple(problems),
        patient=names.get("patient", ""),
        time_point=names.get("time_point", ""),
    )
