"""Nothing of a hospital lies at another house: every file of a host is unpacked and searched."""

from __future__ import annotations

import gzip
import io
import tarfile
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

import numpy as np

from brats_fl_tools.drill.faults.verdicts import Unexpected
from brats_fl_tools.drill.federation import Drill
from brats_fl_tools.drill.injected import CANARY

DEEPEST: Final = 3
"""A checkpoint in an archive in FLARE's job store is two deep."""

VOXEL_TYPES: Final = ("<i2", "<i4", "<f2", "<f4", "<f8", ">i2", ">f4")
"""How voxels may be written: as in the file, as read, and as networks take them."""


def words_of(text: str) -> list[bytes]:
    """How a text may be written: UTF-8, and UTF-16 as some databases have it."""
    return [text.encode(), text.encode("utf-16-le")]


def voxels_of(values: Sequence[float]) -> list[bytes]:
    """How a row of voxels may be written: in each of ``VOXEL_TYPES``, from either end."""
    return [np.array(row).astype(kind).tobytes() for row in (values, values[::-1]) for kind in VOXEL_TYPES]


def search(folder: Path, sought: Mapping[str, Sequence[bytes]]) -> dict[str, str]:
    """File -> what it holds, of all files of a folder, in archives and compressed ones too.

    Args:
        folder: Symbolic links are not followed.
        sought: Name -> ways in which it may be written.
    """
    found: dict[str, str] = {}
    for path in sorted(folder.rglob("*")):
        if path.is_symlink() or not path.is_file():
            continue
        try:
            content = path.read_bytes()
        except FileNotFoundError:  # it was there a moment ago
            continue
        name = str(path.relative_to(folder))
        for place, part in [(name, name.encode()), *unpacked(name, content)]:
            what = [what for what, ways in sought.items() if any(way in part for way in ways)]
            found |= {place: " and ".join(what)} if what else {}
    return found


def unpacked(name: str, content: bytes, depth: int = 0) -> Iterator[tuple[str, bytes]]:
    """A file's content, and that of everything packed into it, with where it lies."""
    yield name, content
    if depth >= DEEPEST:
        return
    for inner, part in _parts(content):
        yield from unpacked(f"{name}!{inner}", part, depth + 1)


def _parts(content: bytes) -> Iterator[tuple[str, bytes]]:
    file = io.BytesIO(content)
    if content[:2] == b"PK":
        with zipfile.ZipFile(file) as archive:
            yield "names", "\n".join(archive.namelist()).encode()
            yield from ((name, archive.read(name)) for name in archive.namelist())
    elif content[:2] == b"\x1f\x8b":
        yield "gz", gzip.decompress(content)
    elif content[:1] == b"\x78":
        try:
            yield "zlib", zlib.decompress(content)
        except zlib.error:
            return
    elif content[257:262] == b"ustar":
        with tarfile.open(fileobj=file) as archive:
            for member in archive:
                if member.isfile() and (inner := archive.extractfile(member)) is not None:
                    yield member.name, inner.read()


def expect_nothing_leaked(drill: Drill, sought: Mapping[str, Sequence[bytes]] | None = None) -> None:
    """No file at the server, the lead or the other admins holds what a broken site said, or what else is sought."""
    for host in ("server", "lead"):
        for place, what in search(drill.hosts.files(host), sought or {"text of the site": words_of(CANARY)}).items():
            raise Unexpected(f"{host}: {place} holds {what}")
