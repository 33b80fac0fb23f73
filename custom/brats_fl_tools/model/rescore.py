"""``brats-fl evaluate --rescore``: the same table of masks that somebody else made; no model is needed."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import typer
from numpy.typing import NDArray

from brats_fl.cases.datalists import DATALIST_FILE, read_datalist
from brats_fl.cases.grids import Grid, grids_fault
from brats_fl.cases.regions import labels_to_regions, to_file_labels, to_library_labels
from brats_fl.cases.scans import VolumeReader, read_grid
from brats_fl.constants import LABEL
from brats_fl.errors import CaseError, RunError
from brats_fl.files import appearing
from brats_fl.provenance import hash_file, hash_text
from brats_fl_tools.model.evaluation_folder import (
    describe_evaluation,
    refuse_earlier,
    replace_masks,
    sites_with_cases,
    write_evaluation,
)
from brats_fl_tools.model.found_masks import POSTFIX, MaskedCase, find_masks, refuse_faults
from brats_fl_tools.one_writer import writes
from brats_fl_tools.own_folders import fresh_folder
from brats_fl_tools.runs.folder import MASKS_FOLDER, RUN_FILE

MASK = "mask"
"""What a mask is called among the files of a case, in messages."""

MOST_AT_ONCE = 4
"""Cases in memory, of half a GB each at 240 x 240 x 155."""

Labels = NDArray[np.uint8]


@writes("out")
def rescore_masks(
    masks: Path,
    sites: Path,
    out: Path,
    split: str = "testing",
    labels: str | None = None,
    keep: bool = False,
    force: bool = False,
) -> list[dict[str, Any]]:
    """Score a mask for each case of a split; the rows of the table.

    Args:
        masks: Folder of masks, as ``find_masks`` finds them.
        sites: Folder with ``SITE/datalist.json``.
        out: Folder to write ``evaluation.csv`` and ``evaluation.json`` to.
        split: Whose cases.
        labels: Label convention of the masks; None for each case's own.
        keep: Also write the masks, in each case's own convention, to ``masks/SITE/CASE_seg.nii.gz``.
        force: Replace an earlier evaluation.

    Raises:
        CaseError: A case has no mask or more than one, or a file cannot be used; nothing is written then.
        DataListError, FolderError: As of ``evaluate``.
        RunError: ``out`` is a run's folder, or holds an evaluation and ``force`` is not given.
    """
    masks, sites, out = masks.resolve(), sites.resolve(), out.resolve()
    if (out / RUN_FILE).exists():
        raise RunError(f"{out}: is a run's folder, whose table is of its own model; choose another --out")
    refuse_earlier(out, force)
    counts = sites_with_cases(sites, split, scans=False)
    cases = find_masks(masks, {site: read_datalist(sites / site / DATALIST_FILE).split(split) for site in counts})
    begin = time.perf_counter()
    refuse_faults([fault for case in cases if (fault := grid_fault(case))], "masks must lie on the labels' grids")
    rows = score_masks(cases, split, labels)
    facts = {
        "masks_dir": str(masks),
        "masks_sha256": hash_masks(cases),
        **describe_evaluation(sites, counts, split, begin),
    }
    out.mkdir(parents=True, exist_ok=True)
    replace_masks(out, _write_masks(cases, labels, out / ".evaluation") if keep else {})
    shutil.rmtree(out / ".evaluation", ignore_errors=True)
    write_evaluation(out, facts, as_csv(rows))
    return rows


def grid_fault(case: MaskedCase) -> str | None:
    """What is wrong with the grid of a mask, or of its label, as far as the headers tell; None where nothing is."""
    scans = _files_of(case)
    try:
        fault = grids_fault({name: read_grid(file) for name, file in scans.items()}, scans)
    except CaseError as error:
        return f"{case.case.case} of {case.site}: {error}"
    return f"{case.case.case} of {case.site}: {fault}" if fault else None


def score_masks(cases: Sequence[MaskedCase], split: str, labels: str | None) -> list[dict[str, Any]]:
    """Rows of all cases, in their order; a line a case as it is done.

    Raises:
        CaseError: A file cannot be read, or holds a value that is no label; all such are listed.
    """
    rows, faults = [], []
    workers = min(len(cases), len(os.sched_getaffinity(0)), MOST_AT_ONCE)
    with ThreadPoolExecutor(workers) as pool:
        done = pool.map(partial(_score_or_fault, split=split, labels=labels), cases)
        for number, (case, scored) in enumerate(zip(cases, done, strict=True), start=1):
            if isinstance(scored, str):
                faults.append(scored)
                continue
            rows += scored
            dice = " ".join(f"dice_{row['region']}={row['dice']:.3f}" for row in scored)
            typer.echo(f"{number}/{len(cases)} site={case.site} case={case.case.case} {dice}")
    refuse_faults(faults, "masks must hold labels of their convention")
    return rows


def _score_or_fault(case: MaskedCase, split: str, labels: str | None) -> list[dict[str, Any]] | str:
    """A case's rows, or what is wrong with its files: one bad mask does not hide the next."""
    try:
        return score_mask(case, split, labels)
    except CaseError as error:
        return f"{case.case.case} of {case.site}: {error}"


def score_mask(case: MaskedCase, split: str, labels: str | None) -> list[dict[str, Any]]:
    """Rows of one case.

    Raises:
        CaseError: A file cannot be read, or holds a value that is no label.
    """
    import torch

    from brats_fl.scoring.case_table import case_rows

    mask, reference = ((torch.from_numpy(labels_to_regions(voxels) > 0), grid) for voxels, grid in _read(case, labels))
    spacing_mm = reference[1].spacing_mm.tolist()
    return case_rows(case.case.case, case.site, split, mask[0], reference[0], spacing_mm)


def hash_masks(cases: Sequence[MaskedCase]) -> str:
    """SHA-256 over hospital, case and file of each mask, in alphabetical order: a line each, in sha256sum's manner."""
    lines = [f"{hash_file(case.mask)}  {case.site}/{case.case.case}\n" for case in cases]
    return hash_text("".join(sorted(lines, key=lambda line: line.split("  ", 1)[1])))


def as_csv(rows: Sequence[dict[str, Any]]) -> str:
    """Text of ``evaluation.csv``."""
    from brats_fl.scoring.case_table import format_case_table

    return format_case_table(rows)


def _files_of(case: MaskedCase) -> dict[str, str | Path]:
    return {LABEL: str(case.case.label), MASK: case.mask}


def _read(case: MaskedCase, labels: str | None) -> Iterator[tuple[Labels, Grid]]:
    """Mask and label of a case with the library's values."""
    for name, file in reversed(_files_of(case).items()):
        volume = VolumeReader().read(file)
        table = (labels if name == MASK else None) or case.case.labels
        try:
            yield to_library_labels(volume.voxels, table), volume.grid
        except CaseError as error:
            mend = "; the masks' own convention is told by --labels" if name == MASK else ""
            raise CaseError(f"{name}: {error}{mend} ({file})") from error


def _write_masks(cases: Sequence[MaskedCase], labels: str | None, scratch: Path) -> dict[str, Path]:
    """Site -> folder with its masks in the cases' own conventions."""
    fresh_folder(scratch, "evaluation", force=True)
    folders = {case.site: scratch / case.site / MASKS_FOLDER for case in cases}
    for case in cases:
        folder = folders[case.site]
        folder.mkdir(parents=True, exist_ok=True)
        voxels, grid = next(_read(case, labels))
        image = nib.Nifti1Image(to_file_labels(voxels, case.case.labels), grid.affine)
        with appearing(folder / f"{case.case.case}{POSTFIX}.nii.gz", ending=".nii.gz") as place:
            nib.save(image, place)
    return folders
