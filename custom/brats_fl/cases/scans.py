"""Scans on disk: a NIfTI file of its own, or a volume of a 4-D file, named by its number: ``BRATS_001.nii.gz#2``.

Everything that reads a scan or a label reads it here, so that a file is refused in the same words everywhere.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from brats_fl.cases.grids import Grid, grids_fault
from brats_fl.cases.nifti import NIFTI, check_whole, faults_explained, load_image, open_image
from brats_fl.cases.scan_values import refuse_constant
from brats_fl.constants import LABEL
from brats_fl.errors import CaseError, ScanError, ScanFault

# Only after a NIfTI file's ending: a folder may be called scans#1.
_VOLUME = re.compile(rf"(?P<file>{NIFTI})#(?P<number>\d+)")


# --- Names ---


def split_volume(scan: str | Path) -> tuple[Path, int | None]:
    """File of a scan, and which of its volumes the scan is; None where the file holds this scan alone."""
    match = _VOLUME.fullmatch(str(scan))
    return (Path(match["file"]), int(match["number"])) if match else (Path(scan), None)


def name_volume(file: Path, number: int) -> Path:
    """A volume of a 4-D file as a data list names it, numbered from 0."""
    return Path(f"{file}#{number}")


# --- Headers ---


def read_grid(scan: str | Path) -> Grid:
    """Grid of a scan, after checking that its file is sound as far as that shows without reading a voxel.

    A packed file is unpacked only where its last bytes leave a doubt of its length.

    Args:
        scan: A NIfTI file, or a volume of a 4-D one as ``path#k``.

    Raises:
        ScanError: The file is not there, is no NIfTI, is too short, does not hold this scan, or has no usable grid.
    """
    file, number = split_volume(scan)
    image, wanted = open_image(file)
    check_whole(file, wanted)
    return _grid_of(image, file, number)


def _grid_of(image: nib.Nifti1Image, file: Path, number: int | None) -> Grid:
    with faults_explained(file):
        shape = tuple(int(size) for size in image.shape)
        affine = np.asarray(image.affine, dtype=np.float64)
        sizes_mm = [float(size) for size in image.header.get_zooms()[:3]]
    if number is None and shape[3:] and set(shape[3:]) == {1}:
        shape = shape[:3]  # one volume, as some tools write it
    if len(shape) != (3 if number is None else 4):
        named = "no volume of it" if number is None else f"its volume #{number}"
        raise ScanError(ScanFault.NOT_3D, f"{file} has shape {shape}, and {named} is named")
    if number is not None and number >= shape[3]:
        raise ScanError(ScanFault.NOT_3D, f"{file} has the volumes #0 to #{shape[3] - 1}, and #{number} is named")
    if min(shape) < 1:
        raise ScanError(ScanFault.BAD_GRID, f"{file} has shape {shape}, without a voxel")
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-6:
        raise ScanError(ScanFault.BAD_GRID, f"the affine of {file} is {affine[:3].tolist()}")
    if not all(math.isfinite(size) and size > 0 for size in sizes_mm):
        raise ScanError(ScanFault.BAD_GRID, f"{file} has voxels of {sizes_mm} mm")
    return Grid(shape[:3], affine)


# --- Voxels ---


@dataclass(frozen=True)
class Volume:
    """A scan or a label in memory."""

    voxels: NDArray[Any]
    """(H, W, D), real, as the file has them."""
    grid: Grid

    def in_ras(self) -> Volume:
        """The same with its axes in the order and direction nearest to right, anterior, superior; a view."""
        turns = nib.io_orientation(self.grid.affine)
        affine = self.grid.affine @ nib.orientations.inv_ornt_aff(turns, self.grid.shape)
        voxels = nib.apply_orientation(self.voxels, turns)
        return Volume(voxels, Grid(voxels.shape, np.asarray(affine, dtype=np.float64)))


class VolumeReader:
    """Reads scans to the end of their files; a 4-D file once where its volumes are asked for one after the other.

    It is not for several threads at once.
    """

    def __init__(self) -> None:
        self._file: Path | None = None
        self._image: nib.Nifti1Image | None = None

    def read(self, scan: str | Path) -> Volume:
        """Voxels and grid of a scan.

        Args:
            scan: A NIfTI file, or a volume of a 4-D one as ``path#k``.

        Raises:
            ScanError: As ``read_grid``, or the file is damaged further on.
        """
        file, number = split_volume(scan)
        image = self._image if file == self._file else None
        if image is None:
            self._file = self._image = None  # one file in memory
            image = load_image(file)
        grid = _grid_of(image, file, number)
        if number is None:
            return Volume(np.asanyarray(image.dataobj).reshape(grid.shape, order="A"), grid)
        self._file, self._image = file, image
        return Volume(np.asanyarray(image.dataobj)[..., number], grid)


def read_volumes(case: str, scans: Mapping[str, str | Path]) -> Iterator[tuple[str, Volume]]:
    """The scans of a case one after the other, each file read once; after the last they are known to share one grid.

    Args:
        case: Name of the case, for the messages.
        scans: What each is called, such as ``t1c`` or ``label`` -> where it is.

    Raises:
        CaseError: A file cannot be read, as ``VolumeReader`` has it, a voxel is not finite, or a scan is constant; or,
            after the last, their grids differ.
    """
    reader, grids = VolumeReader(), {}
    for name, scan in scans.items():
        try:
            volume = reader.read(scan)
        except ScanError as error:
            raise CaseError(f"{case}: {name}: {error}") from error
        if count := count_not_finite(volume.voxels):
            found = f"{count} of {volume.voxels.size} voxels are NaN or infinite ({scan})"
            raise CaseError(f"{case}: {name}: {found}; write the file again from its source")
        if name != LABEL:
            refuse_constant(case, name, volume.voxels, str(scan))
        grids[name] = volume.grid
        yield name, volume
    if fault := grids_fault(grids, scans):
        raise CaseError(f"{case}: {fault}")


def count_not_finite(voxels: NDArray[Any]) -> int:
    """How many voxels are NaN, infinite, or too large for float32, in which networks compute."""
    if voxels.dtype.kind in "iu":
        return 0
    return int(voxels.size - np.count_nonzero(np.abs(voxels) <= np.finfo(np.float32).max))
