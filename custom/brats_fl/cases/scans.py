"""Scans on disk: a NIfTI file of its own, or a volume of a 4-D file, named by its number: ``BRATS_001.nii.gz#2``."""

from __future__ import annotations

import gzip
import re
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from brats_fl.constants import MODALITIES
from brats_fl.errors import CaseError

# Headers written by different tools round affines to about 1e-5 mm; 1e-3 mm over 240 voxels is under a quarter voxel.
AFFINE_TOLERANCE_MM = 1e-3

# Only after a NIfTI file's ending: a folder may be called scans#1.
_VOLUME = re.compile(r"(?P<file>.+\.nii(?:\.gz)?)#(?P<number>\d+)")


def split_volume(scan: str | Path) -> tuple[Path, int | None]:
    """File of a scan, and which of its volumes the scan is; None where the file holds this scan alone."""
    match = _VOLUME.fullmatch(str(scan))
    return (Path(match["file"]), int(match["number"])) if match else (Path(scan), None)


def name_volume(file: Path, number: int) -> Path:
    """A volume of a 4-D file as a data list names it, numbered from 0."""
    return Path(f"{file}#{number}")


def volume_fault(shape: tuple[int, ...], number: int | None, file: Path) -> str | None:
    """What is wrong where a file of this shape does not hold the scan that is looked for in it."""
    if number is None and len(shape) != 3:
        return f"has shape {shape}; a volume must be 3-D, or be named as one of a 4-D file, {file.name}#0 ({file})"
    if number is not None and len(shape) != 4:
        return f"is named as volume #{number}, but its file has shape {shape}; leave #{number} out ({file})"
    if number is not None and number >= shape[3]:
        return f"is named as volume #{number}, but its file has #0 to #{shape[3] - 1}; name one of these ({file})"
    return None


def read_to_the_end(path: Path) -> Any:
    """An image of which every byte was read: nibabel stops at the last voxel and never sees the checksum behind it.

    Raises:
        Exception: What gzip, zlib, nibabel and the file system raise for a damaged file.
    """
    image = nib.load(path)
    return type(image).from_bytes(gzip.decompress(path.read_bytes())) if path.name.endswith(".gz") else image


def read_volume(case: str, name: str, path: Path) -> nib.Nifti1Image:
    """A NIfTI file with its voxels in memory, so that a truncated or damaged file is found here and not later.

    Raises:
        CaseError: The file is missing or unreadable.
    """
    try:
        volume = read_to_the_end(path)
        voxels = np.asanyarray(volume.dataobj)
    except FileNotFoundError:
        raise CaseError(f"{case}: {name} is missing; restore {path} or take the case off the data list") from None
    except Exception as error:  # gzip, zlib, nibabel and the file system each have their own classes
        raise CaseError(f"{case}: {name} cannot be read ({type(error).__name__}: {error}); replace {path}") from error
    return nib.Nifti1Image(voxels, volume.affine, volume.header)


def take_volume(case: str, name: str, image: nib.Nifti1Image, number: int | None, path: Path) -> nib.Nifti1Image:
    """The 3-D image of a scan, from the image of its file.

    Raises:
        CaseError: The file is not 3-D, or where ``number`` is given not 4-D with such a volume.
    """
    if fault := volume_fault(image.shape, number, path):
        raise CaseError(f"{case}: {name} {fault}")
    return image if number is None else nib.Nifti1Image(image.dataobj[..., number], image.affine, image.header)


def check_same_grid(case: str, name: str, volume: Any, grid: Any, path: Path) -> None:
    """Raise ``CaseError`` where a volume's shape or affine is not that of the case's first scan."""
    if volume.shape != grid.shape:
        raise CaseError(
            f"{case}: {name} has shape {volume.shape}, {MODALITIES[0]} has {grid.shape}; "
            f"all files of a case must share one grid: register or resample them ({path})"
        )
    if not np.allclose(volume.affine, grid.affine, rtol=0, atol=AFFINE_TOLERANCE_MM):
        raise CaseError(
            f"{case}: the affine of {name} differs from that of {MODALITIES[0]} by up to "
            f"{np.abs(volume.affine - grid.affine).max():.3g} mm; all files of a case must share one grid: "
            f"register or resample them ({path})"
        )
