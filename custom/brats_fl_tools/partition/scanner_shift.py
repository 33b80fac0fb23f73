"""Scans as another scanner would show them: gamma, blur, shading and noise, graded by one number.

A change of brightness or contrast alone would be undone by the normalisation of every case to mean 0 and deviation 1;
these four are not. Labels are left as they are.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from scipy import ndimage

from brats_fl.cases.datalists import Case, DataList
from brats_fl.cases.nifti import in_scanner_space
from brats_fl.cases.scans import read_volumes
from brats_fl.constants import MODALITIES, SPLITS

ALTERED_FOLDER = "altered-scans"

GAMMA = 0.5
BLUR_MM = 0.8
SHADING = 0.16
NOISE = 0.055
"""At a shift of 1: exponent less 1; standard deviations of the blur, of the shading's logarithm, and of the noise in
units of the brain's 99th percentile. About the worst of the sample's scanners, which follow five public sites."""

Volume = NDArray[np.float32]


def alter(voxels: NDArray[Any], spacing_mm: Sequence[float], shift: float, seed: int) -> NDArray[Any]:
    """A skull-stripped scan, altered; its background stays 0, its dtype as it was.

    Args:
        voxels: (H, W, D), 0 outside the brain.
        spacing_mm: Size of a voxel.
        shift: 0 alters nothing, 1 as much as the constants above say.
        seed: Of shading and noise.
    """
    brain = voxels != 0
    if not brain.any():
        return voxels
    box = tuple(slice(int(found.min()), int(found.max()) + 1) for found in np.nonzero(brain))
    inside = brain[box]
    top = float(np.percentile(voxels[brain], 99))
    # RandomState's streams are frozen, those of default_rng are not (NEP 19).
    draw = np.random.RandomState(seed)
    scan = np.clip(voxels[box].astype(np.float32) / np.float32(top), 0, None) ** np.float32(1 + GAMMA * shift)
    scan = _blur(scan, inside, [BLUR_MM * shift / size for size in spacing_mm])
    scan *= np.exp(np.float32(SHADING * shift) * _smooth_field(draw, inside.shape))
    noise = draw.standard_normal((2, int(inside.sum()))).astype(np.float32) * np.float32(NOISE * shift)
    # The magnitude of a complex signal: Rician noise (Gudbjartsson and Patz 1995, doi:10.1002/mrm.1910340618).
    counts = np.hypot(scan[inside] + noise[0], noise[1]) * np.float32(top)
    altered = np.zeros_like(voxels)
    altered[box][inside] = _as_dtype(counts, voxels.dtype)
    return altered


def _blur(scan: Volume, inside: NDArray[np.bool_], sigma: Sequence[float]) -> Volume:
    """Blur within the brain: the background has no say."""
    weight = ndimage.gaussian_filter(inside.astype(np.float32), sigma, truncate=3)
    blurred = ndimage.gaussian_filter(scan * inside, sigma, truncate=3)
    return np.where(inside, blurred / np.maximum(weight, np.float32(1e-6)), np.float32(0))


def _smooth_field(draw: np.random.RandomState, shape: Sequence[int]) -> Volume:
    """A field of mean 0 and deviation 1: a random polynomial of the second degree in three coordinates."""
    x, y, z = np.meshgrid(*(np.linspace(-1, 1, size, dtype=np.float32) for size in shape), indexing="ij", sparse=True)
    terms = (x, y, z, x * y, x * z, y * z, x * x, y * y, z * z)
    field = np.zeros(shape, dtype=np.float32)
    for term, weight in zip(terms, draw.standard_normal(len(terms)), strict=True):
        field += np.float32(weight) * term
    deviation = float(field.std())
    return (field - field.mean()) / np.float32(deviation or 1)


def _as_dtype(counts: NDArray[np.float32], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Intensities in the scan's own dtype, none of them 0, which would be background."""
    if np.issubdtype(dtype, np.integer):
        return np.clip(np.rint(counts), 1, np.iinfo(dtype).max).astype(dtype)
    return np.maximum(counts, np.finfo(np.float32).tiny).astype(dtype)


def write_altered(folder: Path, datalist: DataList, shift: float, seed: int) -> DataList:
    """Write altered copies of a site's scans; its data list with them in place of the originals.

    Args:
        folder: Folder of the site, ``<folder>/altered-scans/<case>/t1c.nii.gz``.
        datalist: The site's list; labels stay where they are.
        shift: As ``alter``.
        seed: Each scan's own seed follows from it, the case and the modality.

    Raises:
        CaseError: A scan cannot be read or is not finite, or the scans of a case differ in their grids.
    """
    cases = [case for split in SPLITS for case in datalist.split(split)]
    console = Console(stderr=True)
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # SciPy and zlib work without the interpreter lock
        written = pool.map(lambda case: _write_case(folder, case, shift, seed), cases)
        title = f"{datalist.site}: altering scans"
        for _ in track(written, title, total=len(cases), console=console, disable=not console.is_terminal):
            pass
    splits = {split: tuple(_with_copies(case) for case in datalist.split(split)) for split in SPLITS}
    return DataList(site=datalist.site, **splits)


def _with_copies(case: Case) -> Case:
    return replace(case, image=tuple(_copy_name(case, modality) for modality in MODALITIES))


def _copy_name(case: Case, modality: str) -> str:
    return f"{ALTERED_FOLDER}/{case.case}/{modality}.nii.gz"


def _write_case(folder: Path, case: Case, shift: float, seed: int) -> None:
    scans = dict(zip(MODALITIES, case.image, strict=True))
    for name, volume in read_volumes(case.case, scans):
        own_seed = int.from_bytes(hashlib.sha256(f"{seed}/{case.case}/{name}".encode()).digest()[:4], "big")
        altered = alter(volume.voxels, volume.grid.spacing_mm.tolist(), shift, own_seed)
        target = folder / _copy_name(case, name)
        target.parent.mkdir(parents=True, exist_ok=True)
        in_scanner_space(altered, volume.grid.affine).to_filename(target)
