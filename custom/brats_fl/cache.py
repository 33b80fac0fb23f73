"""A disk cache of preprocessed cases: decompressed, cropped, normalised once, read at memory speed from then on."""

from __future__ import annotations

import glob
import hashlib
import json
import os
import pickle
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from enum import Enum
from pathlib import Path
from typing import Any

import monai
import numpy as np
import torch
from monai.data import Dataset
from monai.transforms import Compose, RandomizableTrait, Transform
from torch import Tensor

import brats_fl
from brats_fl.datalists import CACHE_VARIABLE
from brats_fl.datalists import default_cache_dir as default_cache_dir
from brats_fl.scans import split_volume


class CaseCache(Dataset):
    """Dataset that stores what its deterministic transforms make of a case, and redoes only the random ones.

    The stored file is found by the case, the transforms' settings, this library's and MONAI's version and, of each
    file of the case, path, size and time of change. A changed scan makes a new file and removes the one it replaces;
    changed settings make a new file beside the old one, so that two profiles may share a cache. A file appears whole
    or not at all, so that several processes may fill one cache. Tensors come back memory-mapped.

    Args:
        data: Items of a data list, ``{"case", "image": [paths], "label": path, ...}``.
        transform: The whole chain; everything before its first random transform is stored.
        cache_dir: Folder of the cache, made when missing; None keeps nothing.
    """

    def __init__(self, data: Sequence[Mapping[str, Any]], transform: Compose, cache_dir: str | Path | None) -> None:
        super().__init__(data, transform)
        self.cache_dir = None if cache_dir is None else Path(cache_dir)
        steps = flatten(transform)
        self.boundary = next((i for i, step in enumerate(steps) if isinstance(step, RandomizableTrait)), len(steps))
        self.settings = digest([brats_fl.__version__, monai.__version__, describe(self.fixed)], 8)

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
        item = self._stored(self.data[index])
        for step in self.random:
            item = step(item)
        return item

    def _stored(self, item: Mapping[str, Any]) -> dict[str, Any]:
        if self.cache_dir is None:
            return {**item, **self._prepare(item)}
        path = self.cache_dir / f"{item['case']}-{self.settings}-{place(item)}-{fingerprint(item)}.pt"
        if path.is_file():
            try:
                return {**item, **torch.load(path, map_location="cpu", mmap=True, weights_only=True)}
            except (RuntimeError, OSError, EOFError, ValueError, pickle.UnpicklingError) as error:
                warnings.warn(f"{path.name} in the cache is damaged ({error}); it is made again", stacklevel=2)
        prepared = self._prepare(item)
        self._store(path, prepared)
        return {**item, **prepared}

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
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            handle, scratch = tempfile.mkstemp(dir=path.parent, suffix=".tmp")
            os.close(handle)
            try:
                torch.save({key: value.contiguous() for key, value in tensors.items()}, scratch)
                Path(scratch).replace(path)
            finally:
                Path(scratch).unlink(missing_ok=True)
            for other in path.parent.glob(f"{glob.escape(path.name.rpartition('-')[0])}-*.pt"):
                if other != path:
                    other.unlink(missing_ok=True)  # of the same scans before they changed
        except (OSError, RuntimeError) as error:  # torch reports a full disk as RuntimeError
            warnings.warn(
                f"{path.parent}: a case could not be cached ({error}); training goes on at the speed of "
                f"decompression. Free some space or set {CACHE_VARIABLE} to another folder",
                stacklevel=2,
            )


def flatten(transform: Compose) -> list[Any]:
    """The transforms of a chain and of the chains inside it; unlike MONAI's ``flatten`` it seeds none of them anew."""
    return [inner for step in transform.transforms for inner in (flatten(step) if type(step) is Compose else [step])]


def place(item: Mapping[str, Any]) -> str:
    """Eight hexadecimal digits for where a case's files lie: sites that share a cache may use the same names."""
    return digest([str(file) for file in item["image"]], 8)


def fingerprint(item: Mapping[str, Any]) -> str:
    """Twelve hexadecimal digits that change when a file of the case changes, or its label convention."""
    files = [*item["image"], *([item["label"]] if item.get("label") else [])]
    facts: list[Any] = [item.get("labels")]
    for file in files:
        try:
            status = split_volume(file)[0].stat()
        except OSError:
            facts.append([str(file), None])  # reading the case will say what is wrong
        else:
            facts.append([str(file), status.st_size, status.st_mtime_ns])
    return digest(facts, 12)


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


def digest(facts: Any, digits: int) -> str:
    """Hexadecimal digits of the SHA-256 of a JSON value."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:digits]
