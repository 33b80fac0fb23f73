"""What the header of a scan says of its grid, and whether the scans of a case share one. No voxel is read."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from pathlib import Path

import nibabel
import numpy as np
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError
from numpy.typing import NDArray

from brats_fl.cases.scans import AFFINE_TOLERANCE_MM, split_volume, volume_fault
from brats_fl.errors import CaseError

READ_ERRORS = (ImageFileError, HeaderDataError, OSError, EOFError, ValueError, zlib.error)
"""What nibabel, gzip and the file system raise for a file that is no sound NIfTI."""


@dataclass(frozen=True)
class ScanHeader:
    """What a NIfTI header says of its grid."""

    file: Path
    shape: tuple[int, ...]
    """Voxels along the three axes; of a volume where the file is 4-D."""
    spacing_mm: tuple[float, ...]
    affine: NDArray[np.float64]
    """(4, 4), voxel to mm."""


def read_header(scan: Path) -> ScanHeader:
    """Grid of a scan; no voxel is read.

    Args:
        scan: A NIfTI file, or a volume of a 4-D one as ``path#k``.

    Raises:
        CaseError: The file cannot be read as NIfTI, is cut short (seen in ``.nii`` only), is not 3-D or has no such
            volume, or has a spacing that is not positive.
    """
    file, number = split_volume(scan)
    try:
        image = nibabel.load(file)
        shape, affine = tuple(int(size) for size in image.shape), np.asarray(image.affine)
        spacing_mm = tuple(float(size) for size in image.header.get_zooms()[:3])
        end = int(image.dataobj.offset) + image.get_data_dtype().itemsize * int(np.prod(shape))
    except READ_ERRORS as error:
        raise CaseError(f"{file} cannot be read as NIfTI ({error}); download or copy it again") from error
    size = file.stat().st_size
    if file.suffix == ".nii" and size < end:
        raise CaseError(f"{file} is cut short: {size} bytes, its header says {end}; download or copy it again")
    if fault := volume_fault(shape, number, file):
        raise CaseError(f"{scan.name} {fault}")
    if min(shape) < 1:
        raise CaseError(f"{file} has shape {shape}; a scan has at least one voxel along each axis, replace it")
    if not all(np.isfinite(spacing_mm)) or min(spacing_mm) <= 0 or not np.isfinite(affine).all():
        raise CaseError(f"{file} has spacing {spacing_mm} mm; it must be > 0, save the file with a right header")
    return ScanHeader(file, shape[:3], spacing_mm, affine)


def grid_fault(header: ScanHeader, first: ScanHeader) -> str | None:
    """What is wrong where a file of a case is not on the grid of the case's first."""
    mend = f"all files of a case must share one grid, resample it onto {first.file.name}"
    if header.shape != first.shape:
        return f"{header.file} has shape {header.shape}, {first.file.name} has {first.shape}; {mend}"
    if not np.allclose(header.affine, first.affine, rtol=0, atol=AFFINE_TOLERANCE_MM):
        apart = float(np.abs(header.affine - first.affine).max())
        return f"{header.file} has another affine than {first.file.name}, by up to {apart:g}; {mend}"
    return None
