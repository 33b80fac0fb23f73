"""The grid of a sample case, and smooth random fields that look the same on every grid.

Positions are in millimetres from the corner of BraTS's field of view, 240 × 240 × 155 mm, along the array's
axes: to the left, to the back, upwards (LPS).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Volume = NDArray[np.float32]
Mask = NDArray[np.bool_]

FIELD_MM = (240.0, 240.0, 155.0)
"""BraTS's field of view."""

BRAIN_BOX_MM = ((40, 200), (24, 224), (0, 155))
"""The part of it that can hold brain; everything is computed in this box and pasted into zeros."""

MIN_SPACING_MM = 1.0
MAX_SPACING_MM = 4.0


@dataclass(frozen=True)
class Grid:
    """Isotropic voxels over the field of view, and the box in it that is computed."""

    spacing_mm: float

    @property
    def shape(self) -> tuple[int, int, int]:
        """Voxels of the whole field: 240 × 240 × 155 at 1 mm, 120 × 120 × 78 at 2 mm."""
        x, y, z = (int(np.ceil(size / self.spacing_mm)) for size in FIELD_MM)
        return x, y, z

    @property
    def box(self) -> tuple[slice, slice, slice]:
        """Where the box lies in the field, in voxels."""
        x, y, z = (
            slice(int(start / self.spacing_mm), int(np.ceil(stop / self.spacing_mm))) for start, stop in BRAIN_BOX_MM
        )
        return x, y, z

    @property
    def box_shape(self) -> tuple[int, int, int]:
        """Voxels of the box."""
        x, y, z = (part.stop - part.start for part in self.box)
        return x, y, z

    @property
    def axes_mm(self) -> tuple[NDArray[np.float64], ...]:
        """Centres of the box's voxels along each axis."""
        return tuple((np.arange(part.start, part.stop) + 0.5) * self.spacing_mm for part in self.box)

    @property
    def affine(self) -> NDArray[np.float64]:
        """Voxel to scanner coordinates, (4, 4); at 1 mm BraTS's: diag(-1, -1, 1), offset (0, 239, 0)."""
        shift = (self.spacing_mm - 1) / 2  # the first voxel's centre moves inwards, the field's corner stays
        affine = np.diag([-self.spacing_mm, -self.spacing_mm, self.spacing_mm, 1.0])
        affine[:3, 3] = (-shift, 239.0 - shift, shift)
        return affine


def smooth_field(rng: np.random.Generator, grid: Grid, lattice_mm: float) -> Volume:
    """Random field over the box, mean 0, standard deviation about 1, smooth over about ``lattice_mm``.

    A cubic B-spline over normal random numbers on a lattice. The draw does not depend on the grid's spacing,
    so 1 mm and 2 mm grids show the same field. Only element-wise sums, no BLAS: the bits do not depend on
    threads.

    Args:
        rng: Source of the lattice's values.
        grid: Where the field is evaluated.
        lattice_mm: Distance of the lattice's points; details finer than this do not occur.

    Returns:
        float32 of ``grid.box_shape``.

    Source: Lee, Wolberg and Shin 1997, doi:10.1109/2945.620490 (multilevel B-splines).
    """
    points = [int(size // lattice_mm) + 5 for size in FIELD_MM]
    field: Volume = rng.standard_normal(points, dtype=np.float32)
    for axis, centres_mm in enumerate(grid.axes_mm):
        field = _interpolate(field, centres_mm / lattice_mm, axis)
    # The mean over the cell of the squared B-spline weights is 0.4794 an axis: what is left of variance 1.
    return field * np.float32(0.4794**-1.5)


def _interpolate(values: Volume, positions: NDArray[np.float64], axis: int) -> Volume:
    cell = np.floor(positions).astype(int)
    t = (positions - cell).astype(np.float32)
    weights = ((1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3)
    along = [1, 1, 1]
    along[axis] = len(t)
    result = np.zeros((), np.float32)
    for tap, weight in enumerate(weights):
        result = result + np.take(values, cell + tap, axis=axis) * (weight / np.float32(6)).reshape(along)
    return result


def sigmoid(x: NDArray[np.floating[Any]]) -> Volume:
    """Logistic function, 0 to 1; written with ``tanh``, which does not overflow."""
    return np.float32(0.5) * (1 + np.tanh(np.float32(0.5) * x.astype(np.float32)))
