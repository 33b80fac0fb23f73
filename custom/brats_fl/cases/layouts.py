"""Where the cases of a folder are: the layouts of BraTS, FeTS and MSD Task01. No file is opened but ``dataset.json``.

The import of a download and the bundles' inference find cases by this module alone, so that what the one refuses the
other does not segment. What is ambiguous or missing becomes a problem of the case; nothing is guessed.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from brats_fl.cases import msd
from brats_fl.cases.nifti import nifti_stem
from brats_fl.constants import DEFAULT_LABEL_TABLE, FILE_SUFFIXES, MODALITIES

SEG = "seg"
ORIGIN_FILES = ("name_mapping.csv", "partitioning_1.csv")
"""Tables beside the cases that tell institutions: BraTS's, and FeTS's natural partitioning."""

ODD_LABELS = {"BraTS20_Training_355": "W39_1998.09.19_Segm"}
"""The one label of BraTS 2020 that is not named after its case, without its ending."""

LOOKED_FOR = (
    "BraTS 2018 to 2021 and FeTS, <case>/<case>_{t1,t1ce,t2,flair,seg}.nii[.gz]; BraTS 2023 and later, "
    "<case>/<case>-{t1n,t1c,t2w,t2f,seg}.nii[.gz]; MSD Task01, dataset.json with imagesTr, labelsTr, imagesTs"
)

PASSED_OVER = ("__MACOSX", "@eaDir", "lost+found")
"""Folders that a Mac's archive, a network disk or a file system adds; so are all hidden ones, such as ``.snapshot``."""


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


def search(root: Path) -> Findings:
    """Every case beneath a folder, sorted by name; namesakes are left to ``join_namesakes``.

    Raises:
        CaseError: A ``dataset.json`` beside ``imagesTr`` is not that of MSD Task01.
    """
    cases: list[FoundCase] = []
    origin_files: list[Path] = []
    strangers: list[Path] = []
    closed: list[OSError] = []
    for folder, files in walk(root, closed):
        origin_files += [file for file in files if file.name in ORIGIN_FILES]
        images = [file for file in files if nifti_stem(file) is not None]
        if msd.is_msd(folder):
            cases += _read_msd(folder)
        if msd.is_msd(folder.parent) and folder.name in (msd.IMAGES, msd.LABELS, msd.TEST_IMAGES):
            continue
        if found := _read_folder(folder, images):
            cases.append(found)
        else:
            strangers += images
    cases += closed_cases(closed)
    return Findings(tuple(sorted(cases, key=lambda found: found.case)), tuple(origin_files), tuple(strangers))


def walk(root: Path, closed: list[OSError]) -> Iterator[tuple[Path, list[Path]]]:
    """Folders beneath ``root`` and their files, links followed, each folder once, hidden ones left out.

    Args:
        root: Where to begin.
        closed: Takes an error for every folder that this user may not look into.
    """
    seen: set[str] = set()
    for name, subfolders, files in os.walk(root, followlinks=True, onerror=closed.append):
        # A link back up would be walked for ever.
        real = os.path.realpath(name)
        if real in seen:
            subfolders.clear()
            continue
        seen.add(real)
        kept = [sub for sub in subfolders if not sub.startswith(".") and sub not in PASSED_OVER]
        # A folder has its own name rather than that of a link beside it.
        subfolders[:] = sorted(kept, key=lambda sub: (Path(name, sub).is_symlink(), sub))
        # A Mac's archives hold a shadow ._<file> of every file.
        yield Path(name), [Path(name, file) for file in sorted(files) if not file.startswith(".")]


def closed_cases(closed: Iterable[OSError]) -> list[FoundCase]:
    """Folders that could not be looked into, each as a case that cannot be used: there may be one in it."""
    folders = [(Path(str(error.filename)), error.strerror) for error in closed]
    mend = "give this user the right to read it, or move it away"
    return [
        FoundCase(folder.name, DEFAULT_LABEL_TABLE, {}, folder, (f"{folder} cannot be looked into ({why}); {mend}",))
        for folder, why in folders
    ]


def join_namesakes(cases: Iterable[FoundCase]) -> list[FoundCase]:
    """The cases sorted by name; those that have one name as one case that cannot be used."""
    named: dict[str, list[FoundCase]] = defaultdict(list)
    for found in cases:
        named[found.case].append(found)
    return [group[0] if len(group) == 1 else _as_one(group) for _, group in sorted(named.items())]


def _as_one(group: list[FoundCase]) -> FoundCase:
    places = ", ".join(str(found.folder) for found in group)
    problem = f"is there {len(group)} times ({places}); keep one of them"
    return replace(group[0], files={}, problems=(problem,), label_problems=())


def _kind(file: Path, layout: FolderLayout) -> str | None:
    """Which of the case's files this is: a modality, ``seg``, or None where the name tells neither."""
    name = nifti_stem(file) or ""
    if layout is FOLDER_LAYOUTS[0] and ODD_LABELS.get(file.parent.name) == name:
        return SEG
    return next((kind for kind, suffix in layout.suffixes.items() if name.endswith(suffix)), None)


def _sort_files(images: Iterable[Path], layout: FolderLayout) -> dict[str, list[Path]]:
    """Modality or ``seg`` -> files that a layout takes for it."""
    candidates: dict[str, list[Path]] = defaultdict(list)
    for file in images:
        if kind := _kind(file, layout):
            candidates[kind].append(file)
    return candidates


def _read_folder(folder: Path, images: list[Path]) -> FoundCase | None:
    """The case of a folder with a file a modality, or None where no file is one of a case's."""
    sorted_by = [(layout, candidates) for layout in FOLDER_LAYOUTS if (candidates := _sort_files(images, layout))]
    if not sorted_by:
        return None
    with_scans = [(layout, candidates) for layout, candidates in sorted_by if candidates.keys() & set(MODALITIES)]
    layout, candidates = (with_scans or sorted_by)[0]
    case = folder.name
    mixed: tuple[str, ...] = ()
    if len(sorted_by) > 1:
        names = " and ".join(next(file.name for file in images if _kind(file, one)) for one, _ in sorted_by)
        mixed = (f"the folder holds files of two layouts, {names}; keep one set ({folder})",)
    if len(with_scans) > 1:
        return FoundCase(case, layout.labels, {}, folder, mixed)
    if not with_scans:
        expected = f"{case}{layout.suffixes[MODALITIES[0]]}.nii.gz"
        alone = f"{candidates[SEG][0]} has no scan beside it; put {expected} and the others there, or move it away"
        return FoundCase(case, layout.labels, {}, folder, label_problems=(*mixed, alone))
    return _read_files(folder, layout, candidates, images, mixed)


def _read_files(
    folder: Path, layout: FolderLayout, candidates: Mapping[str, list[Path]], images: list[Path], mixed: tuple[str, ...]
) -> FoundCase:
    case = folder.name
    files: dict[str, Path] = {}
    problems: list[str] = []
    label_problems = list(mixed)
    for kind in (*MODALITIES, SEG):
        found, expected = candidates.get(kind, []), f"{case}{layout.suffixes[kind]}"
        own = label_problems if kind == SEG else problems
        if len(found) > 1:
            names = " and ".join(file.name for file in found)
            own.append(f"{kind} has {len(found)} candidates, {names}; keep one of them ({folder})")
        elif found and nifti_stem(found[0]) not in (expected, ODD_LABELS.get(case)):
            own.append(f"{found[0]} is not named after its folder; put {expected}.nii.gz there")
        elif found:
            files[kind] = found[0]
        elif kind != SEG:
            own.append(f"{kind} is missing; {expected}.nii or .nii.gz must be in {folder}")
    # An unlabelled case is allowed, but not one whose label may lie there under another name.
    others = [file.name for file in images if _kind(file, layout) is None]
    if others and SEG not in candidates:
        label_problems.append(
            f"no label is named {case}{layout.suffixes[SEG]}, but {others[0]} is there; name it so if it is the "
            "label, else move it away"
        )
    return FoundCase(case, layout.labels, files, folder, tuple(problems), tuple(label_problems))


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
            cases.append(FoundCase(case, msd.LABEL_TABLE, files, file.parent, label_problems=problems))
    return cases
