"""Round records: their file, the words in it, and how it is read; without FLARE, so that everybody can.

A line of ``rounds.jsonl`` is what a site did in a round: ``phase``, ``round``, ``site`` and ``status``, which the
server states, and what the site told of it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

RECORDS_FILE: Final = "rounds.jsonl"

STATISTIC: Final = "rounds"
"""Name under which FLARE's ``show_stats`` gives the records of a running job, so that its lead can watch it."""

PHASES: Final = MappingProxyType({"train": "train", "validate": "final"})
"""Task -> what the records call it; other tasks by their own names."""


def read_records(path: Path) -> list[dict[str, Any]]:
    """Lines of ``rounds.jsonl``; a last line that is still being written is left out."""
    if not path.is_file():
        return []
    records = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return records


def as_lines(records: Iterable[Mapping[str, Any]]) -> str:
    """Records as the text of ``rounds.jsonl``."""
    return "".join(json.dumps(record) + "\n" for record in records)
