"""Where the voxels of a scan lie, and whether the scans of a case lie on one grid."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

import nibabel as nib
import numpy as np
from nibabel.affines import voxel_sizes
from numpy.typing import NDArray

# Headers written by different tools round affines to about 1e-5 mm; 1e-3 mm over 240 voxels is under a quarter voxel.
AFFINE_TOLERANCE_MM: Final = 1e-3


@dataclass(frozen=True)
class Grid:
    """What a header says of a scan's grid."""

    shape: tuple[int, ...]
    """Voxels along the three axes."""
    affine: NDArray[np.float64]
    """(4, 4), voxel to mm."""

    @property
    def spacing_mm(self) -> NDArray[np.float64]:
        """Voxel size along the three axes, (3,)."""
        return np.asarray(voxel_sizes(self.affine), dtype=np.float64)

    @property
    def voxel_ml(self) -> float:
        """Volume of a voxel."""
        return abs(float(np.linalg.det(self.affine[:3, :3]))) / 1000

    @property
    def axes(self) -> str:
        """Directions of the three axes, such as ``LPS``."""
        return "".join(str(code) for code in nib.aff2axcodes(self.affine))

    def is_same(self, other: Grid) -> bool:
        """Whether two grids have one shape and, up to rounding, one affine."""
        return self.shape == other.shape and near(self.affine, other.affine)


class OddGrid(NamedTuple):
    """A scan that is not on the grid of most others of its case."""

    scan: str
    found: str
    """What its grid has, and what the others' has, such as ``shape 40 x 48 x 38, t1n has 40 x 48 x 40``."""
    shape_differs: bool


def near(first: NDArray[np.float64], second: NDArray[np.float64]) -> bool:
    """Whether affines, or parts of them, are the same up to rounding."""
    return np.allclose(first, second, rtol=0, atol=AFFINE_TOLERANCE_MM)


def main_grid(grids: Mapping[str, Grid]) -> Grid:
    """The grid that most scans of a case have, of two the first; ``grids`` is not empty."""
    return max(grids.values(), key=lambda grid: sum(grid.is_same(other) for other in grids.values()))


def find_odd_grids(grids: Mapping[str, Grid]) -> list[OddGrid]:
    """The scans of a case that are not on the grid of most: of five of which one is off, it is that one."""
    if not grids:
        return []
    main = main_grid(grids)
    main_name = next(name for name, grid in grids.items() if grid is main)
    return [
        OddGrid(name, _describe(grid, main, main_name), grid.shape != main.shape)
        for name, grid in grids.items()
        if not grid.is_same(main)
    ]


def _describe(grid: Grid, main: Grid, main_name: str) -> str:
    if grid.shape != main.shape:
        return f"shape {show(grid.shape)}, {main_name} has {show(main.shape)}"
    if grid.axes != main.axes:
        return f"orientation {grid.axes}, {main_name} has {main.axes}"
    if not near(grid.spacing_mm, main.spacing_mm):
        return f"spacing {show(grid.spacing_mm)} mm, {main_name} has {show(main.spacing_mm)} mm"
    if not near(grid.affine[:3, :3], main.affine[:3, :3]):
        return f"axes are tilted against those of {main_name}"
    return f"position is {np.linalg.norm(grid.affine[:3, 3] - main.affine[:3, 3]):.3g} mm away from that of {main_name}"


def grids_fault(grids: Mapping[str, Grid], scans: Mapping[str, str | Path]) -> str | None:
    """Every scan of a case that is not on the grid of most, with the mend; None where they share one.

    Args:
        grids: Scan -> its grid.
        scans: Scan -> where it is.
    """
    odd = [f"{name}: {found} ({scans[name]})" for name, found, _ in find_odd_grids(grids)]
    mend = "all files of a case must share one grid: register or resample onto that of the others"
    return f"{'; '.join(odd)}; {mend}" if odd else None


def show(values: object) -> str:
    """Sizes as a user writes them: ``240 x 240 x 155``."""
    return " x ".join(f"{float(value):g}" for value in np.asarray(values).tolist())
