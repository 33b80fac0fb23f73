"""The folder of preprocessed cases: named by content, shared by any number of processes, limited in size.

    FOLDER/CONTENT-SETTINGS.pt      an entry: what the transforms with these settings make of a case
    FOLDER/hashes/PATHS.json        SHA-256 of a case's files, good for as long as none of them changes
    FOLDER/.brats-fl-XXXXXXXX.tmp   scratch: a file that is being written, or that a killed process left

Files appear whole under their names. There is no lock, which a network disk may not have and a stopped process may hold
for ever: two processes that prepare one case at once both do the work, and the second puts the same in the same place.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from brats_fl.cases.scans import split_volume
from brats_fl.constants import DEFAULT_LABEL_TABLE
from brats_fl.errors import CacheError
from brats_fl.files import SCRATCH, appearing
from brats_fl.reading import read_if_sound

LIMIT_VARIABLE = "BRATS_FL_CACHE_LIMIT_GB"
DEFAULT_LIMIT_GB = 100.0
"""All of BraTS 2023 (1,251 cases) in both profiles takes 55 GB."""

SCRATCH_SECONDS = 24 * 3600.0
"""Age at which scratch is no longer being written: the largest entry takes seconds."""

PROCESS_BEGAN_NS = time.time_ns()

_ENTRY = re.compile(r"(?P<content>[0-9a-f]{32})-(?P<settings>[0-9a-f]{8})\.pt")
_HASHES = re.compile(r"[0-9a-f]{32}\.json")
_HASH_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True)
class CacheFile:
    """A file that the cache wrote."""

    path: Path
    size: int
    """In bytes."""
    used_ns: int
    """When an entry was last read or written, else when the file was written; since 1970."""

    @property
    def content(self) -> str:
        """What an entry was made of; the first part of its name."""
        return self.path.name.partition("-")[0]

    @property
    def settings(self) -> str:
        """What made it; the second part of its name."""
        return self.path.stem.partition("-")[2]


def cache_limit(environ: Mapping[str, str] = os.environ) -> float:
    """Bytes that the entries of a cache may take together: ``$BRATS_FL_CACHE_LIMIT_GB``, else 100 GB.

    Raises:
        CacheError: The variable is no positive number.
    """
    text = environ.get(LIMIT_VARIABLE) or str(DEFAULT_LIMIT_GB)
    try:
        limit = float(text)
    except ValueError:
        limit = math.nan
    if not 0 < limit < math.inf:
        raise CacheError(
            f"{LIMIT_VARIABLE} must be a positive number of GB (got {text!r}); "
            f"set it to {DEFAULT_LIMIT_GB:g}, say, or unset it"
        )
    return limit * 1e9


# --- Names ---


def digest(facts: Any, digits: int) -> str:
    """Hexadecimal digits of the SHA-256 of a JSON value."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:digits]


class FileHashes:
    """SHA-256 of the files of cases, each file read once for as long as its size and its times stay as they are.

    The time of the last change of name, owner or content (ctime) counts, too: a file that another of the same size
    replaced may have kept its time of modification, as copying tools let it, but not this one.

    Args:
        folder: Of the cache; what was read is kept there for other processes, and in memory where that fails.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.known: dict[str, dict[str, str]] = {}

    def read(self, files: Sequence[Path], only_known: bool = False) -> list[str] | None:
        """The files' SHA-256; None where one would have to be read and ``only_known`` forbids it.

        Raises:
            OSError: A file is missing or cannot be read.
        """
        paths = [os.path.realpath(file) for file in files]
        name = f"{digest(paths, 32)}.json"
        states = states_of(paths)
        known = self.known.get(name, {})
        if not known.keys() >= set(states):
            known = read_strings(self.folder / "hashes" / name)
        if not known.keys() >= set(states):
            if only_known:
                return None
            known = {state: known.get(state) or hash_file(path) for state, path in zip(states, paths, strict=True)}
            if states_of(paths) == states:  # else one changed while it was read
                self._keep(name, known)
        self.known[name] = known
        return [known[state] for state in states]

    def _keep(self, name: str, hashes: Mapping[str, str]) -> None:
        try:
            path = self.folder / "hashes" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            # In the cache's own folder, where what a killed process left is looked for.
            with appearing(path, self.folder) as scratch:
                scratch.write_text(json.dumps(hashes), encoding="utf-8")
        except OSError:
            pass  # a folder that cannot be written to: storing the case will say so


def states_of(paths: Iterable[str]) -> list[str]:
    """What changes when a file does: size, and times of modification and of change; its number tells files apart."""
    found = [Path(path).stat() for path in paths]
    return [f"{number} {s.st_size} {s.st_mtime_ns} {s.st_ctime_ns}" for number, s in enumerate(found)]


def read_strings(path: Path) -> dict[str, str]:
    """A JSON object of strings; empty where there is none."""
    content = read_if_sound(path)
    return content if all(isinstance(value, str) for value in content.values()) else {}


def hash_file(path: str) -> str:
    """SHA-256 of a file's bytes."""
    total = hashlib.sha256()
    with Path(path).open("rb") as file:
        while chunk := file.read(_HASH_CHUNK_BYTES):
            total.update(chunk)
    return total.hexdigest()


def content_of(item: Mapping[str, Any], hashes: FileHashes, only_known: bool = False) -> str | None:
    """32 hexadecimal digits for what is in a case's files: bytes, numbers of volumes, and the label convention.

    Neither the case's name nor where its files lie goes in. None where a file cannot be read, or, with
    ``only_known``, is not known as it is now.
    """
    scans = [split_volume(scan) for scan in item["image"]]
    label = split_volume(item["label"]) if item.get("label") else None
    files = list(dict.fromkeys(file for file, _ in [*scans, *([label] if label else [])]))
    try:
        found = hashes.read(files, only_known)
    except OSError:
        return None  # reading the case will say what is wrong
    if found is None:
        return None
    hash_of = dict(zip(files, found, strict=True))
    facts: list[Any] = [[hash_of[file], number] for file, number in scans]
    if label:
        facts.append([hash_of[label[0]], label[1], item.get("labels") or DEFAULT_LABEL_TABLE])
    return digest(facts, 32)


def entry_path(folder: Path, content: str, settings: str) -> Path:
    """Where the entry of a content and of settings, 32 and 8 digits, lies."""
    return folder / f"{content}-{settings}.pt"


# --- Files ---


def mark_used(path: Path) -> bool:
    """Whether a file is there; notes that it is used now."""
    # By this machine's clock, as PROCESS_BEGAN_NS: a network disk may have another.
    now = time.time_ns()
    try:
        os.utime(path, ns=(now, now))
    except FileNotFoundError:
        return False
    except OSError:
        return path.is_file()  # somebody else's, or a disk to read from only
    return True


def list_entries(folder: Path) -> list[CacheFile]:
    """The entries of a cache, the least recently used first."""
    return sorted(_files(folder, _ENTRY), key=lambda entry: entry.used_ns)


def list_scratch(folder: Path, older_than_s: float = SCRATCH_SECONDS) -> list[CacheFile]:
    """What killed processes left half-written."""
    limit_ns = time.time_ns() - older_than_s * 1e9
    return [file for file in _files(folder, SCRATCH) if file.used_ns < limit_ns]


def list_hashes(folder: Path) -> list[CacheFile]:
    """The files that keep what ``FileHashes`` read."""
    return list(_files(folder / "hashes", _HASHES))


def _files(folder: Path, name: re.Pattern[str]) -> Iterator[CacheFile]:
    try:
        found = [file for file in os.scandir(folder) if name.fullmatch(file.name)]
    except (FileNotFoundError, NotADirectoryError):
        return
    for file in found:
        try:
            if file.is_file(follow_symlinks=False):
                status = file.stat(follow_symlinks=False)
                yield CacheFile(folder / file.name, status.st_size, status.st_mtime_ns)
        except FileNotFoundError:
            continue  # another process has removed it


def remove(files: Iterable[CacheFile]) -> list[CacheFile]:
    """Remove files, and return them without those that another process removed; who has one open still reads it."""
    removed = []
    for file in files:
        try:
            file.path.unlink()
        except FileNotFoundError:
            continue
        removed.append(file)
    return removed


def make_room(folder: Path, size: float, limit: float, used_since_ns: int = PROCESS_BEGAN_NS) -> bool:
    """Whether an entry of this size fits; for that the least recently used ones go, as many as must.

    None goes that was used since this process began: epochs over more cases than fit would else remove each entry
    just before it is needed again, and no case would ever be found. And none goes in vain.

    Args:
        folder: Of the cache.
        size: Of the entry that is to be stored, in bytes.
        limit: Of all entries together, in bytes.
        used_since_ns: Entries used at this time or later stay.
    """
    entries = list_entries(folder)
    excess = sum(entry.size for entry in entries) + size - limit
    old = [entry for entry in entries if entry.used_ns < used_since_ns]
    if excess > sum(entry.size for entry in old):
        return False
    for entry in old:
        if excess <= 0:
            break
        remove([entry])
        excess -= entry.size
    return True
