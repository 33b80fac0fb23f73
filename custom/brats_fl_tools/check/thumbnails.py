"""Pictures of a case with findings: one slice of every scan, the label drawn on it, as far as they can be read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brats_fl.cases.datalists import Case, scans_of
from brats_fl.cases.regions import to_library_labels
from brats_fl.cases.scans import Volume, VolumeReader
from brats_fl.constants import ED, LABEL, MODALITIES
from brats_fl.errors import CaseError, ScanError
from brats_fl_tools.pages.pictures import as_png, paint_labels

Array = NDArray[Any]


@dataclass(frozen=True)
class Thumbnail:
    """One scan of a case: a picture, or why there is none."""

    modality: str
    png: str
    """Base64; empty where there is none."""
    text: str
    """What the picture shows, or why there is none."""


def draw_thumbnails(case: Case) -> list[Thumbnail]:
    """One axial slice of each scan with the label on it, where the label is largest, else in the middle."""
    reader = VolumeReader()
    volumes = {name: _read(reader, scan) for name, scan in scans_of(case).items()}
    label = volumes.pop(LABEL, None)
    parts = draw_parts(label.voxels, case.labels) if isinstance(label, Volume) else None
    height = find_height(parts)
    thumbnails = []
    for name in MODALITIES:
        volume = volumes[name]
        if isinstance(volume, Volume):
            thumbnails.append(draw_one(name, volume, parts, height))
        else:
            thumbnails.append(Thumbnail(name, "", volume))
    return thumbnails


def _read(reader: VolumeReader, scan: str) -> Volume | str:
    """A scan with its axes nearest to right, anterior, superior, or why it cannot be shown."""
    try:
        return reader.read(scan).in_ras()
    except ScanError as error:
        return error.found


def draw_parts(label: Array, table: str) -> Array:
    """Library values of a label; what its convention does not know is drawn as oedema."""
    try:
        return to_library_labels(label, table)
    except CaseError:
        return np.where(np.nan_to_num(label) != 0, ED, 0).astype(np.uint8)


def find_height(parts: Array | None) -> float:
    """Where to cut, as a share of the volume's height: through the most label, else a bit above the middle."""
    if parts is None or not parts.any():
        return 0.5
    return float(np.argmax(np.count_nonzero(parts, axis=(0, 1)))) / parts.shape[2]


def draw_one(name: str, volume: Volume, parts: Array | None, height: float) -> Thumbnail:
    """The slice of a scan at a height, with the label on it where both have one shape."""
    voxels, spacing_mm = volume.voxels, volume.grid.spacing_mm.tolist()
    level = min(int(height * voxels.shape[2]), voxels.shape[2] - 1)
    scan = np.nan_to_num(voxels[:, :, level].astype(np.float32), posinf=0, neginf=0)
    fits = parts is not None and parts.shape == voxels.shape
    labels = parts[:, :, level] if parts is not None and fits else np.zeros(scan.shape, np.uint8)
    drawn = "with the label drawn on it" if fits else "without the label, which has another shape or is missing"
    picture = as_png(paint_labels(scan, labels, None, (spacing_mm[0], spacing_mm[1])))
    return Thumbnail(name, picture, f"axial slice {level + 1} of {voxels.shape[2]} {drawn}")
