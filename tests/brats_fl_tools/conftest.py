"""Kits for the tests of this folder: provisioned once, copied for each test."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.tiny_kits import TinyKits, copy_tiny_kits, make_tiny_kits


@pytest.fixture(scope="session")
def provisioned(tmp_path_factory: pytest.TempPathFactory) -> TinyKits:
    """Kits that no test changes."""
    return make_tiny_kits(tmp_path_factory.mktemp("provisioned") / "out")


@pytest.fixture
def kits(provisioned: TinyKits, tmp_path: Path) -> TinyKits:
    """Kits of the test's own."""
    return copy_tiny_kits(provisioned, tmp_path / "out")
