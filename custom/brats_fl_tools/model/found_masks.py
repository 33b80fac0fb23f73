"""Masks of somebody else's making, found by their names: those that this command gives its own, or the case's alone."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import typer

from brats_fl.cases.datalists import Case
from brats_fl.cases.nifti import nifti_stem
from brats_fl.errors import CaseError, FolderError
from brats_fl.files import is_passed_over

POSTFIX: Final = "_seg"
MOST_SHOWN: Final = 5


@dataclass(frozen=True)
class MaskedCase:
    """A case and the file that holds its mask."""

    site: str
    case: Case
    mask: Path


def find_masks(folder: Path, cases: Mapping[str, Sequence[Case]]) -> list[MaskedCase]:
    """The mask of every case, in the order of the cases.

    A mask is ``CASE_seg`` or ``CASE``, ``.nii`` or ``.nii.gz``, in the folder or in the folder ``SITE`` within it.
    Files of no case are told of and left alone.

    Args:
        folder: Where the masks are.
        cases: Site -> its cases.

    Raises:
        FolderError: It is no folder.
        CaseError: A case has no mask or more than one, or a mask is of more than one case; all such are listed.
    """
    if not folder.is_dir():
        raise FolderError(f"{folder}: is no folder; --rescore names a folder with (SITE/)CASE{POSTFIX}.nii.gz")
    files = _files_by_name(folder, cases)
    found, faults, used = [], [], Counter[Path]()
    for site, case in ((site, case) for site, of_site in cases.items() for case in of_site):
        masks = [
            file for where in (site, "") for name in (case.case + POSTFIX, case.case) for file in files[where, name]
        ]
        used.update(masks)
        if len(masks) == 1:
            found.append(MaskedCase(site, case, masks[0]))
        elif not masks:
            faults.append(
                f"{case.case} of {site} has no mask: neither {case.case}{POSTFIX}.nii.gz nor {case.case}.nii.gz"
            )
        else:
            faults.append(f"{case.case} of {site} has {len(masks)} masks: {', '.join(map(str, masks))}; keep one")
    shared = [f"{file} is the mask of {times} cases; put it in SITE/" for file, times in used.items() if times > 1]
    refuse_faults([*faults, *shared], f"{folder}: a mask for each case is needed, in it or in SITE/ within it")
    if unused := sum(map(len, files.values())) - len(used):
        typer.echo(f"note: {unused} files of {folder} are masks of no case of the split, and left alone", err=True)
    return found


def refuse_faults(faults: Sequence[str], rule: str) -> None:
    """Raise ``CaseError`` with the rule and the first few faults, if there are any."""
    if not faults:
        return
    more = f"\nand {len(faults) - MOST_SHOWN} more" if len(faults) > MOST_SHOWN else ""
    raise CaseError("\n".join((f"{rule}:", *faults[:MOST_SHOWN])) + more)


def _files_by_name(folder: Path, sites: Mapping[str, Sequence[Case]]) -> dict[tuple[str, str], list[Path]]:
    """(site or "", name without ending) -> NIfTI files."""
    files: dict[tuple[str, str], list[Path]] = defaultdict(list)
    for where in ("", *sites):
        for file in _nifti_files(folder / where):
            files[where, nifti_stem(file) or ""].append(file)
    return files


def _nifti_files(folder: Path) -> Iterator[Path]:
    if folder.is_dir():
        for file in sorted(folder.iterdir()):
            if file.is_file() and not is_passed_over(file.name) and nifti_stem(file):
                yield file
