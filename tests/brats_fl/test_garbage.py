from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from pathlib import Path

import pytest
from nvflare.apis.event_type import EventType
from tests.flare import Engine

from brats_fl.components.aggregator import AlgorithmAggregator
from brats_fl.garbage import spare_what_is_loaded


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    """The other tests' process looks for garbage everywhere."""
    yield
    gc.unfreeze()


class Ring:
    """Garbage that is found by a search only."""

    def __init__(self) -> None:
        self.itself = self


def test_what_was_loaded_is_not_looked_through_again_and_new_garbage_is_found():
    before = len(gc.get_objects())

    spare_what_is_loaded()

    assert len(gc.get_objects()) < before / 100  # those that are looked through
    seen = weakref.ref(Ring())
    assert seen() is not None
    gc.collect()
    assert seen() is None


def test_server_spares_it_when_a_job_starts(tmp_path: Path):
    before = len(gc.get_objects())

    AlgorithmAggregator(1, 10.0).handle_event(EventType.START_RUN, Engine(tmp_path, "server").new_context())

    assert len(gc.get_objects()) < before / 100
