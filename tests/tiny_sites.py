"""Hospitals that a test can afford: 40 x 48 x 40 voxels at 2 mm, an ellipsoid for a brain, balls for a tumour."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from pathlib import Path

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from brats_fl.cases.datalists import DATALIST_FILE, Case, DataList, write_datalist
from brats_fl.constants import MODALITIES, SPLITS

SHAPE = (40, 48, 40)
AFFINE = np.array([[-2.0, 0, 0, 40], [0, -2.0, 0, 48], [0, 0, 2.0, -40], [0, 0, 0, 1]])
BRAIN_RADII = (17, 20, 17)
OEDEMA_RADIUS, ENHANCING_RADIUS, NECROSIS_RADIUS = 9, 6, 3
SUFFIXES = {"t1c": "t1ce", "t1n": "t1", "t2w": "t2", "t2f": "flair"}
# Brain, necrosis, oedema, enhancing tumour: as bright as each is in the modality, before the site's own scale.
BRIGHTNESS = {
    "t1c": (300, 150, 250, 700),
    "t1n": (350, 150, 250, 280),
    "t2w": (200, 600, 450, 350),
    "t2f": (220, 300, 550, 400),
}


def make_tiny_sites(root: Path, cases: Mapping[str, tuple[int, int, int]]) -> Path:
    """Write sites with a data list each; returns ``root``.

    Args:
        root: Folder to write into, ``<root>/<site>/datalist.json`` and ``<root>/<site>/<case>/<case>_flair.nii.gz``.
        cases: Per site the number of training, validation and testing cases.
    """
    for site, counts in cases.items():
        numbers = iter(range(1, sum(counts) + 1))
        splits = {
            split: tuple(write_tiny_case(root / site, f"{site}-case-{next(numbers):03d}") for _ in range(count))
            for split, count in zip(SPLITS, counts, strict=True)
        }
        write_datalist(root / site / DATALIST_FILE, DataList(site=site, **splits))
    return root


def write_tiny_case(site_folder: Path, case: str) -> Case:
    """Write a case in the layout of BraTS 2020; its voxels follow from the names of site and case."""
    rng = np.random.default_rng(zlib.crc32(f"{site_folder.name}/{case}".encode()))
    scale = 0.5 + zlib.crc32(site_folder.name.encode()) % 16 / 8  # 0.5 to 2.4: each site's scanner has its own
    labels = tiny_label(rng)
    tissue = np.zeros(SHAPE, dtype=np.intp)  # 0 outside, else 1 + index into BRIGHTNESS
    tissue[ball((20, 24, 20), BRAIN_RADII)] = 1
    for index, value in enumerate((1, 2, 4), start=2):
        tissue[labels == value] = index
    folder = site_folder / case
    folder.mkdir(parents=True)
    for modality in MODALITIES:
        bright = np.array([0, *BRIGHTNESS[modality]])[tissue] * scale
        noisy = bright + rng.normal(0, 20 * scale, SHAPE) * (tissue > 0)
        # Inside the brain nothing is 0, as in a skull-stripped scan.
        voxels = np.where(tissue > 0, np.maximum(noisy, 1), 0).astype(np.int16)
        save(voxels, folder / f"{case}_{SUFFIXES[modality]}.nii.gz")
    save(labels.astype(np.int16), folder / f"{case}_seg.nii.gz")
    return Case(
        case=case,
        patient=case,
        image=tuple(str(folder / f"{case}_{SUFFIXES[modality]}.nii.gz") for modality in MODALITIES),
        label=str(folder / f"{case}_seg.nii.gz"),
    )


def tiny_label(rng: np.random.Generator) -> NDArray[np.int16]:
    """Nested tumour somewhere inside the brain: 2 oedema around 4 enhancing rim around 1 necrotic core."""
    centre = np.array([20, 24, 20]) + rng.integers(-5, 6, 3)
    labels = np.zeros(SHAPE, dtype=np.int16)
    for radius, value in ((OEDEMA_RADIUS, 2), (ENHANCING_RADIUS, 4), (NECROSIS_RADIUS, 1)):
        labels[ball(centre, (radius,) * 3)] = value
    labels[~ball((20, 24, 20), BRAIN_RADII)] = 0
    return labels


def ball(centre: NDArray[np.int_] | tuple[int, ...], radii: tuple[int, ...]) -> NDArray[np.bool_]:
    """Voxels inside an ellipsoid."""
    grid = np.indices(SHAPE)
    return sum(((axis - c) / r) ** 2 for axis, c, r in zip(grid, centre, radii, strict=True)) <= 1


def save(voxels: NDArray[np.int16], path: Path, affine: NDArray[np.float64] = AFFINE) -> None:
    """Write a NIfTI file."""
    nib.save(nib.Nifti1Image(voxels, affine), path)


def corrupt(path: Path) -> bytes:
    """Overwrite bytes in the middle of a compressed file, which only reading all of it can tell; the whole content."""
    whole = path.read_bytes()
    middle = len(whole) // 2
    path.write_bytes(whole[:middle] + bytes(64) + whole[middle + 64 :])
    return whole
