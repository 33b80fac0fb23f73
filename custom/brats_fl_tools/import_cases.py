"""``brats-fl import``: find the cases of a download and write them as a case table.

Looked for is the layout of BraTS 2018 to 2021: a folder a case, in it five files named after the folder, at
any depth, beneath ``HGG`` and ``LGG`` or not, ``.nii`` as in Kaggle's copy of BraTS 2020 or ``.nii.gz``.
Headers are read, voxels are not. What is ambiguous or missing is a fault that the user mends; nothing is
guessed.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import track

from brats_fl.constants import DEFAULT_LABEL_TABLE, MODALITIES
from brats_fl.errors import CaseError
from brats_fl_tools.case_table import CaseRow, refuse_existing_table, write_case_table
from brats_fl_tools.institutions import (
    Origin,
    institution_in_name,
    patient_in_name,
    read_origins,
    shortened,
)
from brats_fl_tools.scan_headers import ScanHeader, grid_fault, read_header

OLDER_NAMES = {"t1c": "t1ce", "t1n": "t1", "t2w": "t2", "t2f": "flair"}
"""Modality -> what BraTS 2018 to 2021 call it in file names."""

LABEL_SUFFIX = "seg"
ODD_LABELS = {"BraTS20_Training_355": "W39_1998.09.19_Segm"}
"""The one label of BraTS 2020 that is not named after its case, without its ending."""

MAPPING_FILE = "name_mapping.csv"
GRADES = ("HGG", "LGG")
ENDINGS = (".nii.gz", ".nii")

LAYOUT = (
    "BraTS 2018 to 2021: <case>/<case>_{t1,t1ce,t2,flair,seg}.nii or .nii.gz, at any depth, with or without "
    "folders HGG and LGG above"
)


@dataclass(frozen=True)
class Survey:
    """What an import found."""

    rows: tuple[CaseRow, ...]
    """The sound cases, sorted by name."""
    faults: tuple[CaseError, ...]
    """The faulty cases, sorted by name; one error a case."""
    strangers: tuple[Path, ...]
    """NIfTI files in folders that hold no file of the layout; they were not looked into."""


def import_cases(data_dir: Path) -> Survey:
    """Every case beneath ``data_dir``, checked by its headers.

    Raises:
        CaseError: No such folder, no case in it, or a ``name_mapping.csv`` that contradicts itself.
    """
    if not data_dir.is_dir():
        raise CaseError(f"{data_dir}: no such folder; give the folder that the download was unpacked to")
    root = data_dir.resolve()
    folders: dict[str, list[Path]] = defaultdict(list)
    strangers: list[Path] = []
    mappings: list[Path] = []
    for folder, files in _walk(root):
        mappings += [file for file in files if file.name == MAPPING_FILE]
        images = [file for file in files if _stem(file) is not None]
        if any(_kind(file) for file in images):
            folders[folder.name].append(folder)
        else:
            strangers += images
    if not folders:
        seen = f"; {len(strangers)} NIfTI files have other names, such as {strangers[0]}" if strangers else ""
        raise CaseError(f"{data_dir}: no case found{seen}. Looked for: {LAYOUT}")
    origins = _read_mappings(mappings)
    rows: list[CaseRow] = []
    faults: list[CaseError] = []
    console = Console(stderr=True)
    for case in track(sorted(folders), "reading headers", console=console, disable=not console.is_terminal):
        try:
            rows.append(read_case(_only_folder(case, folders[case]), root, origins))
        except CaseError as error:
            faults.append(error)
    return Survey(tuple(rows), tuple(faults), tuple(strangers))


def _walk(root: Path) -> Iterator[tuple[Path, list[Path]]]:
    """Folders beneath ``root`` and their files, links followed, each folder once, hidden ones left out."""
    seen: set[str] = set()
    for name, subfolders, files in os.walk(root, followlinks=True):
        # A link back up would be walked for ever.
        real = os.path.realpath(name)
        if real in seen:
            subfolders.clear()
            continue
        seen.add(real)
        # A Mac's archives hold a shadow ._<file> of every file, and a folder __MACOSX of them.
        subfolders[:] = sorted(sub for sub in subfolders if not sub.startswith(".") and sub != "__MACOSX")
        yield Path(name), [Path(name, file) for file in sorted(files) if not file.startswith(".")]


def _stem(file: Path) -> str | None:
    """Name of a NIfTI file without its ending; None for other files."""
    return next((file.name.removesuffix(ending) for ending in ENDINGS if file.name.endswith(ending)), None)


def _kind(file: Path) -> str | None:
    """Which of the case's files this is: a modality, ``seg``, or None where the name tells neither."""
    stem = _stem(file) or ""
    if ODD_LABELS.get(file.parent.name) == stem:
        return "seg"
    suffixes = {**{older: modality for modality, older in OLDER_NAMES.items()}, LABEL_SUFFIX: "seg"}
    return suffixes.get(stem.rpartition("_")[2]) if "_" in stem else None


def _only_folder(case: str, folders: list[Path]) -> Path:
    if len(folders) > 1:
        places = ", ".join(str(folder) for folder in folders)
        raise CaseError(f"{case}: is there {len(folders)} times ({places}); keep one of these folders")
    return folders[0]


def _read_mappings(files: Iterable[Path]) -> dict[str, Origin]:
    origins: dict[str, Origin] = {}
    for file in files:
        for case, origin in read_origins(file).items():
            if origins.setdefault(case, origin) != origin:
                raise CaseError(f"{file}: contradicts another {MAPPING_FILE} on case {case}; keep one of the two")
    return origins


def read_case(folder: Path, root: Path, origins: dict[str, Origin]) -> CaseRow:
    """The case of a folder.

    Args:
        folder: Folder named after the case.
        root: Folder of the import; a folder ``HGG`` or ``LGG`` from here on downwards tells the grade.
        origins: Case -> institution and grade of a ``name_mapping.csv``, where the names do not tell.

    Raises:
        CaseError: A line for each fault: a file missing, ambiguous, unreadable, not 3-D, on another grid.
    """
    case = folder.name
    files, problems = _assign_files(folder)
    headers: list[ScanHeader] = []
    for file in files.values():
        try:
            headers.append(read_header(file))
        except CaseError as error:
            problems.append(str(error))
    problems += [problem for header in headers[1:] if (problem := grid_fault(header, headers[0]))]
    if problems:
        raise CaseError("\n".join(f"{case}: {problem}" for problem in problems))
    above = [part.upper() for part in (root.name, *folder.relative_to(root).parts[:-1])]
    origin = origins.get(case, Origin(""))
    return CaseRow(
        case=case,
        patient=patient_in_name(case),
        image=tuple(files[modality] for modality in MODALITIES),
        label=files.get("seg"),
        labels=DEFAULT_LABEL_TABLE,
        shape=headers[0].shape,
        spacing_mm=headers[0].spacing_mm,
        institution=origin.institution or institution_in_name(case),
        grade=next((part for part in reversed(above) if part in GRADES), origin.grade),
    )


def _assign_files(folder: Path) -> tuple[dict[str, Path], list[str]]:
    """Files of a case by modality and ``seg``, and what is wrong with the set of them."""
    case = folder.name
    images = [file for file in sorted(folder.iterdir()) if _stem(file) and not file.name.startswith(".")]
    candidates: dict[str, list[Path]] = defaultdict(list)
    for file in images:
        if kind := _kind(file):
            candidates[kind].append(file)
    files: dict[str, Path] = {}
    problems: list[str] = []
    for kind in (*MODALITIES, "seg"):
        expected = f"{case}_{OLDER_NAMES.get(kind, LABEL_SUFFIX)}"
        found = candidates[kind]
        if len(found) > 1:
            names = " and ".join(file.name for file in found)
            problems.append(f"{kind} has {len(found)} candidates, {names}; keep one of them ({folder})")
        elif found and _stem(found[0]) not in (expected, ODD_LABELS.get(case)):
            problems.append(f"{found[0]} is not named after its folder; put {expected}.nii.gz there")
        elif found:
            files[kind] = found[0]
        elif kind != "seg":
            problems.append(f"{kind} is missing; {expected}.nii or .nii.gz must be in {folder}")
    # An unlabelled case is allowed, but not one whose label may lie there under another name.
    others = [file.name for file in images if _kind(file) is None]
    if others and not candidates["seg"]:
        problems.append(
            f"no label is named {case}_{LABEL_SUFFIX}, but {others[0]} is there; name it so if it is the "
            "label, else move it away"
        )
    return files, problems


def import_(
    data_dir: Annotated[
        Path, typer.Argument(metavar="DATA_DIR", help="Folder of the download, searched at any depth.")
    ],
    out: Annotated[Path, typer.Option("--out", help="The table to write, for instance cases.csv.")],
    force: Annotated[bool, typer.Option("--force", help="Replace OUT where it exists.")] = False,
    skip_faulty: Annotated[
        bool,
        typer.Option("--skip-faulty", help="Leave faulty cases out, and say which, in place of stopping."),
    ] = False,
) -> None:
    """Write OUT, a table of the cases beneath DATA_DIR: names, grade, institution, files, shape and spacing.

    Finds the layout of BraTS 2018 to 2021, .nii or .nii.gz. Headers are checked, voxels are not read. A
    faulty case stops the import: all of them are listed, nothing is written.
    """
    refuse_existing_table(out, force)
    survey = import_cases(data_dir)
    total = len(survey.rows) + len(survey.faults)
    listing = "\n".join(str(fault) for fault in survey.faults)
    if survey.faults and not (skip_faulty and survey.rows):
        mend = "mend them, or leave them out with --skip-faulty" if survey.rows else "mend them"
        raise CaseError(f"{len(survey.faults)} of {total} cases are faulty, nothing was written; {mend}\n{listing}")
    write_case_table(out, survey.rows, force)
    if survey.faults:
        typer.echo(f"warning: {len(survey.faults)} of {total} cases are faulty and left out\n{listing}", err=True)
    if survey.strangers:
        names = shortened(str(file) for file in survey.strangers)
        typer.echo(f"warning: {len(survey.strangers)} NIfTI files are in no case's folder: {names}", err=True)
    typer.echo(_summary(out, survey.rows))


def _summary(out: Path, rows: tuple[CaseRow, ...]) -> str:
    labelled = sum(row.label is not None for row in rows)
    grades = "".join(f" {grade}={sum(row.grade == grade for row in rows)}" for grade in GRADES)
    institutions = {row.institution for row in rows if row.institution}
    without = sum(not row.institution for row in rows)
    return (
        f"{out}: cases={len(rows)} labelled={labelled}{grades} "
        f"institutions={len(institutions)} without_institution={without}"
    )
