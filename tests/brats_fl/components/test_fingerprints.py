"""Which scans two hospitals have: what the server makes of fingerprints, and what it tells each site."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from nvflare.apis.client import Client
from nvflare.apis.dxo import DXO, DataKind, from_shareable
from nvflare.apis.fl_constant import ReturnCode
from nvflare.apis.impl.wf_comm_server import WFCommServer
from nvflare.apis.shareable import Shareable, make_reply
from nvflare.apis.signal import Signal
from tests.flare import JOB, Engine, as_sent

from brats_fl.components.executor import ERROR_HEADER, failure
from brats_fl.components.fingerprints import (
    SHARED_FILE,
    TASK_FINGERPRINTS,
    TASK_SHARED,
    FingerprintExecutor,
    FingerprintMatcher,
    SharedScansTeller,
)


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
    assert matcher.shared_with("hospital-1")["DXO"]["data"]["shared"] == {"b": ["hospital-2"]}


@pytest.mark.parametrize("code", ["a\nhospital-1: ok", "x" * 65, 7, ["ok"]])
def test_code_and_fingerprints_of_a_site_are_words_before_they_are_written(code: Any, engine, tmp_path):
    """What stands in the server's file is no other hospital's line, and no text without end."""
    matcher = FingerprintMatcher()
    answers = {"hospital-1": sent("key", "a"), "hospital-2": sent("key", "b"), "hospital-3": failure("CASE_ERROR")}
    answers["hospital-3"].set_header(ERROR_HEADER, code)
    answers["hospital-4"] = sent("key", "a\nb", "x" * 65)
    for site, response in answers.items():
        take(matcher, engine, site, response, TASK_FINGERPRINTS)

    assert matcher.final_process(engine.new_context())
    statuses = {site: facts["status"] for site, facts in written(engine, tmp_path)["sites"].items()}
    assert statuses == {
        "hospital-1": "ok",
        "hospital-2": "ok",
        "hospital-3": "UNKNOWN_ERROR",
        "hospital-4": "BAD_RESULT",
    }


def test_fewer_than_two_sites_end_the_job_and_write_nothing(engine, tmp_path):
    matcher = FingerprintMatcher()
    take(matcher, engine, "hospital-1", sent("key", "a"), TASK_FINGERPRINTS)

    assert not matcher.final_process(engine.new_context())
    assert not (tmp_path / JOB / SHARED_FILE).exists()


# --- What each site is told ---


class Telling:
    """A teller at work, FLARE's own server side beneath it, and sites that ask as FLARE's clients do."""

    def __init__(self, engine: Engine, matcher: FingerprintMatcher, **settings: int) -> None:
        self.engine = engine
        self.communicator = WFCommServer()
        self.teller = SharedScansTeller(matcher, TASK_SHARED, **settings)
        self.teller.set_communicator(self.communicator)
        self.abort = Signal()
        self.fl_ctx = engine.new_context()
        self.communicator.initialize_run(self.fl_ctx)
        self.teller.initialize(self.fl_ctx)
        self.thread = threading.Thread(target=self.teller.control_flow, args=(self.abort, self.fl_ctx))
        self.thread.start()

    def ask(self, site: str, calls_itself: str = "") -> Shareable | None:
        """The task for a site, known by its certificate, whatever it calls itself; None where it gets none."""
        end = time.monotonic() + 1
        while time.monotonic() < end:
            fl_ctx = self.engine.new_context(peer=calls_itself or site)
            _, self.task_id, data = self.communicator.process_task_request(Client(site, f"token of {site}"), fl_ctx)
            if data is not None:
                return data
            time.sleep(0.05)
        return None

    def answer(self, site: str, reply: Shareable) -> None:
        client, fl_ctx = Client(site, f"token of {site}"), self.engine.new_context(peer=site)
        self.communicator.process_submission(client, TASK_SHARED, self.task_id, reply, fl_ctx)

    def end(self) -> None:
        self.abort.trigger("end of the test")
        self.communicator.finalize_run(self.fl_ctx)
        self.thread.join(5)
        assert not self.thread.is_alive()


SENT = {
    "hospital-1": ["of 1 and 2", "of 1, 2 and 4", "of 1 alone"],
    "hospital-2": ["of 1 and 2", "of 1, 2 and 4", "of 2 alone"],
    "hospital-3": ["of 3 alone"],
    "hospital-4": ["of 1, 2 and 4"],
}


@pytest.fixture
def matcher(engine: Engine) -> FingerprintMatcher:
    matcher = FingerprintMatcher()
    for site, fingerprints in SENT.items():
        take(matcher, engine, site, sent("key", *fingerprints), TASK_FINGERPRINTS)
    take(matcher, engine, "hospital-5", failure("CASE_ERROR"), TASK_FINGERPRINTS)
    return matcher


@pytest.fixture
def telling(engine: Engine, matcher: FingerprintMatcher) -> Iterator[Telling]:
    telling = Telling(engine, matcher)
    yield telling
    telling.end()


def test_each_site_is_told_of_its_own_scans_and_nothing_of_what_others_share(telling: Telling):
    told: dict[str, Any] = {}
    for site in SENT:
        task = telling.ask(site)
        assert task is not None
        told[site] = from_shareable(task).data["shared"]
        for text in {text for texts in SENT.values() for text in texts}.difference(SENT[site]):
            assert text.encode() not in as_sent(task)
        assert all(text.encode() in as_sent(task) for text in told[site])
        telling.answer(site, make_reply(ReturnCode.OK))
    telling.thread.join(5)

    assert told == {
        "hospital-1": {"of 1 and 2": ["hospital-2"], "of 1, 2 and 4": ["hospital-2", "hospital-4"]},
        "hospital-2": {"of 1 and 2": ["hospital-1"], "of 1, 2 and 4": ["hospital-1", "hospital-4"]},
        "hospital-3": {},
        "hospital-4": {"of 1, 2 and 4": ["hospital-1", "hospital-2"]},
    }
    assert not telling.thread.is_alive()


def test_site_that_shares_nothing_gets_not_even_the_names_of_those_that_do(telling: Telling):
    task = telling.ask("hospital-3")

    assert task is not None
    assert all(f"hospital-{number}".encode() not in as_sent(task) for number in (1, 2, 4, 5))


def test_site_that_calls_itself_another_gets_its_own_all_the_same(telling: Telling):
    task = telling.ask("hospital-3", calls_itself="hospital-1")

    assert task is not None
    assert from_shareable(task).data["shared"] == {}


def test_site_that_sent_no_fingerprints_is_told_nothing(telling: Telling):
    assert telling.ask("hospital-5") is None


def test_site_that_never_answers_is_waited_for_a_while_and_no_longer(
    engine: Engine, matcher: FingerprintMatcher, tmp_path
):
    telling = Telling(engine, matcher, min_responses_required=3, wait_time_after_min_received=1)
    for site in ("hospital-1", "hospital-2", "hospital-3"):
        assert telling.ask(site) is not None
        telling.answer(site, failure("CASE_ERROR") if site == "hospital-3" else make_reply(ReturnCode.OK))

    telling.thread.join(10)

    assert not telling.thread.is_alive()
    statuses = {site: facts["status"] for site, facts in written(engine, tmp_path)["sites"].items()}
    assert statuses["hospital-3"] == "CASE_ERROR"
    assert telling.ask("hospital-4") is None  # too late
    telling.end()


def test_payload_that_is_not_a_site_s_own_ends_in_an_error_and_not_in_nothing_shared(tmp_path: Path):
    site = Engine(tmp_path, "hospital-1")
    broadcast = FingerprintMatcher().create_task_data(TASK_SHARED, site.new_context())

    own = DXO(DataKind.COLLECTION, data={"shared": {}}).to_shareable()

    refused = FingerprintExecutor().execute(TASK_SHARED, broadcast, site.new_context(), Signal())
    written_then = (tmp_path / JOB / SHARED_FILE).exists()
    taken = FingerprintExecutor().execute(TASK_SHARED, own, site.new_context(), Signal())

    assert refused.get_header(ERROR_HEADER) == "EXECUTION_EXCEPTION"
    assert not written_then
    assert taken.get_return_code() == ReturnCode.OK
    assert written(site, tmp_path) == {}


def test_hospital_with_a_privacy_budget_sends_no_fingerprints(tmp_path: Path):
    engine = Engine(tmp_path, "hospital-1")
    local = Path(engine.workspace.get_site_config_dir())
    (local / "privacy_budget.json").write_text('{"epsilon": 8, "delta": 0.001}', encoding="utf-8")

    reply = FingerprintExecutor().execute(TASK_FINGERPRINTS, Shareable(), engine.new_context(), Signal())

    assert reply.get_header(ERROR_HEADER) == "PRIVACY_BUDGET"
