"""What every test gets: one thread, no place to write but its own folder, and tiny hospitals on request."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
import torch
from hypothesis import settings
from tests.small_disk import small_disk
from tests.tiny_sites import make_tiny_sites

from brats_fl.cases.cache import CACHE_VARIABLE
from brats_fl.cases.datalists import DATALIST_VARIABLE, SITES_VARIABLE

TinySites = Callable[[Mapping[str, tuple[int, int, int]]], Path]

torch.set_num_threads(1)

settings.register_profile("hostile", max_examples=5000, deadline=None)
"""Of ``make fuzz``."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The files that take minutes come first, so that at the end no worker waits for the other."""
    items.sort(key=lambda item: "integration" not in item.path.parts)


@pytest.fixture(autouse=True)
def own_folders(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The cache lies in the test's folder, and no data list of the machine is found."""
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    monkeypatch.delenv(DATALIST_VARIABLE, raising=False)
    monkeypatch.delenv(SITES_VARIABLE, raising=False)


@pytest.fixture
def tiny_sites(tmp_path: Path) -> TinySites:
    """Function that writes sites, ``{"hospital-1": (training, validation, testing), ...}``, and returns their root."""
    return lambda cases: make_tiny_sites(tmp_path / "sites", cases)


@pytest.fixture(name="small_disk")
def small_disk_fixture(tmp_path: Path) -> Iterator[Path]:
    """An empty folder on a disk of ``tests.small_disk.SIZE`` bytes."""
    with small_disk(tmp_path / "disk") as folder:
        yield folder


@pytest.fixture(scope="session")
def shared_sites(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sites that no test changes: ``hospital-1`` with 3, 2 and 1 cases, ``hospital-2`` with 1 training case only."""
    root = tmp_path_factory.mktemp("shared") / "sites"
    return make_tiny_sites(root, {"hospital-1": (3, 2, 1), "hospital-2": (1, 0, 0)})
