from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from nvflare.apis.dxo import DXO, DataKind, MetaKey, from_shareable
from nvflare.apis.event_type import EventType
from nvflare.apis.fl_constant import FLContextKey, ReturnCode
from nvflare.apis.fl_context import FLContext
from nvflare.apis.shareable import Shareable, make_reply
from nvflare.app_common.abstract.model import make_model_learnable
from nvflare.app_common.app_constant import AppConstants
from nvflare.app_common.app_event_type import AppEventType
from tests.flare import JOB, Engine

from brats_fl.components.aggregator import MEAN, REJECTION
from brats_fl.components.executor import STATISTICS, failure
from brats_fl.components.records import RoundRecords, size_in_bytes
from brats_fl.components.statistics import EPSILON_HEADER
from brats_fl.machine import describe_machine
from brats_fl.round_records import RECORDS_COMMAND, RECORDS_PER_ANSWER

MODEL = {"w": np.zeros(100, np.float32)}
STATED = {"cases": 3, "steps": 2, "loss": 0.5, "seconds": 1.5}


@pytest.fixture
def engine(tmp_path: Path) -> Engine:
    """A server in round 1, with three sites."""
    engine = Engine(tmp_path, "server", clients=("hospital-1", "hospital-2", "hospital-3"))
    fl_ctx = engine.new_context()
    fl_ctx.set_prop(AppConstants.CURRENT_ROUND, 1, private=True, sticky=True)
    fl_ctx.set_prop(AppConstants.GLOBAL_MODEL, make_model_learnable(dict(MODEL), {}), private=True, sticky=True)
    return engine


def lines(tmp_path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (tmp_path / JOB / "rounds.jsonl").read_text().splitlines()]


def context(engine: Engine, peer: str | None = None, **props: Any) -> FLContext:
    fl_ctx = engine.new_context(peer)
    for key, value in props.items():
        fl_ctx.set_prop(key, value, private=True, sticky=False)
    return fl_ctx


def update(**stated: Any) -> Shareable:
    meta = {STATISTICS: {**STATED, **stated}, MetaKey.INITIAL_METRICS: {"val_mean_dice": 0.7}}
    return DXO(DataKind.WEIGHT_DIFF, data={"w": np.zeros(100, np.float16)}, meta=meta).to_shareable()


def contribute(
    records: RoundRecords, engine: Engine, site: str, result: Any, accepted: bool = True, **props: Any
) -> None:
    facts = {AppConstants.TRAINING_RESULT: result, AppConstants.AGGREGATION_ACCEPTED: accepted, **props}
    records.handle_event(AppEventType.AFTER_CONTRIBUTION_ACCEPT, context(engine, site, **facts))


def test_what_a_site_states_is_typed_before_it_is_written(engine, tmp_path):
    records = RoundRecords()
    hostile = {
        "loss": "low",
        "seconds": float("nan"),
        "train_seconds": -1,
        "steps": [2],
        "cases": 10**30,
        "site": "hospital-2",
        "note": "x" * 10_000_000,
        "line\nbreak": 1,
    }
    sent = update(**hostile)
    sent_dxo = from_shareable(sent)
    sent_dxo.meta[MetaKey.INITIAL_METRICS] = {"val_mean_dice": 1e6, "val_dice_tc": 0.5, "a\nb": 0.5, "val_x": "1"}

    contribute(records, engine, "hospital-1", sent_dxo.to_shareable())

    [line] = lines(tmp_path)
    assert line == {
        "phase": "train",
        "round": 1,
        "site": "hospital-1",
        "status": "ok",
        "metrics": {"val_dice_tc": 0.5},
        "bytes_down": 0,
        "bytes_up": 200,
        "dropped": 11,
    }


def test_code_of_a_failure_is_a_word(engine, tmp_path):
    records = RoundRecords()
    reply = failure("x\nround=1 site=hospital-2 status=ok")
    props = {FLContextKey.TASK_RESULT: reply, FLContextKey.TASK_NAME: AppConstants.TASK_TRAIN}

    records.handle_event(EventType.BEFORE_PROCESS_SUBMISSION, context(engine, "hospital-1", **props))

    assert [line["status"] for line in lines(tmp_path)] == ["UNKNOWN_ERROR"]


def test_shares_of_a_round_are_a_line_of_the_servers_own(engine, tmp_path):
    records = RoundRecords()
    shares = {"hospital-1": 0.5, "hospital-2": 0.5}

    records.handle_event(AppEventType.AFTER_AGGREGATION, context(engine, **{MEAN: {"status": "ok", "shares": shares}}))

    assert lines(tmp_path) == [{"phase": "mean", "round": 1, "site": "server", "status": "ok", "shares": shares}]
    assert records.seen == set()


def test_accepted_update_is_a_line_with_what_the_site_states_and_what_was_sent(engine, tmp_path):
    records = RoundRecords()
    tell_sent(records, engine, "hospital-1", MODEL)

    contribute(records, engine, "hospital-1", update())

    assert lines(tmp_path) == [
        {
            "phase": "train",
            "round": 1,
            "site": "hospital-1",
            "status": "ok",
            **STATED,
            "metrics": {"val_mean_dice": 0.7},
            "bytes_down": 400,  # 100 x 4
            "bytes_up": 200,  # 100 x 2
        }
    ]


def tell_sent(records: RoundRecords, engine: Engine, site: str, arrays: Mapping[str, Any]) -> None:
    """Tell the records what leaves the server for a site, after all filters."""
    data = DXO(DataKind.WEIGHTS, data=dict(arrays)).to_shareable()
    props = {FLContextKey.TASK_NAME: AppConstants.TASK_TRAIN, FLContextKey.TASK_DATA: data}
    records.handle_event(EventType.AFTER_TASK_DATA_FILTER, context(engine, site, **props))


def test_bytes_that_went_to_a_site_are_those_of_its_own_message(engine, tmp_path):
    records = RoundRecords()
    tell_sent(records, engine, "hospital-1", MODEL)
    tell_sent(records, engine, "hospital-2", {"w": np.zeros(104, np.int8)})

    for site in ("hospital-1", "hospital-2"):
        contribute(records, engine, site, update())

    assert {line["site"]: line["bytes_down"] for line in lines(tmp_path)} == {"hospital-1": 400, "hospital-2": 104}


def test_refused_update_is_a_line_with_the_code(engine, tmp_path):
    contribute(RoundRecords(), engine, "hospital-1", update(), False, **{REJECTION: "MODEL_ERROR"})

    assert lines(tmp_path)[0]["status"] == "MODEL_ERROR"


def test_message_that_is_no_update_is_a_line_all_the_same(engine, tmp_path):
    contribute(RoundRecords(), engine, "hospital-1", Shareable(), False)

    assert (lines(tmp_path)[0]["site"], lines(tmp_path)[0]["status"]) == ("hospital-1", "BAD_UPDATE")


def test_site_cannot_write_a_line_in_another_s_name(engine, tmp_path):
    contribute(
        RoundRecords(), engine, "hospital-1", update(site="hospital-2", round=9, status="ok", phase="final"), False
    )

    line = lines(tmp_path)[0]
    assert (line["phase"], line["round"], line["site"], line["status"]) == ("train", 1, "hospital-1", "BAD_UPDATE")


@pytest.mark.parametrize(
    ("result", "status"), [(failure("CASE_ERROR"), "CASE_ERROR"), (make_reply(ReturnCode.TASK_ABORTED), "TASK_ABORTED")]
)
def test_failed_task_is_a_line_with_its_code(engine, tmp_path, result, status):
    fl_ctx = context(
        engine, "hospital-2", **{FLContextKey.TASK_RESULT: result, FLContextKey.TASK_NAME: AppConstants.TASK_TRAIN}
    )

    RoundRecords().handle_event(EventType.BEFORE_PROCESS_SUBMISSION, fl_ctx)

    assert lines(tmp_path) == [{"phase": "train", "round": 1, "site": "hospital-2", "status": status}]


def test_good_result_is_not_recorded_before_it_was_looked_at(engine, tmp_path):
    fl_ctx = context(
        engine, "hospital-2", **{FLContextKey.TASK_RESULT: update(), FLContextKey.TASK_NAME: AppConstants.TASK_TRAIN}
    )

    RoundRecords().handle_event(EventType.BEFORE_PROCESS_SUBMISSION, fl_ctx)

    assert not (tmp_path / JOB / "rounds.jsonl").exists()


def test_sites_that_did_not_answer_are_missing_when_the_round_ends_each_round_anew(engine, tmp_path):
    records = RoundRecords()
    for _ in range(2):
        records.handle_event(AppEventType.ROUND_STARTED, context(engine))
        contribute(records, engine, "hospital-2", update())
        records.handle_event(AppEventType.ROUND_DONE, context(engine))

    assert [(line["site"], line["status"]) for line in lines(tmp_path)] == [
        ("hospital-2", "ok"), ("hospital-1", "missing"), ("hospital-3", "missing"),
        ("hospital-2", "ok"), ("hospital-1", "missing"), ("hospital-3", "missing"),
    ]  # fmt: skip


def test_site_that_left_for_good_is_missing_too(engine, tmp_path):
    records = RoundRecords()
    contribute(records, engine, "hospital-4", update())  # no longer among the clients
    records.handle_event(AppEventType.ROUND_STARTED, context(engine))
    records.handle_event(AppEventType.ROUND_DONE, context(engine))

    assert "hospital-4" in [line["site"] for line in lines(tmp_path) if line["status"] == "missing"]


def test_final_evaluation_is_a_line_of_the_round_after_the_last(engine, tmp_path):
    result = DXO(DataKind.METRICS, data={"val_mean_dice": 0.8}, meta={STATISTICS: {"cases": 3}}).to_shareable()
    fl_ctx = context(engine, **{AppConstants.VALIDATION_RESULT: result, AppConstants.DATA_CLIENT: "hospital-1"})

    RoundRecords().handle_event(AppEventType.VALIDATION_RESULT_RECEIVED, fl_ctx)

    assert lines(tmp_path) == [
        {
            "phase": "final",
            "round": 2,
            "site": "hospital-1",
            "status": "ok",
            "cases": 3,
            "metrics": {"val_mean_dice": 0.8},
        }
    ]


def test_failed_final_evaluation_is_recorded_once(engine, tmp_path):
    records, result = RoundRecords(), failure("CASE_ERROR")
    records.handle_event(
        EventType.BEFORE_PROCESS_SUBMISSION,
        context(engine, "hospital-1", **{FLContextKey.TASK_RESULT: result, FLContextKey.TASK_NAME: "validate"}),
    )
    records.handle_event(
        AppEventType.VALIDATION_RESULT_RECEIVED,
        context(engine, **{AppConstants.VALIDATION_RESULT: result, AppConstants.DATA_CLIENT: "hospital-1"}),
    )

    assert lines(tmp_path) == [{"phase": "final", "round": 2, "site": "hospital-1", "status": "CASE_ERROR"}]


def test_size_counts_the_bytes_of_the_arrays_of_all_payloads():
    weights = DXO(DataKind.WEIGHT_DIFF, data={"a": np.zeros((2, 3), np.float32), "b": np.zeros(4, np.float64)})
    control = DXO(DataKind.WEIGHTS, data={"a": np.zeros(5, np.float16)})

    assert size_in_bytes(weights) == 24 + 32
    assert size_in_bytes(DXO(DataKind.COLLECTION, data={"weights": weights, "control": control})) == 24 + 32 + 10


@pytest.mark.parametrize(("epsilon", "kept"), [(4.5, [4.5]), (float("nan"), []), ("9", []), (-1.0, [])])
def test_how_much_noise_a_site_added_is_a_line_once_and_only_as_a_number_that_can_be(engine, tmp_path, epsilon, kept):
    answer = make_reply(ReturnCode.OK)
    answer.set_header(EPSILON_HEADER, epsilon)
    records = RoundRecords()

    for _ in range(2):  # FLARE asks twice
        facts = {FLContextKey.TASK_RESULT: answer, FLContextKey.TASK_NAME: "fed_stats"}
        records.handle_event(EventType.BEFORE_PROCESS_SUBMISSION, context(engine, "hospital-1", **facts))

    path = tmp_path / JOB / "rounds.jsonl"
    assert [line["epsilon"] for line in (lines(tmp_path) if path.exists() else [])] == kept


def test_server_notes_what_machine_it_is_beside_its_records(engine, tmp_path):
    RoundRecords().handle_event(EventType.START_RUN, context(engine))

    assert json.loads((tmp_path / JOB / "machine.json").read_text()) == describe_machine()


def test_lead_is_told_the_lines_from_a_number_on(engine, tmp_path):
    records = RoundRecords()
    records.handle_event(EventType.START_RUN, context(engine))
    for site in ("hospital-1", "hospital-2"):
        contribute(records, engine, site, update())

    tell = engine.commands[RECORDS_COMMAND]
    told = [tell(RECORDS_COMMAND, asked, context(engine))["records"] for asked in ({"from": 1}, {"from": 2})]

    assert told == [lines(tmp_path)[1:], []]


@pytest.mark.parametrize("asked", [None, [], {}, {"from": "1"}, {"from": -1}, {"from": float("nan")}])
def test_lead_who_asks_from_no_number_is_told_all(engine, tmp_path, asked):
    records = RoundRecords()
    contribute(records, engine, "hospital-1", update())

    assert records.tell(RECORDS_COMMAND, asked, context(engine))["records"] == lines(tmp_path)


def test_lead_is_told_no_more_lines_at_once_than_an_answer_bears(engine):
    records = RoundRecords()
    records.lines = [{"round": index} for index in range(2 * RECORDS_PER_ANSWER)]

    told = records.tell(RECORDS_COMMAND, {"from": 3}, context(engine))["records"]

    assert [told[0]["round"], told[-1]["round"]] == [3, 2 + RECORDS_PER_ANSWER]
