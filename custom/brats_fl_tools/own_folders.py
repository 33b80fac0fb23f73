"""Folders that ``--force`` may replace: those that a command wrote, which a marker file in them tells."""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Literal

from brats_fl.errors import FolderError
from brats_fl.files import write_whole

MARKER_FILE: Final = ".brats-fl"

Kind = Literal[
    "run",
    "job",
    "POC workspace",
    "sample",
    "partition",
    "evaluation",
    "masks",
    "segmentation",
    "stress",
    "drill",
    "baseline",
    "pretraining",
    "study",
    "crate",
    "deployment",
    "audit",
]
"""What a folder holds; its marker says so in a line."""


def is_ours(folder: Path, kind: Kind) -> bool:
    """Whether a command of this kind wrote the folder."""
    marker = folder / MARKER_FILE
    return marker.is_file() and marker.read_bytes().strip() == kind.encode()


def claim(folder: Path, kind: Kind) -> None:
    """Make the folder where there is none, and mark it as ours."""
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(folder / MARKER_FILE, f"{kind}\n")


def refuse_foreign(folder: Path, kind: Kind, force: bool, option: str = "--out") -> None:
    """Raise ``FolderError`` unless a folder may be replaced: it is empty, or it is ours and ``force`` is given.

    Args:
        folder: Need not exist.
        kind: What the command writes.
        force: Of the command.
        option: The option that names the folder.
    """
    if folder.exists() and not folder.is_dir():
        raise FolderError(f"{folder}: is a file; {option} names a folder")
    if not folder.is_dir() or all(path.name == MARKER_FILE for path in folder.iterdir()):
        return
    if not is_ours(folder, kind):
        raise FolderError(
            f"{folder} is not empty and no {kind} of brats-fl's ({MARKER_FILE} does not say so), so that nothing in it "
            f"is replaced; choose another {option}, or remove it yourself"
        )
    if not force:
        raise FolderError(f"{folder} is not empty: it holds a {kind}; choose another {option} or add --force")


def fresh_folder(folder: Path, kind: Kind, force: bool, option: str = "--out") -> None:
    """An empty folder of ours in the place of what was there.

    Raises:
        FolderError: As ``refuse_foreign``.
    """
    refuse_foreign(folder, kind, force, option)
    if folder.is_dir():
        shutil.rmtree(folder)
    claim(folder, kind)


@contextmanager
def appearing_folder(folder: Path, kind: Kind, force: bool, option: str = "--out") -> Iterator[Path]:
    """A folder to write that becomes ``folder`` at the end, and goes where an error is raised: no half of one stays.

    Raises:
        FolderError: As ``refuse_foreign``.
    """
    refuse_foreign(folder, kind, force, option)
    scratch, earlier = (folder.with_name(f".brats-fl-{secrets.token_hex(4)}.tmp") for _ in range(2))
    try:
        claim(scratch, kind)
        yield scratch
        if folder.is_dir():
            folder.rename(earlier)
        scratch.rename(folder)
    finally:
        for left in (scratch, earlier):
            shutil.rmtree(left, ignore_errors=True)


@contextmanager
def emptied_on_failure(folder: Path) -> Iterator[None]:
    """Where the block fails, remove a folder that would be taken for a whole one, or be in the way the next time."""
    try:
        yield
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
