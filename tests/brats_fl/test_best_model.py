"""Which global model is the best."""

from __future__ import annotations

from typing import Any

import pytest

from brats_fl.best_model import mean_votes, vote


def record(phase: str, round_index: int, site: str, dice: Any, status: str = "ok") -> dict[str, Any]:
    return {
        "phase": phase,
        "round": round_index,
        "site": site,
        "status": status,
        "metrics": {"val_mean_dice": dice},
    }


@pytest.mark.parametrize("value", [0, 0.0, 0.5, 1, 1.0])
def test_number_from_0_to_1_is_a_vote(value):
    assert vote({"val_mean_dice": value}) == value


@pytest.mark.parametrize("value", [-0.1, 1.1, 1e9, float("nan"), float("inf"), "0.9", True, None, [0.9], {}])
def test_anything_else_is_none(value):
    assert vote({"val_mean_dice": value}) is None


@pytest.mark.parametrize("metrics", [None, {}, {"other": 0.5}, 0.9, "0.9", [0.9]])
def test_metrics_without_the_key_metric_hold_no_vote(metrics):
    assert vote(metrics) is None


def test_mean_is_over_the_sites_that_were_accepted_one_vote_each():
    records = [
        record("train", 1, "a", 0.4),
        record("train", 1, "a", 0.6),  # its later line counts
        record("train", 1, "b", 0.8),
        record("train", 1, "c", 1.0, "MODEL_ERROR"),
        record("train", 1, "d", 7.0),
        record("final", 2, "a", 0.9),
    ]

    assert mean_votes(records) == {("train", 1): pytest.approx(0.7), ("final", 2): 0.9}  # (0.6 + 0.8) / 2
