"""Files that appear whole or not at all, and the names of those that more than one module reads."""

from __future__ import annotations

from pathlib import Path

CASE_TABLE_FILE = "evaluation.csv"


def write_whole(path: Path, text: str) -> None:
    """Write a text file that appears whole or not at all."""
    scratch = path.with_name(f".{path.name}.tmp")
    scratch.write_text(text, encoding="utf-8")
    scratch.replace(path)
