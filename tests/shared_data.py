"""Files that lie beside a checkout, in ``../shared``, and are never part of it: real cases, tables, MONAI's schema.

A test that wants them is marked by what it needs, and skips with a plain reason where that is missing.
"""

from __future__ import annotations

from pathlib import Path

import pytest

SHARED = Path(__file__).parents[2] / "shared"
REAL_CASES = SHARED / "data" / "real"
"""Thirteen cases in the layout of BraTS 2018 to 2021."""

CASE_TABLE = SHARED / "data" / "cases.csv"
"""Hospital and institution of each of them."""

NAME_MAPPING = SHARED / "data" / "csv" / "brats2020_name_mapping.csv"
"""The table that comes with a BraTS 2020 download."""

METADATA_SCHEMA = SHARED / "schema" / "meta_schema_20240725.json"
"""What `python -m monai.bundle verify_metadata` downloads."""


def needs(*paths: Path) -> pytest.MarkDecorator:
    """Mark of a test that skips where one of the paths is not there, and says which."""
    missing = [str(path) for path in paths if not path.exists()]
    return pytest.mark.skipif(bool(missing), reason=f"not on this machine: {', '.join(missing)}")


needs_real_cases = needs(REAL_CASES)
