"""Rules that need no voxel: files are there, whole and readable, and the files of a case share a usable grid."""

from __future__ import annotations

import gzip
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import nibabel as nib
import numpy as np
from nibabel.affines import voxel_sizes
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError
from numpy.typing import NDArray

from brats_fl.cases.datalists import Case
from brats_fl.cases.scans import AFFINE_TOLERANCE_MM, split_volume
from brats_fl.constants import MODALITIES
from brats_fl.gate.findings import Finding

LABEL = "label"

READ_ERRORS: Final = (ImageFileError, HeaderDataError, OSError, EOFError, ValueError, OverflowError, zlib.error)
"""What nibabel, gzip and the file system raise for a file that is no sound NIfTI."""

TEMPLATE_MM: Final = (240.0, 240.0, 155.0)
"""Field of view of BraTS's space, which is SRI24's (Rohlfing et al. 2010, doi:10.1002/hbm.20906)."""

TEMPLATE_CORNER_MM: Final = (0.5, 239.5, -0.5)
"""Outer corner of the first voxel in scanner coordinates (RAS), the same at 1 mm and at 2 mm."""

TEMPLATE_AXES: Final = ("L", "P", "S")

_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True)
class Grid:
    """What a header says of a scan's grid."""

    shape: tuple[int, ...]
    affine: NDArray[np.float64]
    """(4, 4), voxel to mm."""

    @property
    def spacing_mm(self) -> NDArray[np.float64]:
        """Voxel size along the three axes, (3,)."""
        return np.asarray(voxel_sizes(self.affine), dtype=np.float64)

    @property
    def axes(self) -> str:
        """Directions of the three axes, such as ``LPS``."""
        return "".join(str(code) for code in nib.aff2axcodes(self.affine))


def scans_of(case: Case) -> dict[str, str]:
    """Modality, or ``label`` where the case has one -> the scan as the data list names it."""
    scans = dict(zip(MODALITIES, case.image, strict=True))
    return scans if case.label is None else {**scans, LABEL: case.label}


def check_case_headers(case: Case) -> tuple[list[Finding], dict[str, Grid]]:
    """Findings about the files of a case, and the grid of every scan whose file is sound."""
    findings: list[Finding] = []
    grids: dict[str, Grid] = {}
    for name, scan in scans_of(case).items():
        try:
            grids[name] = read_grid(scan)
        except _FileFaultError as fault:
            findings.append(Finding(fault.rule, str(fault), case.case, name))
    findings += [
        Finding(rule, found, case.case, name)
        for name, grid in grids.items()
        for rule, found in _compare_grids(name, grid, grids)
    ]
    if grids and (off := _off_template(main_grid(grids))):
        findings.append(Finding("G09-not-template-space", off, case.case))
    return findings, grids


class _FileFaultError(Exception):
    def __init__(self, rule: str, found: str) -> None:
        super().__init__(found)
        self.rule = rule


def read_grid(scan: str) -> Grid:
    """Grid of a scan, from its file's header; raises ``_FileFaultError`` with the rule that the file breaks."""
    file, number = split_volume(scan)
    if not file.is_file():
        raise _FileFaultError("G01-file-missing", f"{file} is not there")
    try:
        image = nib.load(file)
        shape = tuple(int(size) for size in image.shape)
        affine = np.asarray(image.affine, dtype=np.float64)
        wanted = int(image.dataobj.offset) + image.get_data_dtype().itemsize * int(np.prod(shape))
        length = _length(file, wanted)
    except READ_ERRORS as error:
        raise _FileFaultError("G02-file-unreadable", f"{file} cannot be read as NIfTI ({error})") from error
    if length < wanted:
        raise _FileFaultError("G03-file-truncated", f"{file} holds {length} of {wanted} bytes")
    _check_shape(file, shape, number)
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-6:
        raise _FileFaultError("G07-grid-invalid", f"the affine of {file} is {affine[:3].tolist()}")
    return Grid(shape[:3], affine)


def _check_shape(file: Path, shape: tuple[int, ...], number: int | None) -> None:
    if len(shape) != (3 if number is None else 4):
        wanted = "a 3-D file" if number is None else f"a 4-D file with a volume #{number}"
        raise _FileFaultError("G04-not-3d", f"{file} has shape {shape}, the list wants {wanted}")
    if number is not None and number >= shape[3]:
        raise _FileFaultError("G04-not-3d", f"{file} has the volumes #0 to #{shape[3] - 1}, the list wants #{number}")
    if min(shape) < 1:
        raise _FileFaultError("G07-grid-invalid", f"{file} has shape {shape}")


def _length(file: Path, wanted: int) -> int:
    """Bytes that a file holds once unpacked; a packed file is unpacked only where its last bytes leave a doubt."""
    if not file.name.endswith(".gz"):
        return file.stat().st_size
    with file.open("rb") as stream:
        stream.seek(-4, 2)
        # RFC 1952: a gzip file ends with the length of what it holds, modulo 2^32.
        (length,) = struct.unpack("<I", stream.read(4))
    if length == wanted % 2**32:
        return wanted
    read = 0
    try:
        with gzip.open(file) as unpacked:
            while chunk := unpacked.read(_CHUNK_BYTES):
                read += len(chunk)
    except EOFError:
        # The last chunk is lost to the error, so an unfinished file may look a little shorter than it is.
        return min(read, wanted - 1)
    return read


def _compare_grids(name: str, grid: Grid, grids: Mapping[str, Grid]) -> list[tuple[str, str]]:
    """Rules that a scan's grid breaks against most others of its case: ``(rule, what was found)``."""
    other = main_grid(grids)
    other_name = next(name for name, candidate in grids.items() if candidate is other)
    if grid.shape != other.shape:
        return [("G05-shape-differs", f"shape {_sizes(grid.shape)}, {other_name} has {_sizes(other.shape)}")]
    if np.allclose(grid.affine, other.affine, rtol=0, atol=AFFINE_TOLERANCE_MM):
        return []
    if grid.axes != other.axes:
        differs = f"orientation {grid.axes}, {other_name} has {other.axes}"
    elif not np.allclose(grid.spacing_mm, other.spacing_mm, rtol=0, atol=AFFINE_TOLERANCE_MM):
        differs = f"spacing {_sizes(grid.spacing_mm)} mm, {other_name} has {_sizes(other.spacing_mm)} mm"
    elif not np.allclose(grid.affine[:3, :3], other.affine[:3, :3], rtol=0, atol=AFFINE_TOLERANCE_MM):
        differs = f"axes are tilted against those of {other_name}"
    else:
        apart = np.linalg.norm(grid.affine[:3, 3] - other.affine[:3, 3])
        differs = f"position is {apart:.3g} mm away from that of {other_name}"
    return [("G06-affine-differs", differs)]


def main_grid(grids: Mapping[str, Grid]) -> Grid:
    """The grid that most scans of a case have, of two the first; ``grids`` is not empty."""

    def sharing(grid: Grid) -> int:
        return sum(
            grid.shape == other.shape and np.allclose(grid.affine, other.affine, rtol=0, atol=AFFINE_TOLERANCE_MM)
            for other in grids.values()
        )

    return max(grids.values(), key=sharing)


def _off_template(grid: Grid) -> str | None:
    """How a grid differs from BraTS's field of view, whatever its voxel size; None where it does not."""
    if grid.axes != "".join(TEMPLATE_AXES):
        return f"orientation {grid.axes}, not {''.join(TEMPLATE_AXES)}"
    extent = np.array(grid.shape) * grid.spacing_mm
    # A voxel size that does not divide the field of view is rounded up to whole voxels.
    if np.any(np.abs(extent - TEMPLATE_MM) >= grid.spacing_mm):
        return f"field of view {_sizes(np.round(extent, 1))} mm, not {_sizes(TEMPLATE_MM)} mm"
    corner = grid.affine[:3] @ [-0.5, -0.5, -0.5, 1]
    if np.abs(corner - TEMPLATE_CORNER_MM).max() > 1.0:
        return f"field of view begins at {_sizes(np.round(corner, 1))} mm, not at {_sizes(TEMPLATE_CORNER_MM)} mm"
    return None


def _sizes(values: object) -> str:
    return " x ".join(f"{float(value):g}" for value in np.asarray(values).tolist())
