"""The page of a segmentation: what failed, the volumes, and each case at its largest predicted tumour."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

import brats_fl
from brats_fl.cases.datalists import Case, scans_of
from brats_fl.cases.regions import to_library_labels
from brats_fl.cases.scans import VolumeReader
from brats_fl.errors import CaseError
from brats_fl.provenance import hash_file
from brats_fl_tools.model.ensemble import digests_of, title
from brats_fl_tools.model.trained import TrainedModel
from brats_fl_tools.model.volumes import SegmentedCase
from brats_fl_tools.pages.pictures import LABEL_COLOURS, LABEL_NAMES, as_png, paint_labels
from brats_fl_tools.pages.templates import page_environment

MOST_PICTURES = 60
"""Cases shown with pictures, 0.3 MB each; the others are in the table."""

SHOWN = {"t2f": "FLAIR", "t1c": "T1c"}
"""Modalities shown, by the names a radiologist knows: the first shows oedema, the second enhancement."""


@dataclass(frozen=True)
class Picture:
    """One slice of a scan, with the mask on it or without."""

    caption: str
    png: str
    """Base64."""


@dataclass(frozen=True)
class CaseSection:
    """The pictures of a case, or why there are none."""

    segmented: SegmentedCase
    pictures: tuple[Picture, ...] = ()
    note: str = ""


def render_page(
    segmented: Sequence[SegmentedCase],
    cases: Mapping[str, Case],
    mask_of: Callable[[str], Path],
    models: Sequence[TrainedModel],
) -> str:
    """Page of a segmentation: one HTML text that needs no other file and must not leave the hospital.

    Args:
        segmented: What became of each case.
        cases: Their scans, by name.
        mask_of: Name of a case -> its mask.
        models: What made them: one, or several by their mean probability.
    """
    with_masks = [case for case in segmented if case.volumes_ml is not None]
    return (
        page_environment()
        .get_template("segment_page.html")
        .render(
            version=brats_fl.__version__,
            made_by=title(models),
            models=digests_of(models) if len(models) > 1 else {models[0].weights.name: hash_file(models[0].weights)},
            segmented=segmented,
            failed=[case for case in segmented if case.outcome.status == "failed"],
            masks=len(with_masks),
            sections=[
                draw_section(case, cases[case.outcome.case], mask_of(case.outcome.case))
                for case in with_masks[:MOST_PICTURES]
            ],
            label_colours={
                LABEL_NAMES[label]: "#{:02x}{:02x}{:02x}".format(*rgb) for label, rgb in LABEL_COLOURS.items()
            },
        )
    )


def draw_section(segmented: SegmentedCase, case: Case, mask: Path) -> CaseSection:
    """Pictures of a case, or a note where a file was taken away in the meantime."""
    try:
        pictures, place = draw_case(case, mask)
    except CaseError as error:
        return CaseSection(segmented, note=f"not shown: {error}")
    return CaseSection(segmented, tuple(pictures), place)


def draw_case(case: Case, mask: Path) -> tuple[list[Picture], str]:
    """Axial slice of each shown modality at the largest predicted tumour, with the mask and without; and where it is.

    Raises:
        CaseError: A file cannot be read.
    """
    reader = VolumeReader()
    volume = reader.read(mask).in_ras()
    labels = to_library_labels(volume.voxels, case.labels)
    areas = np.count_nonzero(labels, axis=(0, 1))
    level = int(np.argmax(areas)) if areas.any() else labels.shape[2] // 2
    spacing_mm = (float(volume.grid.spacing_mm[0]), float(volume.grid.spacing_mm[1]))
    scans = {
        name: reader.read(scans_of(case)[modality]).in_ras().voxels[:, :, level].astype(np.float32)
        for modality, name in SHOWN.items()
    }
    box = _head(np.logical_or.reduce([scan != 0 for scan in scans.values()]))
    pictures = []
    for name, scan in scans.items():
        for kind, shown in (("", np.zeros_like(labels)), (" with the mask", labels)):
            pixels = paint_labels(scan[box], shown[:, :, level][box], None, spacing_mm)
            pictures.append(Picture(f"{name}{kind}", as_png(pixels)))
    where = f"axial slice {level + 1} of {labels.shape[2]}"
    return pictures, where if areas.any() else f"{where}; no tumour was found"


def _head(inside: NDArray[np.bool_]) -> tuple[slice, ...]:
    """Smallest box around what is not background; all of it where there is none."""
    found = ndimage.find_objects(inside.astype(np.uint8))
    return tuple(found[0]) if found else (slice(None), slice(None))
