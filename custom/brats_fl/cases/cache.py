"""A disk cache of preprocessed cases: decompressed, cropped, normalised once, read at memory speed from then on."""

from __future__ import annotations

import json
import mmap
import pickle
import warnings
from collections.abc import Mapping, Sequence
from contextlib import suppress
from enum import Enum
from pathlib import Path
from typing import Any

import monai
import numpy as np
import torch
from monai.data import Dataset
from monai.transforms import Compose, RandomizableTrait, Transform
from torch import Tensor

from brats_fl.cases.cache_folder import (
    LIMIT_VARIABLE,
    FileHashes,
    cache_limit,
    content_of,
    digest,
    entry_path,
    list_scratch,
    make_room,
    mark_used,
    remove,
)
from brats_fl.cases.datalists import CACHE_VARIABLE
from brats_fl.cases.datalists import default_cache_dir as default_cache_dir
from brats_fl.cases.scan_values import values_error
from brats_fl.cases.sources import hash_sources
from brats_fl.constants import MODALITIES
from brats_fl.errors import ScanValuesError
from brats_fl.failures import during
from brats_fl.files import appearing

ENTRY_OVERHEAD_BYTES = 4096
"""What ``torch.save`` writes around the tensors of a case, at most: measured 2.2 kB."""

REFUSED = "refused"
"""Key of an entry for a case whose values are refused: modality, rule and finding as JSON in UTF-8."""

# Shared with the processes that a loader forks anew for each epoch, so that they tell it once together.
_told_full = mmap.mmap(-1, 1)


class CaseCache(Dataset):
    """Dataset that stores what its deterministic transforms make of a case, and redoes only the random ones.

    An entry is found by the content of the case's files, the label convention, the transforms' settings and source, and
    MONAI's version: the same scans under another name or in another folder find it, too, and profiles may share a
    cache. Several processes may fill one cache (``cache_folder.py``), and an interrupted filling goes on
    where it stopped. Tensors come back memory-mapped. A case that is refused for the values of its scans has an entry,
    too, so that it is not read again to be refused.

    Args:
        data: Items of a data list, ``{"case", "image": [paths], "label": path, ...}``.
        transform: The whole chain; everything before its first random transform is stored.
        cache_dir: Folder of the cache, made when missing; None keeps nothing.

    Raises:
        CacheError: ``BRATS_FL_CACHE_LIMIT_GB`` is no positive number.
    """

    def __init__(self, data: Sequence[Mapping[str, Any]], transform: Compose, cache_dir: str | Path | None) -> None:
        super().__init__(data, transform)
        steps = flatten(transform)
        self.boundary = next((i for i, step in enumerate(steps) if isinstance(step, RandomizableTrait)), len(steps))
        self.settings = digest([monai.__version__, describe(self.fixed), hash_sources(self.fixed)], 8)
        self.cache_dir = None if cache_dir is None else Path(cache_dir)
        if self.cache_dir is not None:
            self.limit = cache_limit()
            self.hashes = FileHashes(self.cache_dir)
            tidy(self.cache_dir)

    # Properties, not attributes: MONAI's loader gives every transform in a list attribute of a dataset the same seed,
    # and the three flips would then always happen together.
    @property
    def fixed(self) -> list[Any]:
        """The transforms whose result is stored."""
        return flatten(self.transform)[: self.boundary]

    @property
    def random(self) -> list[Any]:
        """The transforms that are redone each time."""
        return flatten(self.transform)[self.boundary :]

    def _transform(self, index: int) -> Any:
        with during("reading and preparing", [self.data[index]]):
            item = self._stored(self.data[index])
            for step in self.random:
                item = step(item)
        return item

    def _stored(self, item: Mapping[str, Any]) -> dict[str, Any]:
        path = self._entry(item)
        if path is None:
            return {**item, **self._prepare(item)}
        stored = self._load(path, item)
        if stored is None:
            stored = self._prepare_or_refuse(item)
            if self._entry(item) == path:  # else a scan changed between the two readings, and this may be of either
                self._store(path, stored)
        if REFUSED in stored:
            raise refusal_of(stored[REFUSED], item)
        return {**item, **stored}

    def _entry(self, item: Mapping[str, Any]) -> Path | None:
        if self.cache_dir is None:
            return None
        content = content_of(item, self.hashes)
        return None if content is None else entry_path(self.cache_dir, content, self.settings)

    def _load(self, path: Path, item: Mapping[str, Any]) -> dict[str, Tensor] | None:
        if not mark_used(path):
            return None
        try:
            return torch.load(path, map_location="cpu", mmap=True, weights_only=True)
        except (RuntimeError, OSError, EOFError, ValueError, pickle.UnpicklingError) as error:
            if path.exists():  # else another process has made room just now
                warnings.warn(
                    f"{item['case']}: {path.name} in the cache is damaged ({error}); it is made again", stacklevel=2
                )
                with suppress(OSError):
                    path.unlink()
            return None

    def _prepare_or_refuse(self, item: Mapping[str, Any]) -> dict[str, Tensor]:
        """What is stored of a case; of one whose values are refused, why."""
        try:
            return self._prepare(item)
        except ScanValuesError as error:
            found = json.dumps([error.scan, error.rule, error.found]).encode()
            return {REFUSED: torch.tensor(list(found), dtype=torch.uint8)}

    def _prepare(self, item: Mapping[str, Any]) -> dict[str, Tensor]:
        prepared: Any = dict(item)
        for step in self.fixed:
            prepared = step(prepared)
        # Plain tensors and nothing else, so that a case just prepared and one from the disk make one batch.
        return {
            key: value.as_tensor() if hasattr(value, "as_tensor") else value
            for key, value in prepared.items()
            if isinstance(value, Tensor)
        }

    def _store(self, path: Path, tensors: Mapping[str, Tensor]) -> None:
        size = ENTRY_OVERHEAD_BYTES + sum(value.nbytes for value in tensors.values())
        try:
            if mark_used(path):
                return  # another process was faster
            if not make_room(path.parent, size, self.limit):
                tell_full(path.parent, self.limit)
                return
            path.parent.mkdir(parents=True, exist_ok=True)
            with appearing(path) as scratch:
                torch.save({key: value.contiguous() for key, value in tensors.items()}, scratch)
                mark_used(scratch)
        except FileNotFoundError:
            return  # the cache was cleared while this was written
        except (OSError, RuntimeError) as error:  # torch reports a full disk as RuntimeError
            warnings.warn(
                f"{path.parent}: a case could not be cached ({error}); training goes on at the speed of "
                f"decompression. Free some space or set {CACHE_VARIABLE} to another folder",
                stacklevel=2,
            )


def refusal_of(stored: Tensor, item: Mapping[str, Any]) -> ScanValuesError:
    """The error of a case that was refused before, perhaps under another name or in another folder."""
    name, rule, found = json.loads(bytes(stored.tolist()))
    return values_error(str(item["case"]), name, (rule, found), str(item["image"][MODALITIES.index(name)]))


def tidy(folder: Path) -> None:
    """Remove what killed processes left half-written, a day ago or earlier."""
    with suppress(OSError):  # somebody else's, or a disk to read from only
        remove(list_scratch(folder))


def tell_full(folder: Path, limit: float) -> None:
    """Warn that a cache holds no more cases; once in a process and those that it forks."""
    if _told_full[0]:
        return
    _told_full[0] = True
    warnings.warn(
        f"{folder}: the cache is full ({limit / 1e9:g} GB), and the cases that do not fit are prepared anew each time. "
        f"Set {LIMIT_VARIABLE} to more, or remove entries of others with `brats-fl cache clear`",
        stacklevel=2,
    )


def flatten(transform: Compose) -> list[Any]:
    """The transforms of a chain and of the chains inside it; unlike MONAI's ``flatten`` it seeds none of them anew."""
    return [inner for step in transform.transforms for inner in (flatten(step) if type(step) is Compose else [step])]


def describe(step: Any) -> Any:
    """A transform as JSON: its class and its settings, those of the transforms inside it included."""
    if isinstance(step, Transform):
        return [type(step).__qualname__, {key: describe(value) for key, value in sorted(vars(step).items())}]
    if isinstance(step, (list, tuple)):
        return [describe(value) for value in step]
    if isinstance(step, Mapping):
        return {str(key): describe(value) for key, value in step.items()}
    if isinstance(step, (np.ndarray, np.generic, torch.Tensor)):
        return describe(step.tolist())
    if isinstance(step, (torch.dtype, torch.device, np.dtype, Enum)):
        return str(step)
    if step is None or isinstance(step, (bool, int, float, str)):
        return step
    return getattr(step, "__qualname__", type(step).__qualname__)
