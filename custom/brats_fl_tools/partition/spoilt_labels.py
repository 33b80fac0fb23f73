"""Labels spoilt on purpose, to try whether a study names the hospital that trains on them.

What is spoilt is what the hospital trains and validates on; its test cases keep their labels, so that every score of a
study is one against the truth. Whatever trains reads a data list as any other and knows nothing of it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Final, Literal

import nibabel
import numpy as np
from numpy.typing import NDArray

from brats_fl.cases.datalists import Case, DataList
from brats_fl.cases.nifti import in_scanner_space
from brats_fl.cases.regions import to_file_labels, to_library_labels
from brats_fl.cases.scans import Volume, read_volumes, split_volume
from brats_fl.constants import ED, ET, LABEL
from brats_fl.files import appearing

ALTERED_LABELS_FOLDER: Final = "altered-labels"

Spoiling = Literal["mirrored", "swapped", "noisy-boundary"]

NOISE_MM: Final = 4.0
"""How far, along each axis, a voxel of a noisy boundary may have its label from. Two readers differ by about 1 mm."""

MEANINGS: Final = MappingProxyType(
    {
        "mirrored": "left and right mirrored",
        "swapped": "enhancing tumour and oedema swapped",
        "noisy-boundary": f"noise of {NOISE_MM:g} mm in the boundaries",
    }
)
"""For a reader."""

Labels = NDArray[np.uint8]


def mirror(label: Labels, affine: NDArray[np.float64]) -> Labels:
    """A label map turned about the axis of the volume that is nearest to left and right.

    Args:
        label: (H, W, D).
        affine: (4, 4), from voxels to mm, right, anterior, superior.
    """
    return np.flip(label, int(np.flatnonzero(nibabel.io_orientation(affine)[:, 0] == 0)[0]))


def swap_enhancing_and_oedema(label: Labels) -> Labels:
    """A label map of the library's values with the two in each other's place."""
    return np.where(label == ET, ED, np.where(label == ED, ET, label)).astype(np.uint8)


def jitter_boundaries(label: Labels, reach: tuple[int, ...], seed: int) -> Labels:
    """A label map in which every voxel has the label of another one nearby, so that only boundaries change.

    Args:
        label: (H, W, D).
        reach: Of each axis, how many voxels away that one may be; it is drawn evenly, the edge of the volume at most.
        seed: Of the draw.
    """
    draw = np.random.RandomState(seed)  # its streams are frozen, those of default_rng are not (NEP 19)
    there = tuple(
        np.clip(place + draw.randint(-far, far + 1, label.shape), 0, size - 1)
        for place, far, size in zip(np.indices(label.shape), reach, label.shape, strict=True)
    )
    return label[there]


def spoil(label: Volume, how: Spoiling, table: str, seed: int) -> Labels:
    """A label as a file has it, spoilt.

    Args:
        label: Values of the convention.
        how: Of ``MEANINGS``.
        table: Name of the convention.
        seed: Of the noise.

    Raises:
        CaseError: A value is not of the convention.
    """
    spacing = label.grid.spacing_mm.tolist()
    spoilers: dict[str, Callable[[Labels], Labels]] = {
        "mirrored": lambda voxels: mirror(voxels, label.grid.affine),
        "swapped": swap_enhancing_and_oedema,
        "noisy-boundary": lambda voxels: jitter_boundaries(voxels, tuple(round(NOISE_MM / mm) for mm in spacing), seed),
    }
    return to_file_labels(spoilers[how](to_library_labels(label.voxels, table)), table)


def write_spoilt(folder: Path, datalist: DataList, how: Spoiling) -> DataList:
    """Write spoilt copies of a site's labels; its data list with them, where it trains and validates.

    Args:
        folder: Folder of the site, ``<folder>/altered-labels/<how>/<case>.nii.gz``; a copy that is newer than its
            label stays.
        datalist: The site's list, its paths absolute.
        how: The same for all its cases.

    Raises:
        CaseError: A label cannot be read, or a value is not of its convention.
    """

    def spoilt(case: Case) -> Case:
        name = f"{ALTERED_LABELS_FOLDER}/{how}/{case.case}.nii.gz"
        _write_label(folder / name, case, how)
        return replace(case, label=name)

    return replace(
        datalist, training=tuple(map(spoilt, datalist.training)), validation=tuple(map(spoilt, datalist.validation))
    )


def _write_label(target: Path, case: Case, how: Spoiling) -> None:
    assert case.label is not None  # a case that is trained or validated on has one
    source = split_volume(case.label)[0]
    if target.is_file() and source.is_file() and target.stat().st_mtime > source.stat().st_mtime:
        return
    ((_, label),) = read_volumes(case.case, {LABEL: case.label})
    seed = int.from_bytes(hashlib.sha256(case.case.encode()).digest()[:4], "big")
    target.parent.mkdir(parents=True, exist_ok=True)
    with appearing(target, ending=".nii.gz") as place:  # nibabel goes by the ending
        in_scanner_space(spoil(label, how, case.labels, seed), label.grid.affine).to_filename(place)
