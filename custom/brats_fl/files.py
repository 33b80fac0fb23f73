"""Files that appear whole or not at all, and the names of those that more than one module reads."""

from __future__ import annotations

from pathlib import Path

CASE_TABLE_FILE = "evaluation.csv"
CASE_TABLE_COLUMNS = ("case", "site", "split", "region", "dice", "hd95_mm", "volume_ml", "reference_volume_ml")


def write_whole(path: Path, text: str) -> None:
    """Write a text file that appears whole or not at all.

    Raises:
        OSError: It cannot be written; with the file's name, which Python leaves out where a disk is full.
    """
    scratch = path.with_name(f".{path.name}.tmp")
    try:
        scratch.write_text(text, encoding="utf-8")
        scratch.replace(path)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        scratch.unlink(missing_ok=True)
