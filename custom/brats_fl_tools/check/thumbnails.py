"""Pictures of a case with findings: one slice of every scan, the label drawn on it, as far as they can be read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from brats_fl.cases.datalists import Case
from brats_fl.cases.scans import split_volume
from brats_fl.constants import ED, MODALITIES
from brats_fl.gate.headers import LABEL, READ_ERRORS, scans_of
from brats_fl.gate.labels import as_library_labels
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
    volumes = {name: read_volume(scan) for name, scan in scans_of(case).items()}
    label = volumes.pop(LABEL, None)
    parts = None if label is None or isinstance(label, str) else draw_parts(label[0], case.labels)
    height = find_height(parts)
    thumbnails = []
    for name in MODALITIES:
        volume = volumes[name]
        if isinstance(volume, str):
            thumbnails.append(Thumbnail(name, "", volume))
        else:
            thumbnails.append(draw_one(name, *volume, parts, height))
    return thumbnails


def read_volume(scan: str) -> tuple[Array, tuple[float, ...]] | str:
    """Voxels nearest to right-anterior-superior and their size in mm, or why they cannot be shown."""
    file, number = split_volume(scan)
    try:
        image = nib.load(file)
        if number is not None:
            image = image.slicer[..., number : number + 1]
            image = nib.Nifti1Image(np.asanyarray(image.dataobj)[..., 0], image.affine)
        if len(image.shape) != 3:
            return f"has shape {image.shape}"
        canonical = nib.as_closest_canonical(image)
        return np.asanyarray(canonical.dataobj), tuple(float(size) for size in canonical.header.get_zooms())
    except READ_ERRORS as error:
        return f"cannot be read ({type(error).__name__})"


def draw_parts(label: Array, table: str) -> Array:
    """Library values of a label; what its convention does not know is drawn as oedema."""
    parts = as_library_labels(label, table)
    return np.where(np.nan_to_num(label) != 0, ED, 0).astype(np.uint8) if parts is None else parts


def find_height(parts: Array | None) -> float:
    """Where to cut, as a share of the volume's height: through the most label, else a bit above the middle."""
    if parts is None or not parts.any():
        return 0.5
    return float(np.argmax(np.count_nonzero(parts, axis=(0, 1)))) / parts.shape[2]


def draw_one(name: str, voxels: Array, spacing_mm: tuple[float, ...], parts: Array | None, height: float) -> Thumbnail:
    """The slice of a scan at a height, with the label on it where both have one shape."""
    level = min(int(height * voxels.shape[2]), voxels.shape[2] - 1)
    scan = np.nan_to_num(voxels[:, :, level].astype(np.float32), posinf=0, neginf=0)
    fits = parts is not None and parts.shape == voxels.shape
    labels = parts[:, :, level] if parts is not None and fits else np.zeros(scan.shape, np.uint8)
    drawn = "with the label drawn on it" if fits else "without the label, which has another shape or is missing"
    picture = as_png(paint_labels(scan, labels, None, (spacing_mm[0], spacing_mm[1])))
    return Thumbnail(name, picture, f"axial slice {level + 1} of {voxels.shape[2]} {drawn}")
