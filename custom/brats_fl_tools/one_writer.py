"""One command at a time writes a folder or a file: a second one is refused, and is not silently the winner.

Who writes ``runs/unet`` has the file ``runs/.unet.brats-fl-lock`` to itself until it ends, however it ends: the lock is
the system's, not the file's being there.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import functools
import inspect
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, TypeVar

from brats_fl.errors import FolderError
from brats_fl.failures import is_disk_full

NO_LOCKS: Final = (errno.ENOLCK, errno.EOPNOTSUPP, errno.EINVAL)
"""What a disk says that keeps no locks, such as some network disks: there nothing is refused."""

_held: set[Path] = set()
"""Locks of this process: a command that calls another's work does not stand in its own way."""

Function = TypeVar("Function", bound=Callable[..., Any])


def writes(parameter: str, within: str = "") -> Callable[[Function], Function]:
    """Let a function run only while nobody else writes what it writes.

    Args:
        parameter: Its parameter that names the folder or file.
        within: What it writes within that folder, where it is not the folder as a whole.
    """

    def decorate(function: Function) -> Function:
        signature = inspect.signature(function)

        @functools.wraps(function)
        def alone(*arguments: Any, **named: Any) -> Any:
            target = Path(signature.bind(*arguments, **named).arguments[parameter])
            with only_writer(target / within):
                return function(*arguments, **named)

        return alone  # type: ignore[return-value]

    return decorate


@contextlib.contextmanager
def only_writer(target: Path) -> Iterator[None]:
    """Have a folder or file to write alone among all processes; where nothing is written, no folder stays either.

    Raises:
        FolderError: Another command of brats-fl writes it, or nothing can be written there.
    """
    if target.is_dir() and not os.access(target, os.W_OK | os.X_OK):
        raise FolderError(f"{target}: cannot be written ({os.strerror(errno.EACCES)}); choose another place")
    path = lock_file(target)
    if path in _held:
        yield
        return
    missing = [folder for folder in path.parents if not folder.exists()]
    try:
        with _place_told(target):
            descriptor = _take(path, target)
        _held.add(path)
        try:
            yield
        finally:
            _held.discard(path)
            if descriptor is not None:
                path.unlink(missing_ok=True)  # before it is let go: who comes later makes a new one
                os.close(descriptor)
    finally:
        with contextlib.suppress(OSError):  # there is something in it
            for folder in missing:
                folder.rmdir()


@contextlib.contextmanager
def _place_told(target: Path) -> Iterator[None]:
    """Raise what the system says of the lock as ``FolderError`` of what is to be written; of a full disk as it is."""
    try:
        yield
    except OSError as error:
        if is_disk_full(error):
            raise
        in_the_way = next((folder for folder in target.parents if folder.exists() and not folder.is_dir()), None)
        why = f"{in_the_way} is a file, no folder" if in_the_way else error.strerror
        raise FolderError(f"{target}: cannot be written ({why}); choose another place") from error


def lock_file(target: Path) -> Path:
    """Where the lock of a folder or file is: beside it, or in it where nothing may be written beside it."""
    target = target.resolve()
    place = target if target.is_dir() and not os.access(target.parent, os.W_OK) else target.parent
    return place / f".{target.name}.brats-fl-lock"


def _take(path: Path, target: Path) -> int | None:
    """Descriptor of the locked file; None on a disk without locks."""
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        except FileNotFoundError:
            if path.parent.is_dir():
                raise
            continue  # who had made the folder has just removed it again
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            who = os.read(descriptor, 20).decode("ascii", errors="replace").strip()
            os.close(descriptor)
            if error.errno in NO_LOCKS:
                path.unlink(missing_ok=True)
                return None
            if not isinstance(error, BlockingIOError):
                raise OSError(error.errno, error.strerror, str(path)) from error
            raise FolderError(
                f"{target}: another command of brats-fl (process {who or 'unknown'}) is writing there; wait until it "
                "has ended, or choose another place"
            ) from None
        if _is_at(descriptor, path):
            os.ftruncate(descriptor, 0)
            os.write(descriptor, f"{os.getpid()}\n".encode())
            return descriptor
        os.close(descriptor)  # who had it has just removed it


def _is_at(descriptor: int, path: Path) -> bool:
    with contextlib.suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(descriptor), path.stat())
    return False
