from __future__ import annotations

import math
from typing import Any

import pytest

from brats_fl.best_model import mean_votes
from brats_fl.tracking import mean_values, tracked_values


def record(site: str = "hospital-1", status: str = "ok", **facts: Any) -> dict[str, Any]:
    """A line of rounds.jsonl of a round of training."""
    return {"phase": "train", "round": 3, "site": site, "status": status, **facts}


def test_curves_are_loss_seconds_and_dice_by_the_names_that_sites_use():
    dice = {"val_mean_dice": 0.6, "val_dice_tc": 0.5, "val_dice_wt": 0.7, "val_dice_et": 0.6}

    values = tracked_values(record(loss=0.4, seconds=214, train_seconds=200, cases=61, metrics=dice))

    assert values == {"loss": 0.4, "seconds": 214, **dice}


@pytest.mark.parametrize("status", ["missing", "CASE_ERROR", "LATE"])
def test_site_whose_answer_was_not_accepted_has_no_value(status: str):
    assert tracked_values(record(status=status, loss=0.4, metrics={"val_mean_dice": 0.6})) == {}


@pytest.mark.parametrize("nonsense", [math.nan, math.inf, "0.4", None, True, [0.4], 1.2, -0.1])
def test_what_is_no_dice_is_no_value_of_it(nonsense: object):
    assert tracked_values(record(metrics={"val_mean_dice": nonsense, "val_dice_tc": 0.5})) == {"val_dice_tc": 0.5}


@pytest.mark.parametrize("nonsense", [math.nan, math.inf, "0.4", None, True, [0.4]])
def test_loss_that_is_no_finite_number_is_no_value_of_it(nonsense: object):
    assert tracked_values(record(loss=nonsense, seconds=2.0, metrics=nonsense)) == {"seconds": 2.0}


def test_mean_is_over_the_sites_that_have_a_value_one_vote_a_site():
    sites = {"a": {"loss": 1.0, "val_mean_dice": 0.2}, "b": {"loss": 2.0}, "c": {"loss": 6.0, "val_mean_dice": 0.6}}

    assert mean_values(sites) == {"loss": 3.0, "val_mean_dice": pytest.approx(0.4)}
    assert mean_values({}) == {}


def test_mean_dice_is_the_one_by_which_the_best_model_is_chosen():
    records = [
        record("a", metrics={"val_mean_dice": 0.3}),
        record("b", metrics={"val_mean_dice": 0.8}),
        record("c", "MODEL_ERROR", metrics={"val_mean_dice": 1.0}),
        record("d", metrics={"val_mean_dice": math.nan}),
        record("e", metrics={"val_mean_dice": 1.5}),
    ]

    sites = {r["site"]: tracked_values(r) for r in records}

    assert mean_values(sites)["val_mean_dice"] == mean_votes(records)["train", 3] == 0.55
