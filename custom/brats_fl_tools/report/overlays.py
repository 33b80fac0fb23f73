"""Worst, typical and best test case as pictures: the scans with reference and prediction drawn on them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from brats_fl.cases.datalists import DATALIST_FILE, Case, read_datalist
from brats_fl.cases.regions import to_library_labels
from brats_fl.cases.scans import Volume, VolumeReader, read_volumes
from brats_fl.constants import LABEL, MODALITIES
from brats_fl.errors import BratsFLError, CaseError
from brats_fl_tools.pages.pictures import LABEL_NAMES, as_png, paint_labels
from brats_fl_tools.report.metrics import TEST_SPLIT
from brats_fl_tools.report.run_folder import CaseResult, RunFolder
from brats_fl_tools.runs.folder import MASKS_FOLDER

Array = npt.NDArray[Any]

SHOWN = {"t2f": "FLAIR", "t1c": "T1c"}
"""Modalities shown, by the names a radiologist knows: the first shows oedema, the second enhancement."""

MARGIN_MM = 6.0


@dataclass(frozen=True)
class Panel:
    """One picture of a case."""

    modality: str
    kind: str
    png: str
    """Base64."""
    alt: str


@dataclass(frozen=True)
class Overlay:
    """The pictures of one case, side by side."""

    role: str
    result: CaseResult
    place: str
    panels: tuple[Panel, ...]


@dataclass(frozen=True)
class Overlays:
    """What could be shown, and a line on everything that could not."""

    shown: tuple[Overlay, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Slice:
    """A cut through a case: arrays of one shape, first axis to the right, second to the front."""

    scans: dict[str, Array]
    reference: Array
    prediction: Array
    spacing_mm: tuple[float, float]
    place: str


def mask_path(run: RunFolder, result: CaseResult) -> Path:
    """Where the predicted mask of a case is, if it was written."""
    return run.path / MASKS_FOLDER / result.site / f"{result.case}_seg.nii.gz"


def draw_overlays(run: RunFolder) -> Overlays:
    """Pictures of the cases with the lowest, middle and highest mean Dice; a note on what is not shown."""
    scored = run.scored(TEST_SPLIT)
    masked = [result for result in scored if mask_path(run, result).is_file()]
    if not masked:
        where = f"{MASKS_FOLDER}/<site>/<case>_seg.nii.gz"
        return Overlays(notes=(f"No case is shown: the run has no predicted masks ({where}).",))
    notes = []
    if len(masked) < len(scored):
        notes.append(f"Chosen among the {len(masked)} of {len(scored)} test cases that have a predicted mask.")
    shown = []
    for role, result in _choose(masked):
        try:
            shown.append(_draw(run, role, result))
        except BratsFLError as error:
            notes.append(f"The {role.lower()} case, {result.case} of {result.site}, is not shown: {error}")
    return Overlays(tuple(shown), tuple(notes))


def _choose(results: Sequence[CaseResult]) -> list[tuple[str, CaseResult]]:
    """Worst, typical (the lower median) and best by mean Dice; fewer with fewer than three cases."""
    ranked = sorted(results, key=lambda result: (result.value("dice", "mean"), result.site, result.case))
    if len(ranked) == 1:
        return [("Only", ranked[0])]
    typical = [("Typical", ranked[(len(ranked) - 1) // 2])] if len(ranked) > 2 else []
    return [("Worst", ranked[0]), *typical, ("Best", ranked[-1])]


def _draw(run: RunFolder, role: str, result: CaseResult) -> Overlay:
    cut = read_slice(_find_case(run, result), mask_path(run, result))
    panels = []
    for modality, name in SHOWN.items():
        for kind, labels, outline in (
            ("reference", cut.reference, None),
            ("prediction", cut.prediction, cut.reference > 0),
        ):
            alt = f"{name} scan, axial slice, with the {kind} drawn on it: {_areas(labels, cut.spacing_mm)}"
            pixels = paint_labels(cut.scans[modality], labels, outline, cut.spacing_mm)
            panels.append(Panel(name, kind, as_png(pixels), alt))
    return Overlay(role, result, cut.place, tuple(panels))


def _areas(labels: Array, spacing_mm: tuple[float, float]) -> str:
    cell = spacing_mm[0] * spacing_mm[1] / 100.0  # cm²
    return ", ".join(f"{name} {np.sum(labels == label) * cell:.1f} cm²" for label, name in LABEL_NAMES.items())


def _find_case(run: RunFolder, result: CaseResult) -> Case:
    folder = run.info.get("sites_dir")
    if not folder:
        raise CaseError("run.json does not say where the scans are (sites_dir)")
    # A relative folder is meant from where the run was started, or from the run folder.
    places = [base / str(folder) / result.site / DATALIST_FILE for base in (Path(), run.path)]
    path = next((place for place in places if place.is_file()), places[0])
    for case in read_datalist(path).testing:
        if case.case == result.case:
            return case
    raise CaseError(f"it is not among the testing cases of {path}")


def read_slice(case: Case, mask: Path) -> Slice:
    """Axial slice through the largest reference tumour area, cropped to the head.

    Raises:
        CaseError: A file is missing or unreadable, or the mask does not sit on the label's grid.
    """
    if case.label is None:
        raise CaseError("its data list names no label")
    files = {LABEL: case.label, **{name: case.image[MODALITIES.index(name)] for name in SHOWN}}
    volumes = {name: volume.in_ras() for name, volume in read_volumes(case.case, files)}
    predicted = VolumeReader().read(mask).in_ras()
    if not predicted.grid.is_same(volumes[LABEL].grid):
        raise CaseError(f"the mask {mask} has another grid than the label; evaluate the case again")
    reference, prediction = _as_labels(volumes[LABEL], case, case.label), _as_labels(predicted, case, mask)
    tumour = reference if reference.any() else prediction
    level = int(np.argmax(np.count_nonzero(tumour, axis=(0, 1))))
    scans = {name: np.asarray(volumes[name].voxels[:, :, level], dtype=np.float32) for name in SHOWN}
    spacing_mm = tuple(volumes[LABEL].grid.spacing_mm.tolist())
    box = _head(np.maximum.reduce([np.abs(scan) for scan in scans.values()]), spacing_mm[:2])
    return Slice(
        scans={modality: scan[box] for modality, scan in scans.items()},
        reference=reference[:, :, level][box],
        prediction=prediction[:, :, level][box],
        spacing_mm=(spacing_mm[0], spacing_mm[1]),
        place=f"axial slice {level + 1} of {reference.shape[2]}",
    )


def _as_labels(volume: Volume, case: Case, file: str | Path) -> Array:
    """uint8 volume with the library's label values, from a file in the case's convention."""
    try:
        return to_library_labels(volume.voxels, case.labels)
    except CaseError as error:
        raise CaseError(f"{case.case}: {error} ({file})") from None


def _head(scan: Array, spacing_mm: Sequence[float]) -> tuple[slice, slice]:
    """Bounding box of the voxels that are not background, with a margin."""
    inside = scan > 0
    if not inside.any():
        return slice(None), slice(None)
    box = []
    for axis in range(2):
        where = np.flatnonzero(inside.any(axis=1 - axis))
        margin = int(np.ceil(MARGIN_MM / spacing_mm[axis]))
        box.append(slice(max(0, int(where[0]) - margin), int(where[-1]) + margin + 1))
    return box[0], box[1]
