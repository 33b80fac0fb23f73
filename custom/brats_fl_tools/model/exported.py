"""What `export` wrote into a bundle's ``models``: --force replaces that, and nothing that somebody else put there."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from brats_fl.errors import ModelError
from brats_fl.files import write_whole
from brats_fl.provenance import hash_file
from brats_fl.reading import Reader
from brats_fl_tools.model.trained import TUNED_FILE
from brats_fl_tools.weights import ENSEMBLE_FILE, MODEL_CARD

EXPORTS_FILE: Final = ".brats-fl-exports.json"
"""In ``models``: name of each file that `export` wrote last -> SHA-256 of it."""

NAMES: Final = ("model.pt", "model.ts", "model.onnx", TUNED_FILE, ENSEMBLE_FILE, MODEL_CARD)

READER: Final = Reader(ModelError, "remove it, and move the models beside it away: --force then replaces none of them")


def refuse_existing(models: Path, force: bool) -> list[Path]:
    """What earlier exports left.

    Raises:
        ModelError: There is something, and ``force`` is not given, or it is not as an export wrote it.
    """
    existing = [models / name for name in NAMES if (models / name).exists()] + sorted(models.glob("model-*.pt"))
    if existing and not force:
        raise ModelError(f"{existing[0]} exists; add --force to replace it")
    ours = read_exports(models)
    if foreign := [path for path in existing if ours.get(path.name) != hash_file(path)]:
        raise ModelError(
            f"{foreign[0]}: is not as `brats-fl export` wrote it, or it did not write it at all, so that --force does "
            "not replace it; move it away, or remove it yourself"
        )
    return existing


def read_exports(models: Path) -> dict[str, str]:
    """Name -> SHA-256 of the files that the last export wrote; none where there was none.

    Raises:
        ModelError: The file is damaged.
    """
    path = models / EXPORTS_FILE
    return READER.typed(dict[str, str], READER.json_object(path), path) if path.exists() else {}


def note_exports(models: Path, written: Iterable[Path]) -> None:
    """Write down what an export has written into ``models``."""
    hashes = {path.name: hash_file(path) for path in written}
    write_whole(models / EXPORTS_FILE, json.dumps(hashes, indent=1) + "\n")
