"""A scanner's faults: blur, thick slices, bias field, noise and an arbitrary scale of intensity."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from brats_fl_tools.sample.fields import Grid, Mask, Volume, smooth_field
from brats_fl_tools.sample.hospitals import Hospital

SLICE_TO_SIGMA = 0.35
"""Standard deviation of the blur along z over the slice thickness, after resampling to thinner voxels."""

MODALITY_NOISE = {"t1n": 1.0, "t1c": 1.0, "t2w": 1.3, "t2f": 1.5}
"""Noise relative to T1's: T2 and FLAIR wait longer for less signal."""

MAX_INT16 = 32767


def scan(
    rng: np.random.Generator, signals: dict[str, Volume], brain: Mask, grid: Grid, hospital: Hospital
) -> dict[str, NDArray[np.int16]]:
    """Scans of one case as the hospital's scanner gives them, brain-stripped.

    Args:
        rng: Source of the faults.
        signals: Brightness per modality in units of white matter, on the box.
        brain: Where the scans are not 0.
        grid: Grid of the case.
        hospital: Its scanner.

    Returns:
        int16 per modality: 1 or more inside ``brain``, exactly 0 outside.
    """
    # Voxel noise has a stream of its own: its draw depends on the grid and would shift what follows.
    noise_rng = rng.spawn(1)[0]
    gain = float(rng.uniform(*hospital.gain))
    factors = np.exp(rng.normal(0, 0.35, len(signals)))
    grains = np.exp(rng.normal(0, 0.2, len(signals)))
    coil = smooth_field(rng, grid, 110.0)  # shared by the modalities: the patient lies in one coil
    scans = {}
    for k, (modality, signal) in enumerate(signals.items()):
        bias = np.exp(hospital.bias * (0.7 * coil + 0.6 * smooth_field(rng, grid, 90.0)))
        picture = _blur(signal, grid, hospital.blur_mm, hospital.slice_mm[k]) * bias
        noise = hospital.noise * MODALITY_NOISE[modality] * float(grains[k])
        picture = _add_rician_noise(noise_rng, picture, grid, noise, hospital.slice_mm[k])
        # A scanner sets its gain so that nothing is cut off.
        scale = min(gain * factors[k], MAX_INT16 / float(picture[brain].max()))
        counts = np.clip(np.rint(picture * np.float32(scale)), 1, MAX_INT16)
        scans[modality] = np.where(brain, counts, 0).astype(np.int16)
    return scans


def _blur(volume: Volume, grid: Grid, blur_mm: float, slice_mm: float) -> Volume:
    sigma_mm = np.array([blur_mm, blur_mm, max(blur_mm, SLICE_TO_SIGMA * slice_mm)])
    # A voxel of the grid is itself a box of this standard deviation, which no finer blur undoes.
    own_mm = grid.spacing_mm / np.sqrt(12) if grid.spacing_mm > 1 else 0.0
    sigma = np.sqrt(np.maximum(sigma_mm**2 - own_mm**2, 0)) / grid.spacing_mm
    return ndimage.gaussian_filter(volume, sigma, truncate=3)


def _add_rician_noise(rng: np.random.Generator, signal: Volume, grid: Grid, noise: float, slice_mm: float) -> Volume:
    """Magnitude of a complex signal with Gaussian noise, correlated as resampling leaves it.

    Source: Gudbjartsson and Patz 1995, doi:10.1002/mrm.1910340618.
    """
    sigma = np.array([0.5, 0.5, 0.35 * max(1.0, slice_mm)]) / grid.spacing_mm
    channels = []
    for _ in range(2):
        white = rng.standard_normal(grid.box_shape, dtype=np.float32)
        smooth = ndimage.gaussian_filter(white, sigma, truncate=3)
        channels.append(smooth * np.float32(noise / smooth.std()))
    return np.hypot(signal + channels[0], channels[1])
