"""NIfTI files, packed or not: opened by their headers, measured, and read to their last byte, within stated limits."""

from __future__ import annotations

import gzip
import io
import math
import re
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Final, cast

import nibabel as nib
import numpy as np
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError
from numpy.typing import NDArray

from brats_fl.cases.grids import show
from brats_fl.errors import ScanError, ScanFault

READ_ERRORS: Final = (ImageFileError, HeaderDataError, OSError, EOFError, ValueError, OverflowError, zlib.error)
"""What nibabel, gzip and the file system raise for a file that is no sound NIfTI: of 12,000 damaged ones no other."""

NIFTI: Final = r"(?P<stem>(?s:.+))\.(?i:nii(?:\.gz)?)"
"""What the name of a NIfTI file matches, whatever its capitals."""

MOST_VOXELS: Final = 512**3
"""All volumes of a file together, 1 GiB as float64; MSD Task01's have 36 million. A packed file may unpack to a
thousand times its length, so its header is asked before."""

MOST_HEADER_BYTES: Final = 16 << 20
SCANNER_SPACE: Final = 1
"""NIfTI's code for coordinates of the scanner; viewers that read the code 0 ignore the affine."""

SPARE_BYTES: Final = 1 << 20
"""What may lie behind the last voxel: some tools pad their files."""


_CHUNK_BYTES = 1 << 20
_GZIP_MAGIC = b"\x1f\x8b"
_HEADER_BYTES = 540  # NIfTI-2's; NIfTI-1's has 348


def nifti_stem(file: Path) -> str | None:
    """Name of a NIfTI file without its ending; None for other files."""
    match = re.fullmatch(NIFTI, file.name)
    return match["stem"] if match else None


def is_packed(file: Path) -> bool:
    """Whether a file is packed with gzip, by its name and how it begins: some tools unpack it and leave it its name."""
    with file.open("rb") as stream:
        return file.name.lower().endswith(".gz") and stream.read(len(_GZIP_MAGIC)) == _GZIP_MAGIC


@contextmanager
def faults_explained(file: Path) -> Iterator[None]:
    """Turn what reading a file raises into a ``ScanError`` with its name."""
    try:
        with np.errstate(all="ignore"):  # of a header that is nonsense; what comes out is checked
            yield
    except FileNotFoundError as error:
        raise ScanError(ScanFault.MISSING, f"{file} is not there") from error
    except READ_ERRORS as error:
        what = f"{type(error).__name__}: {error}"
        raise ScanError(ScanFault.UNREADABLE, f"{file} cannot be read as NIfTI ({what})") from error


def open_image(file: Path) -> tuple[nib.Nifti1Image, int]:
    """Image whose voxels are not read, and cannot be, and how many bytes its header says that there are."""
    with faults_explained(file):
        if file.is_dir():
            raise ScanError(ScanFault.MISSING, f"{file} is a folder and no file")
        if not file.is_file():
            raise ScanError(ScanFault.MISSING, f"{file} is not there")
        if nifti_stem(file) is None:
            raise ScanError(ScanFault.UNREADABLE, f"{file} ends in neither .nii nor .nii.gz")
        with file.open("rb") as raw:
            image = _parse(_head(cast("IO[bytes]", _unpacked(raw)) if is_packed(file) else raw))
        dtype = image.get_data_dtype()
        voxels = math.prod(int(size) for size in image.shape)
        wanted = int(image.dataobj.offset) + dtype.itemsize * voxels
    if dtype.kind not in "iuf":
        name = nib.nifti1.data_type_codes.label[int(image.header["datatype"])]
        raise ScanError(ScanFault.UNREADABLE, f"{file} holds {name} values, not one real number a voxel")
    if voxels > MOST_VOXELS:
        found = (
            f"{file} says that it has {show(image.shape)} = {voxels:,} voxels; no more than {MOST_VOXELS:,} are read"
        )
        raise ScanError(ScanFault.UNREADABLE, found)
    return image, wanted


def _unpacked(raw: IO[bytes]) -> gzip.GzipFile:
    return gzip.GzipFile(fileobj=raw)


def _head(stream: IO[bytes]) -> IO[bytes]:
    """What comes before the first voxel: the header, and what it is followed by."""
    start = stream.read(_HEADER_BYTES)
    kind = _kind_of(start).header_class
    offset = int(kind(start[: kind.sizeof_hdr], check=False)["vox_offset"])
    if offset > MOST_HEADER_BYTES:
        raise ImageFileError(f"its voxels begin at byte {offset:,}; no more than {MOST_HEADER_BYTES:,} are read before")
    return io.BytesIO(start + stream.read(max(offset - len(start), 0)))


def _kind_of(start: bytes) -> type[nib.Nifti1Image]:
    for kind in (nib.Nifti1Image, nib.Nifti2Image):
        if kind.header_class.may_contain_header(start):
            return kind
    packed = ", it is packed with gzip: name it .nii.gz" if start.startswith(_GZIP_MAGIC) else ""
    raise ImageFileError(f"it does not begin with a NIfTI header{packed}")


def _parse(stream: IO[bytes]) -> nib.Nifti1Image:
    """Image of a stream at its beginning; its voxels are read from there when they are asked for."""
    kind = _kind_of(stream.read(_HEADER_BYTES))
    stream.seek(0)
    # Without mmap, as a file may be changed while it is mapped.
    return kind.from_file_map({"image": nib.FileHolder(fileobj=stream)}, mmap=False)


def check_whole(file: Path, wanted: int) -> None:
    """Raise ``ScanError`` unless a file has the bytes of its voxels; a packed one is unpacked only where in doubt."""
    with faults_explained(file):
        length = _length(file, wanted)
    _check_length(file, length, wanted)


def _length(file: Path, wanted: int) -> int:
    """Bytes that a file holds once unpacked."""
    if not is_packed(file):
        return file.stat().st_size
    with file.open("rb") as stream:
        stream.seek(-4, 2)
        # RFC 1952: a gzip file ends with the length of what it holds, modulo 2^32.
        (length,) = struct.unpack("<I", stream.read(4))
    if length == wanted % 2**32:
        return wanted
    read = 0
    try:
        with file.open("rb") as raw:
            unpacked = _unpacked(raw)
            while read <= wanted + SPARE_BYTES and (chunk := unpacked.read1(_CHUNK_BYTES)):
                read += len(chunk)
    except EOFError:
        return min(read, wanted - 1)
    return read


def _check_length(file: Path, length: int, wanted: int) -> None:
    if length < wanted:
        raise ScanError(ScanFault.TRUNCATED, f"{file} is cut short: it holds {length} of {wanted} bytes")
    if length > wanted + SPARE_BYTES:
        found = f"{file} goes on beyond the {wanted:,} bytes that its header speaks of, by more than {SPARE_BYTES:,}"
        raise ScanError(ScanFault.UNREADABLE, found)


def load_image(file: Path) -> nib.Nifti1Image:
    """Image of which every byte was read: nibabel stops at the last voxel and never sees the checksum behind it."""
    _, wanted = open_image(file)
    with faults_explained(file), file.open("rb") as raw:
        if is_packed(file):
            content = _unpack(raw, file, wanted)
            _check_length(file, len(content), wanted)
            image = _parse(io.BytesIO(content))
        else:
            _check_length(file, file.stat().st_size, wanted)
            image = _parse(raw)
        return type(image)(np.asanyarray(image.dataobj), image.affine, image.header)


def _unpack(raw: IO[bytes], file: Path, wanted: int) -> bytes:
    """What a packed file holds, to its end; of one that holds far more than it should the first part."""
    try:
        return _unpacked(raw).read(wanted + SPARE_BYTES + 1)
    except EOFError as error:
        raise ScanError(ScanFault.TRUNCATED, f"{file} is cut short ({error})") from error


def in_scanner_space(voxels: NDArray[Any], affine: Any) -> nib.Nifti1Image:
    """A volume (H, W, D) as image in the space that an affine (4, 4) says."""
    affine = np.asarray(affine, dtype=np.float64)
    volume = nib.Nifti1Image(voxels, affine)
    volume.set_qform(affine, SCANNER_SPACE)
    volume.set_sform(affine, SCANNER_SPACE)
    volume.header.set_xyzt_units("mm")
    return volume
