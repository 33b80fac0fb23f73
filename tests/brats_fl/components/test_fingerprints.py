from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from nvflare.apis.dxo import DXO, DataKind
from nvflare.apis.shareable import Shareable
from tests.flare import JOB, Engine

from brats_fl.components.executor import failure
from brats_fl.components.fingerprints import SHARED_FILE, TASK_FINGERPRINTS, TASK_SHARED, FingerprintMatcher


@pytest.fixture
def engine(tmp_path: Path) -> Engine:
    return Engine(tmp_path, "server")


def sent(mark: str, *fingerprints: str) -> Shareable:
    data = {"key_mark": mark, "fingerprints": list(fingerprints)}
    return DXO(DataKind.COLLECTION, data=data).to_shareable()


def take(matcher: FingerprintMatcher, engine: Engine, site: str, response: Shareable, task: str) -> None:
    assert matcher.process_client_response(SimpleNamespace(name=site), task, response, engine.new_context())


def written(engine: Engine, tmp_path: Path) -> dict[str, Any]:
    return json.loads((tmp_path / JOB / SHARED_FILE).read_text(encoding="utf-8"))


def test_sites_that_failed_sent_nonsense_or_have_another_key_are_named_and_end_nothing(engine, tmp_path):
    matcher = FingerprintMatcher()
    nonsense = DXO(DataKind.COLLECTION, data={"fingerprints": 7}).to_shareable()
    for site, response in {
        "hospital-1": sent("key", "a", "b"),
        "hospital-2": sent("key", "b", "c"),
        "hospital-3": sent("other", "x"),
        "hospital-4": failure("PRIVACY_ERROR"),
        "hospital-5": nonsense,
        "hospital-6": Shareable(),
    }.items():
        take(matcher, engine, site, response, TASK_FINGERPRINTS)

    assert matcher.final_process(engine.new_context())
    found = written(engine, tmp_path)
    assert {site: facts["status"] for site, facts in found["sites"].items()} == {
        "hospital-1": "ok",
        "hospital-2": "ok",
        "hospital-3": "OTHER_KEY",
        "hospital-4": "PRIVACY_ERROR",
        "hospital-5": "BAD_RESULT",
        "hospital-6": "BAD_RESULT",
    }
    assert found["shared"] == [{"sites": ["hospital-1", "hospital-2"], "scans": 1}]
    told = matcher.create_task_data(TASK_SHARED, engine.new_context())
    assert told["DXO"]["data"]["shared"] == {"b": ["hospital-1", "hospital-2"]}


def test_fewer_than_two_sites_end_the_job_and_write_nothing(engine, tmp_path):
    matcher = FingerprintMatcher()
    take(matcher, engine, "hospital-1", sent("key", "a"), TASK_FINGERPRINTS)

    assert not matcher.final_process(engine.new_context())
    assert not (tmp_path / JOB / SHARED_FILE).exists()
