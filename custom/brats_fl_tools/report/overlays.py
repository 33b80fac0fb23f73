"""Cases as pictures: where prediction and reference agree, where tumour was missed, where there was none."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from brats_fl.cases.datalists import DATALIST_FILE, Case, read_datalist
from brats_fl.cases.regions import to_library_labels
from brats_fl.cases.scans import Volume, VolumeReader, read_volumes
from brats_fl.constants import LABEL, MODALITIES, REGION_LABELS
from brats_fl.errors import BratsFLError, CaseError
from brats_fl_tools.pages.formats import REGION_NAMES, format_count, list_words
from brats_fl_tools.pages.pictures import as_jpeg, paint_agreement, paint_overview, split_agreement, to_grey
from brats_fl_tools.report.case_results import CaseResult
from brats_fl_tools.report.cuts import PLANES, Cut, find_cut, frame_in
from brats_fl_tools.report.run_folder import RunFolder
from brats_fl_tools.runs.folder import MASKS_FOLDER

Array = npt.NDArray[Any]

SHOWN: Final = {"wt": "t2f", "tc": "t1c", "et": "t1c"}
"""Region -> modality that it is drawn on: FLAIR shows oedema, T1c what enhances."""

MODALITY_NAMES: Final = {"t2f": "FLAIR", "t1c": "T1c"}
"""By the names a radiologist knows."""

MOST_CASES: Final = 12
"""With more, the six with the lowest mean Dice, three in the middle and the three with the highest are shown."""

MOST_BYTES: Final = 3_000_000
"""Of all pictures of a page together, as they stand in it: a mail server takes the page, a browser opens it at once."""

LONGEST_SIDE_PX: Final = 240


@dataclass(frozen=True)
class Panel:
    """One picture of a case."""

    title: str
    jpeg: str
    """Base64."""
    alt: str


@dataclass(frozen=True)
class Row:
    """One slice of a case: whole, and enlarged with each region on it."""

    title: str
    panels: tuple[Panel, ...]


@dataclass(frozen=True)
class Overlay:
    """The pictures of one case."""

    role: str
    """``Worst``, ``Typical`` or ``Best``; empty for the others."""
    result: CaseResult
    rows: tuple[Row, ...]
    agreement_ml: Mapping[str, Mapping[str, float]]
    """Region -> hit, miss and false alarm of the whole volume."""

    @property
    def bytes(self) -> int:
        """Of the pictures as they stand in the page."""
        return sum(len(panel.jpeg) for row in self.rows for panel in row.panels)


@dataclass(frozen=True)
class Overlays:
    """What could be shown, and a line on everything that could not."""

    shown: tuple[Overlay, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class OpenCase:
    """A case as it is cut: all arrays of one shape, axes to the right, the front and the head."""

    grey: Mapping[str, Array]
    """Modality -> intensities in [0, 1]."""
    reference: Array
    prediction: Array
    spacing_mm: tuple[float, ...]


def is_in(region: str, labels: Array) -> Array:
    """Whether each voxel of a label map, or of a slice of one, is in a region."""
    return np.isin(labels, REGION_LABELS[region])


def mask_path(run: RunFolder, result: CaseResult) -> Path:
    """Where the predicted mask of a case is, if it was written."""
    return run.path / MASKS_FOLDER / result.site / f"{result.case}_seg.nii.gz"


def masked_cases(run: RunFolder) -> list[CaseResult]:
    """Scored cases of the run's split that have a predicted mask."""
    return [result for result in run.scored(run.split) if mask_path(run, result).is_file()]


def draw_overlays(
    run: RunFolder, sites: Path | None = None, most_bytes: int = MOST_BYTES, worst: int | None = None
) -> Overlays:
    """Pictures of the cases, or of a choice of them where there are many; a note on what is not shown.

    Args:
        run: With masks, and data lists where it says.
        sites: Folder with ``SITE/datalist.json``, where the run's own word on it does not hold here.
        most_bytes: Of all pictures together.
        worst: Show so many, those with the lowest mean Dice, and no others.
    """
    scored = run.scored(run.split)
    masked = masked_cases(run)
    if not masked:
        return Overlays(notes=(_say_no_masks(),))
    notes = []
    if len(masked) < len(scored):
        notes.append(f"Chosen among the {len(masked)} of {len(scored)} cases that have a predicted mask.")
    if worst is None and len(masked) > MOST_CASES:
        notes.append(
            f"Of {len(masked)} cases {MOST_CASES} are shown: the six with the lowest mean Dice, three in the middle "
            "and the three with the highest."
        )
    shown: list[Overlay] = []
    for role, result in _by_importance(choose_cases(masked) if worst is None else choose_worst(masked, worst)):
        try:
            overlay = draw_case(open_result(run, result, sites), role, result)
        except BratsFLError as error:
            notes.append(f"{result.case} of {result.site} is not shown: {error}")
            continue
        if sum(other.bytes for other in shown) + overlay.bytes > most_bytes:
            limit = f"{most_bytes / 1e6:g} MB"
            notes.append(f"Only {format_count(len(shown), 'case')} shown: the pictures of one more would pass {limit}.")
            break
        shown.append(overlay)
    return Overlays(tuple(sorted(shown, key=lambda overlay: _rank(overlay.result))), tuple(notes))


def _say_no_masks() -> str:
    return (
        f"No case is shown: there are no predicted masks ({MASKS_FOLDER}/<site>/<case>_seg.nii.gz); "
        "`brats-fl evaluate` writes them with --masks."
    )


def _rank(result: CaseResult) -> tuple[float, str, str]:
    return result.value("dice", "mean"), result.site, result.case


def choose_cases(results: Sequence[CaseResult]) -> list[tuple[str, CaseResult]]:
    """Cases to show from the lowest mean Dice to the highest, with the role of the first, middle and last.

    Up to ``MOST_CASES`` all are shown. The typical case is the lower median; with two there is none.
    """
    ranked = sorted(results, key=_rank)
    count, middle = len(ranked), (len(ranked) - 1) // 2
    begin = min(max(middle - 1, 6), count - 6)
    many = [*range(6), *range(begin, begin + 3), *range(count - 3, count)]
    roles = {0: "Worst", count - 1: "Best"} if count > 1 else {0: "Only"}
    if count > 2:
        roles[middle] = "Typical"
    return [(roles.get(place, ""), ranked[place]) for place in (range(count) if count <= MOST_CASES else many)]


def choose_worst(results: Sequence[CaseResult], count: int) -> list[tuple[str, CaseResult]]:
    """So many cases with the lowest mean Dice, from the lowest up; all have a role."""
    return [
        ("Among the lowest" if place else "Worst", one) for place, one in enumerate(sorted(results, key=_rank)[:count])
    ]


def _by_importance(chosen: Sequence[tuple[str, CaseResult]]) -> list[tuple[str, CaseResult]]:
    """Those with a role first: where the bytes do not reach for all, these are there."""
    return sorted(chosen, key=lambda entry: not entry[0])


def draw_case(case: OpenCase, role: str, result: CaseResult) -> Overlay:
    """Its pictures, and how much of each region was hit, missed and wrongly marked."""
    cell_ml = float(np.prod(case.spacing_mm)) / 1000.0
    agreement_ml = {
        region: {
            name: float(np.count_nonzero(part)) * cell_ml
            for name, part in split_agreement(is_in(region, case.reference), is_in(region, case.prediction)).items()
        }
        for region in SHOWN
    }
    rows = tuple(_draw_row(case, title, cut) for title, cut in _cuts(case))
    return Overlay(role, result, rows, agreement_ml)


def _cuts(case: OpenCase) -> Iterator[tuple[str, Cut]]:
    """Largest error and largest tumour in each plane; one slice where that is the same, and no error without one."""
    wrong, tumour = case.reference != case.prediction, (case.reference > 0) | (case.prediction > 0)
    largest = case.reference > 0
    for plane in PLANES:
        of_tumour = find_cut(largest, tumour, plane, case.spacing_mm)
        of_error = find_cut(wrong, tumour, plane, case.spacing_mm)
        if not largest.any():
            yield "Largest error, no tumour in the reference" if wrong.any() else "No tumour", of_error
        elif not wrong.any():
            yield "Largest tumour", of_tumour
        elif of_error == of_tumour:
            yield "Largest error and largest tumour", of_tumour
        else:
            yield "Largest error", of_error
            yield "Largest tumour", of_tumour


def _draw_row(case: OpenCase, title: str, cut: Cut) -> Row:
    spacing_mm, place = cut.spacing_mm(case.spacing_mm), f"{cut.plane} slice {cut.level + 1}"
    flair = MODALITY_NAMES[SHOWN["wt"]]
    scan = cut.through(case.grey[SHOWN["wt"]])
    head, frame = frame_in(cut, scan, spacing_mm)
    whole = paint_overview(scan[head], frame, spacing_mm, LONGEST_SIDE_PX)
    panels = [Panel(flair, as_jpeg(whole), f"{flair} scan, {place}, with a frame around what is enlarged beside it")]
    labels = [cut.through(labels)[cut.box] for labels in (case.reference, case.prediction)]
    for region, modality in SHOWN.items():
        reference, prediction = (is_in(region, part) for part in labels)
        grey = cut.through(case.grey[modality])[cut.box]
        pixels = paint_agreement(grey, reference, prediction, spacing_mm, LONGEST_SIDE_PX)
        name = MODALITY_NAMES[modality]
        alt = f"{name} scan, {place}, {REGION_NAMES[region]}: {_areas(reference, prediction, spacing_mm)}"
        panels.append(Panel(f"{name}, {REGION_NAMES[region]}", as_jpeg(pixels), alt))
    levels = case.reference.shape[PLANES[cut.plane]]
    return Row(f"{title}: {place} of {levels}", tuple(panels))


def _areas(reference: Array, prediction: Array, spacing_mm: tuple[float, float]) -> str:
    cell = spacing_mm[0] * spacing_mm[1] / 100.0  # cm²
    parts = split_agreement(reference, prediction)
    return list_words([f"{name} {np.count_nonzero(part) * cell:.1f} cm²" for name, part in parts.items()])


def _find_case(run: RunFolder, result: CaseResult, sites: Path | None) -> Case:
    told = [sites, run.evaluation.get("sites_dir"), run.info.get("sites_dir")]
    folders = [Path(folder) for folder in told if folder]
    if not folders:
        raise CaseError("nothing here says where the scans are; give --sites SITES")
    # A relative folder is meant from where the command was started, or from the run folder.
    places = [base / folder / result.site / DATALIST_FILE for folder in folders for base in (Path(), run.path)]
    path = next((place for place in places if place.is_file()), None)
    if path is None:
        raise CaseError(f"no data list of {result.site} in {folders[0]}; give --sites SITES where they are now")
    for case in read_datalist(path).split(result.split):
        if case.case == result.case:
            return case
    raise CaseError(f"it is not among the {result.split} cases of {path}")


def open_result(run: RunFolder, result: CaseResult, sites: Path | None) -> OpenCase:
    """The case of a result, as ``open_case``; ``CaseError`` where no data list has it."""
    return open_case(_find_case(run, result, sites), mask_path(run, result))


def open_case(case: Case, mask: Path) -> OpenCase:
    """Scans, label and predicted mask of a case.

    Raises:
        CaseError: A file is missing or unreadable, or the mask does not sit on the label's grid.
    """
    if case.label is None:
        raise CaseError("its data list names no label")
    names = dict.fromkeys(SHOWN.values())
    files = {LABEL: case.label, **{name: case.image[MODALITIES.index(name)] for name in names}}
    volumes = {name: volume.in_ras() for name, volume in read_volumes(case.case, files)}
    predicted = VolumeReader().read(mask).in_ras()
    if not predicted.grid.is_same(volumes[LABEL].grid):
        raise CaseError(f"the mask {mask} has another grid than the label; evaluate the case again")
    return OpenCase(
        grey={name: to_grey(np.asarray(volumes[name].voxels, dtype=np.float32)) for name in names},
        reference=_as_labels(volumes[LABEL], case, case.label),
        prediction=_as_labels(predicted, case, mask),
        spacing_mm=tuple(volumes[LABEL].grid.spacing_mm.tolist()),
    )


def _as_labels(volume: Volume, case: Case, file: str | Path) -> Array:
    """uint8 volume with the library's label values, from a file in the case's convention."""
    try:
        return to_library_labels(volume.voxels, case.labels)
    except CaseError as error:
        raise CaseError(f"{case.case}: {error} ({file})") from None
