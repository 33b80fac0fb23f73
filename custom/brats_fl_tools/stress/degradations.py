"""What may be wrong with scans, in grades with a unit: pure functions of a case's four scans in their own geometry.

Each takes ``scans`` (4, H, W, D) float32, 0 around the brain, their affine (4, 4) voxel to mm, a strength and a
generator of random numbers, and returns new scans that are 0 where they were; but for a shift, which moves the brain.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final

import nibabel as nib
import numpy as np
import torch
from nibabel.affines import voxel_sizes
from numpy.typing import NDArray
from scipy import ndimage

from brats_fl.cases.transforms import adjust_gamma

Scans = NDArray[np.float32]
Affine = NDArray[np.float64]
Degrade = Callable[[Scans, Affine, float, np.random.Generator], Scans]

FWHM_PER_SIGMA = 2 * np.sqrt(2 * np.log(2))
"""2.355: a Gaussian's full width at half maximum is this many standard deviations."""

FIELD_DEGREE = 3
"""Of the polynomial that a bias field is, as MONAI's ``RandBiasField`` has it."""

REFERENCE = 0
"""Channel of t1c, to which BraTS registers the other scans (Menze et al. 2015, doi:10.1109/TMI.2014.2377694)."""


def add_noise(scans: Scans, affine: Affine, strength: float, rng: np.random.Generator) -> Scans:
    """Gaussian noise in the brain; its standard deviation is ``strength`` times that of the modality in the brain."""
    noisy = scans.copy()
    for channel in noisy:
        inside = channel != 0
        noise = rng.standard_normal(channel.shape, dtype=np.float32)  # the same field at every strength
        if inside.any():
            channel[inside] += strength * channel[inside].std() * noise[inside]
    return noisy


def add_bias_field(scans: Scans, affine: Affine, strength: float, rng: np.random.Generator) -> Scans:
    """One smooth field for all scans, as of a coil; its largest value in the brain is ``strength`` times its least.

    The logarithm of the field is a Legendre polynomial of degree 3 with normal coefficients (Van Leemput et al. 1999,
    doi:10.1109/42.811268).
    """
    inside = (scans != 0).any(axis=0)
    if not inside.any():
        return scans.copy()
    powers = np.indices((FIELD_DEGREE + 1,) * 3).sum(axis=0)
    weights = np.where((powers > 0) & (powers <= FIELD_DEGREE), rng.standard_normal(powers.shape), 0)
    x, y, z = (np.linspace(-1, 1, size) for size in inside.shape)
    logarithm = np.polynomial.legendre.leggrid3d(x, y, z, weights)
    least, most = logarithm[inside].min(), logarithm[inside].max()
    if most <= least:  # a brain of one voxel
        return scans.copy()
    exponent = (logarithm - (least + most) / 2) / (most - least)
    return scans * np.power(strength, exponent).astype(np.float32)


def blur(scans: Scans, affine: Affine, strength: float, rng: np.random.Generator) -> Scans:
    """Gaussian blur of ``strength`` mm full width at half maximum, within the brain."""
    sigmas = strength / FWHM_PER_SIGMA / voxel_sizes(affine)
    return _within_brain(scans, lambda volume: ndimage.gaussian_filter(volume, sigmas, mode="constant"))


def change_gamma(scans: Scans, affine: Affine, strength: float, rng: np.random.Generator) -> Scans:
    """Each modality raised to the power ``strength`` within its range in the brain; mean and deviation are kept."""
    changed = scans.copy()
    for channel in torch.from_numpy(changed):
        adjust_gamma(channel, channel != 0, strength)
    return changed


def shift_one(scans: Scans, affine: Affine, strength: float, rng: np.random.Generator) -> Scans:
    """One modality ``strength`` mm off the others: which, other than t1c, and where to is drawn for the case."""
    others = [channel for channel in range(len(scans)) if channel != REFERENCE]
    shifted, channel = scans.copy(), int(rng.choice(others))
    direction = rng.standard_normal(3)
    offset_mm = strength * direction / np.linalg.norm(direction)
    offset = np.linalg.solve(affine[:3, :3], offset_mm)
    shifted[channel] = ndimage.shift(scans[channel], offset, order=1, mode="constant", cval=0)
    return shifted


def thicken_slices(scans: Scans, affine: Affine, strength: float, rng: np.random.Generator) -> Scans:
    """Slices ``strength`` mm thick from foot to head: the mean over each, interpolated linearly in between.

    Scans whose own slices are thicker stay as they are.
    """
    axis = int(np.flatnonzero(nib.io_orientation(affine)[:, 0] == 2)[0])
    own_mm = float(voxel_sizes(affine)[axis])
    if strength <= own_mm:
        return scans.copy()
    matrix = slice_matrix(scans.shape[axis + 1], own_mm, strength)
    return _within_brain(scans, lambda volume: np.moveaxis(np.tensordot(matrix, volume, (1, axis)), 0, axis))


def slice_matrix(count: int, own_mm: float, thickness_mm: float) -> Scans:
    """What a voxel of a column is of all voxels of the column, (count, count), when its slices become thick ones."""
    edges = np.arange(count + 1) * own_mm
    thick = np.arange(int(np.ceil(edges[-1] / thickness_mm - 1e-9)) + 1) * thickness_mm
    shared = np.minimum(thick[1:, None], edges[None, 1:]) - np.maximum(thick[:-1, None], edges[None, :-1])
    means = np.maximum(shared, 0)
    means /= means.sum(axis=1, keepdims=True)
    places = np.clip((edges[:-1] + own_mm / 2) / thickness_mm - 0.5, 0, len(means) - 1)
    below = np.minimum(places.astype(int), max(len(means) - 2, 0))
    above, share = np.minimum(below + 1, len(means) - 1), (places - below)[:, None]
    return ((1 - share) * means[below] + share * means[above]).astype(np.float32)


def leave_out(scans: Scans, affine: Affine, strength: float, rng: np.random.Generator) -> Scans:
    """The modality of number ``strength`` all 0: what is absent is background to whatever comes after."""
    left = scans.copy()
    left[int(strength)] = 0
    return left


def _within_brain(scans: Scans, smooth: Callable[[Scans], Scans]) -> Scans:
    """Each scan smoothed without what is around the brain: weighted by where there is brain, and 0 elsewhere."""
    smoothed = np.zeros_like(scans)
    for channel, scan in enumerate(scans):
        inside = scan != 0
        weights = smooth(inside.astype(np.float32))
        smoothed[channel][inside] = smooth(scan)[inside] / np.maximum(weights[inside], 1e-6)
    return smoothed


FUNCTIONS: Final[Mapping[str, Degrade]] = MappingProxyType(
    {
        "noise": add_noise,
        "bias": add_bias_field,
        "blur": blur,
        "gamma": change_gamma,
        "shift": shift_one,
        "resolution": thicken_slices,
        "missing": leave_out,
    }
)
"""Name of a degradation, as in ``plan.DEGRADATIONS``, -> what it does."""


def apply(name: str, strength: float, scans: Scans, affine: Affine, case: str) -> Scans:
    """Degraded scans of a case: the same bytes for the same case, whenever and wherever.

    What is random in a degradation is drawn from its name and the case's, and is the same at every strength: grades
    differ in strength alone.
    """
    seed = int.from_bytes(hashlib.sha256(f"{name} {case}".encode()).digest()[:8], "big")
    return FUNCTIONS[name](scans, affine, strength, np.random.default_rng(seed))
