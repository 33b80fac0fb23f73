"""What ``run.json`` and ``evaluation.json`` may say, by key: whoever made the file, a page is written of it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, Literal

from brats_fl.reading import Reader
from brats_fl.scoring.calibration import Bin
from brats_fl.typed import shorten
from brats_fl_tools.withdrawn import Withdrawal

Counts = dict[str, dict[str, int]]

RELIABILITY: Final = "reliability"
"""Of ``evaluation.json``: hospital -> region -> voxels by their probability, in bins."""

_OF_BOTH: Final[Mapping[str, Any]] = MappingProxyType(
    {
        **dict.fromkeys(("bundle", "profile", "commit", "sites_dir"), str | None),
        "versions": dict[str, str],
        "machine": dict[str, Any],
    }
)

RUN_FACTS: Final[Mapping[str, Any]] = MappingProxyType(
    {
        **_OF_BOTH,
        **dict.fromkeys(("job", "state", "started", "mode"), str | None),
        **dict.fromkeys(("content_hash", "study_sha256", "start_sha256"), str | None),
        **dict.fromkeys(("rounds", "rounds_done", "local_epochs", "seed", "parameters"), int | None),
        **dict.fromkeys(("invited", "left_out", "synthetic"), list[str]),
        "options": dict[str, Any],
        "parts": list[dict[str, Any]],
        "seconds": float | None,
        "sites": Counts,
        "withdrawals": tuple[Withdrawal, ...],
    }
)
"""Key of ``run.json`` -> its type; others are not looked at."""

EVALUATION_FACTS: Final[Mapping[str, Any]] = MappingProxyType(
    {
        **_OF_BOTH,
        **dict.fromkeys(("model", "model_sha256", "masks_dir", "masks_sha256", "finished"), str | None),
        **dict.fromkeys(("cases", "synthetic_cases"), int | None),
        "split": Literal["training", "validation", "testing"] | None,
        "models_sha256": dict[str, str],
        RELIABILITY: dict[str, dict[str, list[Bin]]],
        "seen_in_training": list[str],
        "seconds_per_case": float | None,
    }
)
"""The same of ``evaluation.json``."""

NAMES: Final = ("job", "bundle", "profile", "split")
"""Facts that become part of a path."""

_NAME = re.compile(r"\w[^/\\*?\[\]]{0,99}")


def read_facts(reader: Reader, path: Path, known: Mapping[str, Any]) -> Mapping[str, Any]:
    """Content of a file of facts, of their types.

    Args:
        reader: Of the file.
        path: The file.
        known: Key -> type.

    Raises:
        BratsFLError: The reader's error: the file cannot be read, a fact is of another type, or a name is a path.
    """
    content = reader.json_object(path)
    for key in sorted(known.keys() & content.keys()):
        reader.at(known[key], content, [key], path)
    for key in NAMES:
        if content.get(key) and not _NAME.fullmatch(str(content[key])):
            reader.refuse(path, f"{key} must be a plain name (got {shorten(content[key])})")
    for key, value in _numbers(content, known):
        if value < 0:
            reader.refuse(path, f"{key} must be 0 or more (got {shorten(value)})")
    for part in content.get("parts", []):
        reader.at(int, part, ["first_round"], path)
    return MappingProxyType(content)


def _numbers(content: Mapping[str, Any], known: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """The counts and times among known keys, and the hospitals' cases."""
    for key in sorted((known.keys() & content.keys()) - {"seed"}):
        if isinstance(value := content[key], (int, float)):
            yield key, value
    for site, counts in content.get("sites", {}).items() if known.get("sites") is Counts else ():
        yield from ((f"sites.{site}.{split}", count) for split, count in counts.items())
