"""Brains: the MNI152 maps of grey matter, white matter and T1 contrast, bent and folded anew for every case.

The maps are the ICBM 2009a symmetric average that nilearn carries in its package, so no network is needed.
Source: Fonov et al. 2011, doi:10.1016/j.neuroimage.2010.07.033.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from brats_fl_tools.sample.fields import Grid, Mask, Volume, smooth_field

ATLAS_CENTRE_MM = (0.0, -17.0, 5.0)
"""Middle of the atlas's brain, MNI coordinates (right, front, up)."""

FIELD_CENTRE_MM = (119.5, 128.0, 67.0)
"""Where that point lies in BraTS's field of view."""

BRAIN_SCALE = 0.91
"""The MNI152 average brain is larger than a brain: at 0.91 it has the 1.3 to 1.5 litres of BraTS's."""

BENDS_MM = ((70.0, 2.6), (26.0, 1.5), (13.0, 1.2))
"""Lattice and amplitude of the random displacement: head, lobes, gyri. Gradients below 1: no folds."""

DEPTH_STRIDE = 2


@dataclass(frozen=True)
class Atlas:
    """Maps in MNI space, 1 mm; all float32 of one shape."""

    grey: Volume
    white: Volume
    brain: Volume
    """Soft brain mask, smoothed by 2.5 mm; the brain is where it is above 0.5."""
    detail: Volume
    """What the T1 average has beyond its tissue maps: nuclei, folia, brain stem; in units of white matter."""
    depth_mm: Volume
    """Distance to the brain's surface, on every second voxel."""
    origin_mm: tuple[float, ...]


@lru_cache(maxsize=1)
def load_atlas() -> Atlas:
    """The maps, read once a process; takes about two seconds."""
    from nilearn import datasets  # imports scikit-learn, which takes seconds: only where it is needed

    template = datasets.load_mni152_template(resolution=1)
    t1, grey, white, mask = (
        np.asarray(image.dataobj, np.float32)
        for image in (
            template,
            datasets.load_mni152_gm_template(resolution=1),
            datasets.load_mni152_wm_template(resolution=1),
            datasets.load_mni152_brain_mask(resolution=1),
        )
    )
    coarse = (slice(None, None, DEPTH_STRIDE),) * 3
    depth = ndimage.distance_transform_edt(mask[coarse] > 0.5, sampling=DEPTH_STRIDE)
    return Atlas(
        grey=grey,
        white=white,
        brain=ndimage.gaussian_filter(mask, 2.5),
        detail=_detail(t1, grey, white, mask > 0.5),
        depth_mm=depth.astype(np.float32),
        origin_mm=tuple(float(value) for value in template.affine[:3, 3]),
    )


def _detail(t1: Volume, grey: Volume, white: Volume, brain: Mask) -> Volume:
    """Residual of the T1 average over its tissue mixture, zero outside the brain."""
    # Medians of the T1 average where one tissue fills the voxel; CSF never does, 0.3 is its darkest part.
    pure = [float(np.median(t1[brain & (tissue > 0.95)])) for tissue in (grey, white)]
    fluid = np.clip(1 - grey - white, 0, 1)
    mixture = pure[0] * grey + pure[1] * white + 0.3 * fluid
    residual = (t1 - mixture) / pure[1] * (1 - fluid) * brain
    return np.clip(residual, -0.25, 0.25).astype(np.float32)


@dataclass(frozen=True)
class Pose:
    """Where every voxel of the box lies in the atlas, before and after a mass pushes the tissue aside."""

    grid: Grid
    atlas_mm: Volume
    """(3, box) MNI coordinates."""
    skull_mm: Volume
    """The same without the mass: the skull does not give way."""


@dataclass(frozen=True)
class Anatomy:
    """Tissue of a case on its box, float32; the three fractions add up to 1 everywhere."""

    grid: Grid
    grey: Volume
    white: Volume
    fluid: Volume
    detail: Volume
    depth_mm: Volume
    brain: Mask


def draw_pose(rng: np.random.Generator, grid: Grid) -> Pose:
    """Random size, tilt, mirror image and bend of the atlas."""
    scale = BRAIN_SCALE * (1 + rng.normal(0, 0.015) + rng.normal(0, 0.013, 3))
    tilt = _rotation(np.deg2rad(rng.normal(0, 2.5, 3)))
    shift_mm = rng.normal(0, 1.5, 3)
    mirror = rng.choice([-1.0, 1.0])
    # Array axes run left, back, up; MNI's run right, front, up.
    towards_mni = tilt @ np.diag([-mirror, -1.0, 1.0])
    offsets = np.meshgrid(
        *(a - c - s for a, c, s in zip(grid.axes_mm, FIELD_CENTRE_MM, shift_mm, strict=True)),
        indexing="ij",
        sparse=True,
    )
    atlas_mm = np.empty((3, *grid.box_shape), np.float32)
    for axis in range(3):
        linear = sum(towards_mni[axis, k] * offsets[k] for k in range(3))
        atlas_mm[axis] = ATLAS_CENTRE_MM[axis] + linear / scale[axis]
        for lattice_mm, amplitude_mm in BENDS_MM:
            atlas_mm[axis] += amplitude_mm * smooth_field(rng, grid, lattice_mm)
    return Pose(grid=grid, atlas_mm=atlas_mm, skull_mm=atlas_mm)


def _rotation(angles: NDArray[np.float64]) -> NDArray[np.float64]:
    matrix = np.eye(3)
    for axis, angle in enumerate(angles):
        i, j = (axis + 1) % 3, (axis + 2) % 3
        turn = np.eye(3)
        turn[i, i] = turn[j, j] = np.cos(angle)
        turn[i, j], turn[j, i] = -np.sin(angle), np.sin(angle)
        matrix = matrix @ turn
    return matrix


def push_aside(pose: Pose, centre_mm: NDArray[np.float64], radius_mm: float, strength: float) -> Pose:
    """Pose in which a mass has pushed the tissue outwards around its centre.

    Args:
        pose: The pose without the mass.
        centre_mm: MNI coordinates of the mass, (3,).
        radius_mm: Reach of the push.
        strength: Share by which tissue at the centre is stretched, 0 to 0.5; the map stays one to one.
    """
    offset = pose.skull_mm - centre_mm.astype(np.float32)[:, None, None, None]
    reach = np.einsum("axyz,axyz->xyz", offset, offset) / np.float32(radius_mm**2)
    pull = np.float32(strength) * np.exp(-reach)
    return replace(pose, atlas_mm=pose.skull_mm - offset * pull)


def fold_brain(rng: np.random.Generator, pose: Pose) -> Anatomy:
    """Tissue fractions of one subject.

    An average of 152 brains is blurred where they differ. A random field on the odds of the tissues, and a
    power that sharpens them, decide each doubtful voxel anew: sulci open in one subject where gyri meet in
    another.
    """
    atlas, grid = load_atlas(), pose.grid
    envelope = _sample(atlas, atlas.brain, pose.skull_mm) + 0.05 * smooth_field(rng, grid, 12.0)
    near = envelope > 0.2  # a margin, so that blur at the brain's edge meets tissue
    grey, white, detail = (
        _sample_where(near, atlas, values, pose.atlas_mm) for values in (atlas.grey, atlas.white, atlas.detail)
    )
    depth = _sample_where(near, atlas, atlas.depth_mm, pose.atlas_mm, DEPTH_STRIDE)
    cortex = np.exp(-((depth / np.float32(22)) ** 2))  # deep nuclei keep the average's smooth mixtures
    atrophy = float(rng.normal(0.25, 0.3))
    tissues = ((grey, 5.0, 0.0), (white, 6.0, 0.1), (np.clip(1 - grey - white, 0, 1), 6.0, atrophy))
    odds = []
    for tissue, lattice_mm, bias in tissues:
        chance = smooth_field(rng, grid, lattice_mm) + 0.5 * smooth_field(rng, grid, 2.5)
        odds.append((tissue + 0.012) ** (1 + 0.9 * cortex) * np.exp(bias + chance * (0.12 + 0.6 * cortex)))
    total = odds[0] + odds[1] + odds[2]
    return Anatomy(
        grid=grid,
        grey=odds[0] / total,
        white=odds[1] / total,
        fluid=odds[2] / total,
        detail=detail,
        depth_mm=depth,
        brain=_largest_part(envelope > 0.5),
    )


def _sample(atlas: Atlas, values: Volume, position_mm: Volume, stride: int = 1) -> Volume:
    """Values at MNI coordinates, (3, ...) to (...), trilinear; the edge goes on outside."""
    origin = np.asarray(atlas.origin_mm, np.float32).reshape(3, *[1] * (position_mm.ndim - 1))
    return ndimage.map_coordinates(values, (position_mm - origin) / stride, order=1, mode="nearest")


def _sample_where(where: Mask, atlas: Atlas, values: Volume, position_mm: Volume, stride: int = 1) -> Volume:
    result = np.zeros(where.shape, np.float32)
    result[where] = _sample(atlas, values, position_mm[:, where], stride)
    return result


def _largest_part(mask: Mask) -> Mask:
    parts, _ = ndimage.label(mask)
    sizes = np.bincount(parts.ravel())
    sizes[0] = 0
    return ndimage.binary_fill_holes(parts == sizes.argmax())
