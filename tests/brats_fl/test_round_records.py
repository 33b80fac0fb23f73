"""A record is typed when it is written and when it is read, whoever wrote it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from brats_fl.errors import RunError
from brats_fl.round_records import as_lines, check_record, read_records, typed_statement, typed_status

RECORD = {"phase": "train", "round": 3, "site": "hospital-2", "status": "ok"}
STATED = {
    "cases": 3,
    "steps": 2,
    "loss": 0.5,
    "seconds": 1.5,
    "cpu_seconds": 2.5,
    "train_seconds": 1,
    "evaluate_seconds": 0.5,
}

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.just(10**400) | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=8,
)
keys = st.sampled_from([*RECORD, *STATED, "metrics", "shares", "bytes_up", "dropped", "x"])


def test_what_a_site_states_is_kept_where_it_is_of_its_type():
    facts, dropped = typed_statement(STATED, {"val_mean_dice": 0.7})

    assert (facts, dropped) == ({**STATED, "metrics": {"val_mean_dice": 0.7}}, 0)


@pytest.mark.parametrize(
    "stated", [3, "cases", [("cases", 3)], {"cases": True}, {"loss": float("inf")}, {3: 3}, {"loss": 10**400}]
)
def test_what_is_of_no_type_is_dropped(stated: Any):
    facts, _ = typed_statement(stated, stated)

    assert facts == {"metrics": {}}


def test_loss_of_no_step_is_none():
    assert typed_statement({"loss": None}) == ({"loss": None}, 0)


@pytest.mark.parametrize("status", ["", "a b", "x\ny", None, 7, "x" * 65, ["ok"]])
def test_code_that_is_no_word_is_unknown(status: Any):
    assert typed_status(status) == "UNKNOWN_ERROR"


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ({"phase": 3}, "phase must be a plain word"),
        ({"round": -1}, "round must be a whole number, 0 or more"),
        ({"round": True}, "round must be a whole number"),
        ({"site": "a\nb"}, "site must be text without control characters"),
        ({"status": None}, "status must be a plain word"),
        ({"loss": "low"}, "loss must be a plausible number"),
        ({"seconds": -1}, "seconds must be a plausible number"),
        ({"seconds": float("nan")}, r"cannot be read as JSON \(a number must be finite \(got NaN\)\)"),
        ({"loss": 10**400}, r"cannot be read as JSON \(a whole number must have at most 19 digits \(got 401\)\)"),
        ({"cases": 2.5}, "cases must be a plausible number"),
        ({"metrics": [0.5]}, "metrics must be names with numbers"),
        ({"metrics": {"val_mean_dice": 2}}, "metrics must be names with numbers"),
        ({"shares": {"hospital-1": "all"}}, "shares must be sites with numbers"),
        ({"secure_aggregation": {"threshold": "all"}}, "secure_aggregation: "),
    ],
)
def test_line_that_is_no_record_is_named_with_the_rule_and_the_mend(change: dict[str, Any], rule: str, tmp_path: Path):
    path = tmp_path / "rounds.jsonl"
    path.write_text(as_lines([RECORD, {**RECORD, **change}, RECORD]), encoding="utf-8")

    with pytest.raises(RunError, match=rf"rounds\.jsonl:2: {rule}.*; remove the line"):
        read_records(path)


def test_last_line_that_is_still_being_written_is_left_out(tmp_path: Path):
    path = tmp_path / "rounds.jsonl"
    path.write_text(as_lines([RECORD]) + '{"phase": "tr', encoding="utf-8")

    assert read_records(path) == [RECORD]
    path.write_text('{"phase": "tr\n' + as_lines([RECORD]), encoding="utf-8")
    with pytest.raises(RunError, match=r"rounds\.jsonl:1: cannot be read as JSON"):
        read_records(path)


def refusal(call: Callable[..., Any], *arguments: Any) -> str:
    """What one of our errors said; empty where there was none."""
    try:
        call(*arguments)
    except RunError as error:
        return str(error)
    return ""


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(keys, json_values, max_size=6) | json_values)
def test_record_is_either_typed_or_refused_in_words(content: Any):
    words = refusal(check_record, "rounds.jsonl:1", content)

    if words:
        assert words.startswith("rounds.jsonl:1: ")
        assert words.endswith("remove the line")
        assert len(words) < 300
    else:
        assert isinstance(content["round"], int)
        assert float(content.get("seconds") or 0) >= 0


@settings(max_examples=300, deadline=None)
@given(json_values, json_values)
def test_whatever_a_site_states_the_line_can_be_read_back(stated: Any, metrics: Any):
    facts, _ = typed_statement(stated, metrics)

    assert check_record("line", json.loads(json.dumps(RECORD | facts))) == RECORD | facts


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.binary(max_size=200) | st.text(max_size=100).map(str.encode))
def test_file_of_whatever_bytes_is_read_or_refused_in_words(content: bytes, tmp_path: Path):
    path = tmp_path / "rounds.jsonl"
    path.write_bytes(content)

    words = refusal(read_records, path)

    assert not words or words.startswith(str(path))
