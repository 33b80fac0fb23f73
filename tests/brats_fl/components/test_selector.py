"""The server's choice of the best model, against histories made by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from nvflare.apis.dxo import DXO, DataKind, MetaKey
from nvflare.app_common.app_constant import AppConstants
from nvflare.app_common.app_event_type import AppEventType
from tests.flare import Engine

from brats_fl.components.selector import BestModelSelector

Votes = dict[str, Any]


def play(
    tmp_path: Path, start_round: int, history: list[Votes], refused: tuple[str, ...] = (), start_from: str = ""
) -> list[int]:
    """Rounds at whose end the model that the round began with was said to be the best.

    Args:
        tmp_path: Folder of the server.
        start_round: Number of the first round.
        history: Site -> what it reports as Dice of the model that it was sent, a round after the other.
        refused: Sites whose updates are not accepted.
        start_from: Checkpoint that the job began with.
    """
    engine = Engine(tmp_path, "server")
    selector = BestModelSelector(start_from)
    best = []
    for round_index, votes in enumerate(history, start=start_round):
        engine.events.clear()
        fl_ctx = engine.new_context()
        fl_ctx.set_prop(AppConstants.CURRENT_ROUND, round_index, private=True, sticky=True)
        selector.handle_event(AppEventType.ROUND_STARTED, fl_ctx)
        for site, dice in votes.items():
            meta = {MetaKey.INITIAL_METRICS: {"val_mean_dice": dice}}
            result = DXO(DataKind.WEIGHT_DIFF, data={"w": np.zeros(1)}, meta=meta).to_shareable()
            of_site = engine.new_context(peer=site)
            of_site.set_prop(AppConstants.TRAINING_RESULT, result, private=True, sticky=False)
            of_site.set_prop(AppConstants.AGGREGATION_ACCEPTED, site not in refused, private=True, sticky=False)
            selector.handle_event(AppEventType.AFTER_CONTRIBUTION_ACCEPT, of_site)
        selector.handle_event(AppEventType.BEFORE_AGGREGATION, fl_ctx)
        best += [round_index for event, _ in engine.events if event == AppEventType.GLOBAL_BEST_MODEL_AVAILABLE]
    return best


def test_model_with_the_highest_mean_is_the_best_and_random_weights_are_none(tmp_path):
    history = [{"a": 0.9, "b": 0.9}, {"a": 0.2, "b": 0.4}, {"a": 0.5, "b": 0.5}, {"a": 0.3, "b": 0.5}]

    assert play(tmp_path, 0, history) == [1, 2]  # means .9 (random weights), .3, .5, .4


def test_given_model_is_rated_before_anything_was_trained(tmp_path):
    assert play(tmp_path, 0, [{"a": 0.6}, {"a": 0.5}, {"a": 0.4}], start_from="start_from.pt") == [0]


def test_first_model_of_a_job_that_goes_on_is_rated(tmp_path):
    assert play(tmp_path, 3, [{"a": 0.6}, {"a": 0.5}, {"a": 0.7}]) == [3, 5]


def test_sites_whose_update_was_refused_have_no_vote(tmp_path):
    assert play(tmp_path, 1, [{"a": 0.5, "b": 0.5}, {"a": 0.4, "b": 1.0}], refused=("b",)) == [1]


@pytest.mark.parametrize("nonsense", [float("nan"), float("inf"), 2.0, -1.0, "0.99", None])
def test_vote_that_is_no_number_from_0_to_1_does_not_count(tmp_path, nonsense):
    assert play(tmp_path, 1, [{"a": 0.5}, {"a": 0.4, "b": nonsense}, {"b": nonsense}]) == [1]


def test_among_equals_the_latest_is_the_best(tmp_path):
    assert play(tmp_path, 1, [{"a": 0.5}, {"a": 0.5}]) == [1, 2]
