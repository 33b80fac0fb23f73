"""Where the cases of a download are: the layouts of BraTS, FeTS and MSD Task01. No file is opened but ``dataset.json``.

What is ambiguous or missing becomes a problem of the case; nothing is guessed.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from brats_fl.cases import msd
from brats_fl.constants import DEFAULT_LABEL_TABLE, FILE_SUFFIXES, MODALITIES

SEG = "seg"
ENDINGS = (".nii.gz", ".nii")
ORIGIN_FILES = ("name_mapping.csv", "partitioning_1.csv")
"""Tables beside the cases that tell institutions: BraTS's, and FeTS's natural partitioning."""

ODD_LABELS = {"BraTS20_Training_355": "W39_1998.09.19_Segm"}
"""The one label of BraTS 2020 that is not named after its case, without its ending."""

LOOKED_FOR = (
    "BraTS 2018 to 2021 and FeTS, <case>/<case>_{t1,t1ce,t2,flair,seg}.nii[.gz]; BraTS 2023 and later, "
    "<case>/<case>-{t1n,t1c,t2w,t2f,seg}.nii[.gz]; MSD Task01, dataset.json with imagesTr, labelsTr, imagesTs; "
    "for any other, describe it with --mapping"
)


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
    patient: str = ""
    """Empty where the layout tells no more than the case's name does; so is the time point."""
    time_point: str = ""


@dataclass(frozen=True)
class Findings:
    """What is beneath a folder."""

    cases: tuple[FoundCase, ...]
    origin_files: tuple[Path, ...]
    strangers: tuple[Path, ...]
    """NIfTI files that belong to no case."""


@dataclass(frozen=True)
class FolderLayout:
    """A layout with a folder a case and a file a modality."""

    labels: str
    suffixes: Mapping[str, str]
    """Modality or ``seg`` -> how its file ends, before ``.nii``."""


FOLDER_LAYOUTS = (
    FolderLayout(DEFAULT_LABEL_TABLE, {**{name: FILE_SUFFIXES[name][0] for name in MODALITIES}, SEG: "_seg"}),
    FolderLayout("brats2023", {**{name: FILE_SUFFIXES[name][1] for name in MODALITIES}, SEG: "-seg"}),
)


def find_cases(root: Path) -> Findings:
    """Every case beneath a folder, sorted by name.

    Raises:
        CaseError: A ``dataset.json`` beside ``imagesTr`` is not that of MSD Task01.
    """
    cases: list[FoundCase] = []
    origin_files: list[Path] = []
    strangers: list[Path] = []
    for folder, files in walk(root):
        origin_files += [file for file in files if file.name in ORIGIN_FILES]
        images = [file for file in files if stem(file) is not None]
        if msd.is_msd(folder):
            cases += _read_msd(folder)
        if msd.is_msd(folder.parent) and folder.name in (msd.IMAGES, msd.LABELS, msd.TEST_IMAGES):
            continue
        layouts = [layout for layout in FOLDER_LAYOUTS if any(_kind(file, layout) for file in images)]
        if layouts:
            cases.append(_read_folder(folder, images, layouts))
        else:
            strangers += images
    return Findings(tuple(sorted(cases, key=lambda found: found.case)), tuple(origin_files), tuple(strangers))


def walk(root: Path) -> Iterator[tuple[Path, list[Path]]]:
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


def stem(file: Path) -> str | None:
    """Name of a NIfTI file without its ending; None for other files."""
    return next((file.name.removesuffix(ending) for ending in ENDINGS if file.name.endswith(ending)), None)


def _kind(file: Path, layout: FolderLayout) -> str | None:
    """Which of the case's files this is: a modality, ``seg``, or None where the name tells neither."""
    name = stem(file) or ""
    if layout is FOLDER_LAYOUTS[0] and ODD_LABELS.get(file.parent.name) == name:
        return SEG
    return next((kind for kind, suffix in layout.suffixes.items() if name.endswith(suffix)), None)


def _read_folder(folder: Path, images: list[Path], layouts: list[FolderLayout]) -> FoundCase:
    layout, case = layouts[0], folder.name
    if len(layouts) > 1:
        names = " and ".join(next(file.name for file in images if _kind(file, one)) for one in layouts)
        problem = f"the folder holds files of two layouts, {names}; keep one set ({folder})"
        return FoundCase(case, layout.labels, {}, folder, (problem,))
    candidates: dict[str, list[Path]] = defaultdict(list)
    for file in images:
        if kind := _kind(file, layout):
            candidates[kind].append(file)
    files: dict[str, Path] = {}
    problems: list[str] = []
    for kind in (*MODALITIES, SEG):
        found, expected = candidates[kind], f"{case}{layout.suffixes[kind]}"
        if len(found) > 1:
            names = " and ".join(file.name for file in found)
            problems.append(f"{kind} has {len(found)} candidates, {names}; keep one of them ({folder})")
        elif found and stem(found[0]) not in (expected, ODD_LABELS.get(case)):
            problems.append(f"{found[0]} is not named after its folder; put {expected}.nii.gz there")
        elif found:
            files[kind] = found[0]
        elif kind != SEG:
            problems.append(f"{kind} is missing; {expected}.nii or .nii.gz must be in {folder}")
    # An unlabelled case is allowed, but not one whose label may lie there under another name.
    others = [file.name for file in images if _kind(file, layout) is None]
    if others and not candidates[SEG]:
        problems.append(
            f"no label is named {case}{layout.suffixes[SEG]}, but {others[0]} is there; name it so if it is the "
            "label, else move it away"
        )
    return FoundCase(case, layout.labels, files, folder, tuple(problems))


def _read_msd(folder: Path) -> list[FoundCase]:
    order = msd.read_volume_order(folder)
    labels = {msd.case_name(file): file for file in msd.list_images(folder, msd.LABELS)}
    cases = []
    for subfolder in (msd.IMAGES, msd.TEST_IMAGES):
        for file in msd.list_images(folder, subfolder):
            case = msd.case_name(file)
            files = dict(zip(MODALITIES, msd.name_scans(file, order), strict=True))
            problems: tuple[str, ...] = ()
            if case in labels:
                files[SEG] = labels[case]
            elif subfolder == msd.IMAGES:
                missing = folder / msd.LABELS / f"{case}.nii.gz"
                problems = (f"{missing} is missing; restore it, or move the case to {msd.TEST_IMAGES}",)
            cases.append(FoundCase(case, msd.LABEL_TABLE, files, file.parent, problems))
    return cases
