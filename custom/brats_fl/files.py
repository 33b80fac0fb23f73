"""Files that appear whole or not at all, files that one process has at a time, and names that several modules read."""

from __future__ import annotations

import fcntl
import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from io import FileIO
from pathlib import Path
from typing import Final

CASE_TABLE_FILE = "evaluation.csv"
CASE_TABLE_COLUMNS = ("case", "site", "split", "region", "dice", "hd95_mm", "volume_ml", "reference_volume_ml")

SCRATCH: Final = re.compile(r"\.?brats-fl-[0-9a-z_]{8}\.tmp(\..+)?")
"""Names of files that are being written, or that a killed process left half-written; once they had no dot in front."""

PASSED_OVER: Final = ("__MACOSX", "@eaDir", "#recycle", "lost+found", "$RECYCLE.BIN", "System Volume Information")
"""Folders that a Mac, Windows, a network disk or a file system adds; so are all hidden ones, such as ``.snapshot``."""


def is_passed_over(name: str) -> bool:
    """Whether a file or folder of this name is nobody's data: hidden, or added by a system."""
    return name.startswith(".") or name in PASSED_OVER


@contextmanager
def appearing(path: Path, folder: Path | None = None, ending: str = "") -> Iterator[Path]:
    """A place to write to that becomes ``path`` at the end, and goes where an error is raised.

    Every writer has a place of its own, so that of two who write one file at once the later one's stays, whole. What
    is written gets the rights that a new file gets, and nobody takes it for a finished one: its name begins with a dot.

    Args:
        path: Where the file appears; what is there is replaced.
        folder: Where the place lies, on the disk of ``path``; by default beside it.
        ending: Of the place's name, such as ``.nii.gz`` for a writer that goes by it.

    Raises:
        OSError: It cannot be written; with the file's name, which Python leaves out where a disk is full.
    """
    scratch = (folder or path.parent) / f".brats-fl-{secrets.token_hex(4)}.tmp{ending}"
    try:
        yield scratch
        scratch.replace(path)
    except OSError as error:
        if error.errno is None or error.filename not in (None, str(scratch)):
            raise  # another file's
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        scratch.unlink(missing_ok=True)


def write_whole(path: Path, content: str | bytes | memoryview) -> None:
    """Write a file that appears whole or not at all; text as UTF-8. Raises as ``appearing``."""
    with appearing(path) as scratch:
        if isinstance(content, str):
            scratch.write_text(content, encoding="utf-8")
        else:
            scratch.write_bytes(content)


def is_there(path: Path) -> bool:
    """Whether something has this name, a link to what cannot be reached just now included.

    To be asked of a file by which a hospital restricts what leaves: one that cannot be read is not no restriction.
    """
    return os.path.lexists(path)


def append_line(path: Path, line: str, is_synced: bool = False) -> None:
    """Add a line to a file, all of it or nothing, in a line of its own where an editor took the last line break away.

    Args:
        path: The file, which is made where it is not there.
        line: Without its line break; written as UTF-8.
        is_synced: Whether it is on the disk, and not in the system's memory, when this returns.

    Raises:
        OSError: It cannot be written; with the file's name, as ``appearing``.
    """
    try:
        with path.open("a+b", buffering=0) as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - 1))
            start = b"\n" if size and file.read(1) != b"\n" else b""
            try:
                _write_all(file, start + line.encode() + b"\n")
            except OSError:
                if path.is_file():
                    file.truncate(size)  # of half a line nobody can make anything
                raise
            if is_synced:
                os.fsync(file.fileno())
    except OSError as error:
        if error.errno is None or error.filename is not None:
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error


def _write_all(file: FileIO, content: bytes) -> None:
    rest = memoryview(content)
    while rest:
        rest = rest[file.write(rest) :]


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Have ``path``, a file for nothing else, alone among all processes and threads; waits for whoever has it.

    The system takes it back when a process ends, however it ends. On a network disk it holds between machines where
    the disk's server keeps locks, as NFS does unless it is mounted with ``nolock`` or ``local_lock``; there it holds
    within each machine.

    Raises:
        OSError: It cannot be made, or the disk has no locks; with the file's name.
    """
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(path)) from error
        yield
