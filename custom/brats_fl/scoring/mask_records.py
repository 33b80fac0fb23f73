"""What a mask was made of, kept beside it: ``P_001_seg.json`` beside ``P_001_seg.nii.gz``.

A file without a matching record was not written here, or was changed since: it is never replaced.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch

import brats_fl
from brats_fl.cases.cache import describe
from brats_fl.cases.cache_folder import digest, hash_file
from brats_fl.cases.nifti import nifti_stem
from brats_fl.cases.scans import split_volume
from brats_fl.files import write_whole
from brats_fl.network.engine_packages import TORCH
from brats_fl.reading import read_if_sound
from brats_fl.typed import NotTypedError, typed

SETTINGS_DIGITS = 16

State = Literal["absent", "done", "other", "foreign"]
"""Of a mask's place: free; the mask that would be made; one made here of something else; a file of somebody else's."""


@dataclass(frozen=True)
class Maker:
    """What makes a mask of a case: the same one makes the same mask of the same scans."""

    weights_sha256: str = ""
    """Of the network's parameters, whatever file they came from."""
    settings: str = ""
    """Digest of what is done to scans and probabilities, and of the library's version."""
    members_sha256: tuple[str, ...] = ()
    """The same of each network, where the mask is of their mean probability."""
    engine: str = TORCH
    """What computed the probabilities."""


@dataclass(frozen=True)
class MaskRecord:
    """What a mask was made by and of."""

    maker: Maker
    scans_sha256: str
    """Of the four scans; empty where they are not known."""
    mask_sha256: str
    """Of the mask's file as it was written."""
    judgement: str = ""
    """What was said of the scans before, by whoever judged them; for whoever goes on with a run."""


def hash_weights(network: torch.nn.Module) -> str:
    """SHA-256 of a network's parameters and buffers, by their names."""
    whole = hashlib.sha256()
    for name, value in sorted(network.state_dict().items()):
        whole.update(f"{name} {value.dtype} {tuple(value.shape)}\0".encode())
        whole.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return whole.hexdigest()


def hash_settings(steps: Sequence[Any], inferer: Any) -> str:
    """Digest of transforms and inferer with their settings, and of the library's version."""
    facts = [brats_fl.__version__, describe(list(steps)), describe([type(inferer).__qualname__, vars(inferer)])]
    return digest(facts, SETTINGS_DIGITS)


def hash_scans(image: Sequence[str]) -> str:
    """SHA-256 over the content of a case's four scans, in their order.

    Raises:
        OSError: A file cannot be read.
    """
    volumes = [split_volume(scan) for scan in image]
    hashes = {file: hash_file(str(file)) for file in {file for file, _ in volumes}}
    return digest([[hashes[file], number] for file, number in volumes], 64)


def record_path(mask: Path) -> Path:
    """Where the record of a mask is."""
    return mask.with_name(f"{nifti_stem(mask)}.json")


def write_record(mask: Path, record: MaskRecord) -> None:
    """Write the record of a mask; it appears whole or not at all."""
    write_whole(record_path(mask), json.dumps(asdict(record), indent=1) + "\n")


def read_record(mask: Path) -> MaskRecord | None:
    """The record of a mask; None where there is none that says what one says."""
    try:
        return typed(MaskRecord, read_if_sound(record_path(mask)))
    except NotTypedError:
        return None


def is_ours(mask: Path) -> bool:
    """Whether a file is a mask as it was written here."""
    record = read_record(mask)
    return record is not None and mask.is_file() and hash_file(str(mask)) == record.mask_sha256


def foreign_file(mask: Path) -> Path | None:
    """The file at the place of a mask or its record that was not written here, or was changed since; None: none is."""
    if mask.exists():
        return None if is_ours(mask) else mask
    record = record_path(mask)  # alone it is somebody else's, or what a killed process left
    return record if record.exists() and read_record(mask) is None else None


def state_of(mask: Path, maker: Maker, image: Sequence[str]) -> State:
    """What is at a mask's place.

    Args:
        mask: Where the mask is to be.
        maker: What would make it.
        image: The scans that it would be made of.

    Raises:
        OSError: A file cannot be read.
    """
    if foreign_file(mask):
        return "foreign"
    if not mask.exists():
        return "absent"
    record = read_record(mask)
    same = record is not None and record.maker == maker and record.scans_sha256 == hash_scans(image)
    return "done" if same else "other"
