"""Where the cases of a folder are, in the layouts of published data sets. No file is opened but ``dataset.json``.

The import of a download and the bundles' inference find cases by this module alone, so that what the one refuses the
other does not segment. What is ambiguous or missing becomes a problem of the case; nothing is guessed.
"""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from brats_fl.cases import bids, msd, nnunet
from brats_fl.cases.found_cases import SEG as SEG
from brats_fl.cases.found_cases import Findings as Findings
from brats_fl.cases.found_cases import FoundCase as FoundCase
from brats_fl.cases.found_cases import ambiguous, choose_files, label_alone, refuse_odd_names
from brats_fl.cases.found_cases import closed_cases as closed_cases
from brats_fl.cases.found_cases import join_namesakes as join_namesakes
from brats_fl.cases.namings import BRATS_2018, NAMINGS, Naming, split_name
from brats_fl.cases.nifti import nifti_stem
from brats_fl.constants import MODALITIES
from brats_fl.files import is_passed_over

ORIGIN_FILES = ("name_mapping.csv", "partitioning_1.csv")
"""Tables beside the cases that tell institutions: BraTS's, and FeTS's natural partitioning."""

ODD_LABELS = {"BraTS20_Training_355": "W39_1998.09.19_Segm"}
"""The one label of BraTS 2020 that is not named after its case, without its ending."""

LOOKED_FOR = (
    "BraTS 2018 to 2021 and FeTS, <case>_{t1,t1ce,t2,flair,seg}.nii[.gz]; BraTS 2023 and later, "
    "<case>-{t1n,t1c,t2w,t2f,seg}.nii[.gz]; both a folder a case or many in one; UCSF-PDGM; UPENN-GBM; BIDS, "
    "sub-<name>/anat; nnU-Net's raw data and MSD Task01, dataset.json with imagesTr, labelsTr, imagesTs"
)

DATASET_FOLDERS = (msd.IMAGES, msd.LABELS, msd.TEST_IMAGES, nnunet.TEST_LABELS)


class NamedFile(NamedTuple):
    """A file whose name tells what it is."""

    file: Path
    naming: Naming
    case: str
    kind: str
    """A modality, or ``seg``."""


def search(root: Path) -> Findings:
    """Every case beneath a folder, sorted by name; namesakes are left to ``join_namesakes``.

    Raises:
        CaseError: A ``dataset.json`` beside ``imagesTr`` does not tell which image is which modality.
    """
    cases: list[FoundCase] = []
    origin_files: list[Path] = []
    closed: list[OSError] = []
    images: dict[Path, list[Path]] = defaultdict(list)
    for folder, files in walk(root, closed):
        origin_files += [file for file in files if file.name in ORIGIN_FILES]
        if found := _read_dataset(folder):
            cases += found
        if folder.name in DATASET_FOLDERS and _is_dataset(folder.parent):
            continue
        # Kaggle unpacks x.nii.gz to x.nii/<another name>.nii: such a folder stands for a file.
        home = folder.parent if nifti_stem(folder) is not None and folder != root else folder
        images[home] += [file for file in files if nifti_stem(file) is not None]
    by_name, strangers = _read_images(images)
    cases = refuse_odd_names([*cases, *by_name, *closed_cases(closed)])
    return Findings(tuple(sorted(cases, key=lambda found: found.case)), tuple(origin_files), tuple(strangers))


def _is_dataset(folder: Path) -> bool:
    return nnunet.is_nnunet(folder) or msd.is_msd(folder)


def _read_dataset(folder: Path) -> list[FoundCase]:
    if nnunet.is_nnunet(folder):
        return nnunet.read_cases(folder)
    return _read_msd(folder) if msd.is_msd(folder) else []


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
        kept = [sub for sub in subfolders if not is_passed_over(sub)]
        # A folder has its own name rather than that of a link beside it.
        subfolders[:] = sorted(kept, key=lambda sub: (Path(name, sub).is_symlink(), sub))
        # A Mac's archives hold a shadow ._<file> of every file.
        yield Path(name), [Path(name, file) for file in sorted(files) if not is_passed_over(file)]


def stem_of(file: Path) -> str:
    """Name of a NIfTI file without its ending; of one in a folder that is named like a file, the folder's."""
    return nifti_stem(file.parent) or nifti_stem(file) or file.name


def _read_images(images: Mapping[Path, list[Path]]) -> tuple[list[FoundCase], list[Path]]:
    """The cases of files that tell by their names what they are, and all other files."""
    cases: list[FoundCase] = []
    scattered: list[NamedFile] = []
    of_bids: list[Path] = []
    strangers: list[Path] = []
    for folder, files in images.items():
        named = _named(files, folder)
        apart = [one for one in named if one.naming.scattered]
        scattered += apart
        if not any(one.kind in MODALITIES for one in named):
            taken = [file for file in files if bids.read_name(stem_of(file))]
            of_bids += taken
            named = [one for one in named if one.file not in taken]
            files = [file for file in files if file not in taken]
        here = [one for one in named if not one.naming.scattered]
        others = [file for file in files if file not in {one.file for one in named}]
        found, left = _read_folder(folder, here, others) if here else ([], others)
        cases += found
        strangers += left
    joined, left = _read_scattered(scattered)
    return [*cases, *joined, *bids.read_cases(of_bids, stem_of)], [*strangers, *left]


def _named(files: Iterable[Path], folder: Path) -> list[NamedFile]:
    """The files of a folder whose names tell what they are, whatever the capitals of a case that is whole so."""
    published = {one.file: one for file in files if (one := _name(file, folder, str))}
    others = [file for file in files if not bids.read_name(stem_of(file))]
    spelt_otherwise = [one for file in others if (one := _name(file, folder, str.lower))]
    kinds: dict[str, set[str]] = defaultdict(set)
    for one in spelt_otherwise:
        kinds[one.case].add(one.kind)
    whole = {one.file: one for one in spelt_otherwise if kinds[one.case] >= set(MODALITIES)}
    return [*{**whole, **published}.values()]


def _name(file: Path, folder: Path, spelt: Callable[[str], str]) -> NamedFile | None:
    stem = stem_of(file)
    if ODD_LABELS.get(folder.name) == stem:
        return NamedFile(file, BRATS_2018, folder.name, SEG)
    parts = split_name(stem, spelt)
    return NamedFile(file, *parts) if parts else None


def _read_folder(
    folder: Path, named: Sequence[NamedFile], others: Sequence[Path]
) -> tuple[list[FoundCase], Sequence[Path]]:
    """The cases of one folder, and files that belong to none.

    A folder that is named like a case, if only by its digits, holds that case alone; any other may hold many.
    """
    groups: dict[str, list[NamedFile]] = defaultdict(list)
    for one in named:
        groups[one.case].append(one)
    own = next((folder.name.removesuffix(naming.folder_ending) for naming in NAMINGS if _ends(folder, naming)), "")
    own = own or folder.name
    if own in groups or any(_without_digits(own) == _without_digits(case) for case in groups):
        return [_read_case(own, folder, named, others)], []
    if not any(one.kind in MODALITIES for one in named):
        first = named[0]
        alone = label_alone(first.file, f"{first.naming.expected(first.case, MODALITIES[0])}.nii.gz")
        return [FoundCase(folder.name, first.naming.labels, {}, folder, label_problems=(alone,))], others
    # The longest name first: P_1_2_mask.nii belongs to P_1_2 and not to P_1.
    owner = {file: _owner(file, sorted(groups, key=len, reverse=True)) for file in others}
    cases = [
        _read_case(case, folder, group, [file for file in others if owner[file] == case])
        for case, group in groups.items()
    ]
    return cases, [file for file in others if owner[file] is None]


def _ends(folder: Path, naming: Naming) -> bool:
    return bool(naming.folder_ending) and folder.name.endswith(naming.folder_ending)


def _without_digits(name: str) -> str | None:
    """A name with every number replaced; None where it has none, and is like no other."""
    return re.sub(r"\d+", "0", name) if re.search(r"\d", name) else None


def _owner(file: Path, cases: Iterable[str]) -> str | None:
    return next((case for case in cases if re.match(re.escape(case) + r"[^A-Za-z0-9]", stem_of(file))), None)


def _read_case(case: str, folder: Path, named: Sequence[NamedFile], others: Sequence[Path]) -> FoundCase:
    by_naming: dict[Naming, list[NamedFile]] = defaultdict(list)
    for one in sorted(named, key=lambda one: NAMINGS.index(one.naming)):
        by_naming[one.naming].append(one)
    with_scans = [naming for naming, files in by_naming.items() if any(one.kind in MODALITIES for one in files)]
    naming = (with_scans or list(by_naming))[0]
    mixed: list[str] = []
    if len(by_naming) > 1:
        names = " and ".join(files[0].file.name for files in by_naming.values())
        mixed = [f"the folder holds files of two layouts, {names}; keep one set ({folder})"]
    if len(with_scans) > 1:
        return FoundCase(case, naming.labels, {}, folder, tuple(mixed))
    if not with_scans:
        alone = label_alone(named[0].file, f"{naming.expected(case, MODALITIES[0])}.nii.gz")
        return FoundCase(case, naming.labels, {}, folder, label_problems=(*mixed, alone))
    found = _choose(case, naming, by_naming[naming], folder)
    return _with_problems(found, mixed, [] if naming.has_others or SEG in found.files else others, naming)


def _choose(case: str, naming: Naming, named: Sequence[NamedFile], folder: Path) -> FoundCase:
    candidates: dict[str, list[Path]] = defaultdict(list)
    for one in named:
        candidates[one.kind].append(one.file)
    files, problems, label_problems = choose_files(
        candidates, lambda kind: f"{naming.expected(case, kind)}.nii or .nii.gz must be in {folder}", str(folder)
    )
    for one in named:
        if one.case != case and files.get(one.kind) == one.file:
            del files[one.kind]
            own = label_problems if one.kind == SEG else problems
            own.append(f"{one.file} is not named after its folder; put {naming.expected(case, one.kind)}.nii.gz there")
    return FoundCase(
        case=case,
        labels=naming.labels,
        files=files,
        folder=folder,
        problems=tuple(problems),
        label_problems=tuple(label_problems),
        question=naming.question,
        candidates=ambiguous(candidates),
    )


def _with_problems(found: FoundCase, mixed: Sequence[str], others: Sequence[Path], naming: Naming) -> FoundCase:
    """The case with what is wrong with its label: an unlabelled one is allowed, but not where its label may lie there
    under another name."""
    problems = [*mixed, *found.label_problems]
    if others and not found.label_problems:
        problems.append(
            f"no label is named {naming.expected(found.case, SEG)}, but {others[0].name} is there; name it so if it is "
            "the label, else move it away"
        )
    return replace(found, label_problems=tuple(problems))


def _read_scattered(named: Iterable[NamedFile]) -> tuple[list[FoundCase], list[Path]]:
    """Cases of which labels and scans lie in trees of their own, and labels without scans: who took some scans of the
    collection may have taken all labels."""
    groups: dict[str, list[NamedFile]] = defaultdict(list)
    for one in named:
        groups[one.case].append(one)
    cases: list[FoundCase] = []
    alone: list[Path] = []
    for case, group in groups.items():
        if scans := [one.file for one in group if one.kind in MODALITIES]:
            cases.append(_choose(case, group[0].naming, group, scans[0].parent))
        else:
            alone += [one.file for one in group]
    return cases, alone


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
