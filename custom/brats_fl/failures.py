"""What went wrong with which case, with which files, in which step: in words, also where the error is not ours."""

from __future__ import annotations

import errno
import os
import shutil
import sys
import traceback
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Final, NoReturn

from brats_fl.errors import StepError, TrainingAborted, cause_of, chain_of

NO_MEMORY: Final = "you tried to allocate"
"""How torch's allocator on the CPU says that memory ran out, in a plain RuntimeError."""


DISK_FULL: Final = "DISK_FULL"
"""Code of a site that has no room for what it must keep."""

NO_SPACE: Final = (errno.ENOSPC, errno.EDQUOT)
NO_SPACE_WORDS: Final = os.strerror(errno.ENOSPC)


@contextmanager
def during(name: str, items: Iterable[Mapping[str, Any]]) -> Iterator[None]:
    """Name step, cases and files where something fails in the block that is no error of ours; ours say so themselves.

    Args:
        name: What is being done, such as ``preparing``.
        items: The cases, items of a data list.

    Raises:
        StepError: Something failed.
    """
    try:
        yield
    except Exception as error:
        reraise(error, name, items)


def reraise(error: Exception, name: str, items: Iterable[Mapping[str, Any]]) -> NoReturn:
    """Raise an error of ours as it is, also one that MONAI wrapped, any other as ``during`` does."""
    if isinstance(error, TrainingAborted) or cause_of(error) is not None:
        raise error
    listed = list(items)
    cases = ", ".join(dict.fromkeys(str(item.get("case", "a case")) for item in listed))
    raise StepError(cases, name, f"{explain(error)}{name_files(listed)}") from error


def name_files(items: Iterable[Mapping[str, Any]]) -> str:
    """The scans of the cases, each once, in brackets; nothing where they are not known."""
    images = [item["image"] for item in items if isinstance(item.get("image"), (list, tuple))]
    files = dict.fromkeys(file for image in images for file in image if isinstance(file, str))
    return f" ({', '.join(files)})" if files else ""


def step_and_reason(error: BaseException, otherwise: str) -> tuple[str, str]:
    """In which step something failed, and why; the step that is given where the error names none."""
    known = cause_of(error)
    return (known.step, known.reason) if isinstance(known, StepError) else (otherwise, explain(error))


def explain(error: BaseException) -> str:
    """An error in one line: in our words where we know it, else what was at the bottom of it."""
    known = cause_of(error)
    if known is not None:
        return str(known)
    if is_out_of_memory(error):
        return "memory ran out; free some, take a machine with more, or lower patch_size or batch_size"
    if (full := full_disk(error)) is not None:
        place = place_of(full) if isinstance(full, OSError) else ""
        return f"the disk is full{f' ({place})' if place else ''}; free some space"
    first = error
    while first.__cause__ is not None:
        first = first.__cause__
    said = " ".join(str(first).split())
    return f"{type(first).__name__}: {said}" if said else type(first).__name__


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out, of the GPU or the host."""
    return any(
        isinstance(link, MemoryError) or type(link).__name__ == "OutOfMemoryError" or NO_MEMORY in str(link)
        for link in chain_of(error)
    )


def is_disk_full(error: BaseException) -> bool:
    """Whether a file could not be written for lack of space, on the disk or in the user's share of it."""
    return full_disk(error) is not None


def full_disk(error: BaseException) -> BaseException | None:
    """Of an error and its causes the first that says that a disk is full; None where none does."""
    found = (
        link
        for link in chain_of(error)
        if getattr(link, "errno", None) in NO_SPACE or (isinstance(link, shutil.Error) and NO_SPACE_WORDS in str(link))
    )
    return next(found, None)


def place_of(error: OSError) -> str:
    """The file that could not be written; empty where it is not known."""
    if isinstance(error, shutil.Error) and error.args and isinstance(error.args[0], list):
        return str(error.args[0][0][1])  # (source, target, why) of each file that a tree was to be copied with
    return str(error.filename2 or error.filename or "")


def tell_reason_last() -> None:
    """Let this process, where an error ends it, say the reason in a last line, under the traceback.

    MONAI's command wraps every error in one of its own: without this the last line of a failed evaluation names an
    expression of the configuration.
    """
    sys.excepthook = _print_reason_last


def _print_reason_last(kind: type[BaseException], error: BaseException, where: TracebackType | None) -> None:
    traceback.print_exception(kind, error, where)
    if isinstance(error, Exception):
        print(f"error: {explain(error)}", file=sys.stderr)
