from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from nvflare.apis.dxo import DXO, DataKind, MetaKey, from_shareable
from nvflare.apis.shareable import Shareable
from nvflare.app_common.abstract.model import make_model_learnable
from nvflare.app_common.app_constant import AppConstants
from nvflare.app_common.shareablegenerators.full_model_shareable_generator import FullModelShareableGenerator
from tests.flare import Engine

from brats_fl.components.aggregator import MEAN, REJECTION, AlgorithmAggregator
from brats_fl.components.bundle_location import app_root
from brats_fl.components.executor import STATISTICS
from brats_fl.errors import ModelError

ROUND = 3
COUNTING = """
import numpy as np

SETTINGS = {"by": 1}


def server_state(model, settings):
    return {"rounds": {name: np.zeros_like(value) for name, value in model.items()}}


def broadcast(state, settings):
    return state


def server_update(model, state, contributions, settings):
    counted = {name: value + settings["by"] for name, value in state["rounds"].items()}
    return contributions[0].update, {"rounds": counted}
"""
MODEL = {"conv.weight": np.full((2, 2), 10.0, np.float32), "conv.bias": np.zeros(2, np.float32)}


@pytest.fixture
def engine(tmp_path: Path) -> Engine:
    """A server in round 3."""
    engine = Engine(tmp_path, "server")
    fl_ctx = engine.new_context()
    fl_ctx.set_prop(AppConstants.CURRENT_ROUND, ROUND, private=True, sticky=True)
    fl_ctx.set_prop(AppConstants.GLOBAL_MODEL, make_model_learnable(dict(MODEL), {}), private=True, sticky=True)
    return engine


def contribution(
    value: float = 1.0, cases: Any = 3, round_index: int = ROUND, kind: str = DataKind.WEIGHT_DIFF, **changes: Any
) -> Shareable:
    data = {name: np.full_like(array, value) for name, array in MODEL.items()} | changes
    meta = {} if cases is None else {MetaKey.NUM_STEPS_CURRENT_ROUND: cases}
    shareable = DXO(kind, data=data, meta=meta).to_shareable()
    shareable.add_cookie(AppConstants.CONTRIBUTION_ROUND, round_index)
    return shareable


def accept(aggregator: AlgorithmAggregator, engine: Engine, site: str, shareable: Shareable) -> tuple[bool, Any]:
    """Whether it was accepted, and the code that goes into the round records."""
    fl_ctx = engine.new_context(peer=site)
    return aggregator.accept(shareable, fl_ctx), fl_ctx.get_prop(REJECTION)


def test_two_sites_give_the_mean_weighted_by_their_cases(engine):
    aggregator = AlgorithmAggregator(min_accepted=2, max_update_ratio=1e9)

    assert accept(aggregator, engine, "hospital-1", contribution(1.0, cases=3)) == (True, None)
    assert accept(aggregator, engine, "hospital-2", contribution(5.0, cases=1)) == (True, None)
    dxo = from_shareable(aggregator.aggregate(engine.new_context()))

    assert dxo.data_kind == DataKind.WEIGHT_DIFF
    assert dxo.data["conv.bias"].tolist() == [2.0, 2.0]  # (3 x 1 + 1 x 5) / 4


def test_flare_adds_the_mean_to_the_global_model(engine):
    aggregator = AlgorithmAggregator(min_accepted=1, max_update_ratio=1e9)
    accept(aggregator, engine, "hospital-1", contribution(0.5))
    fl_ctx = engine.new_context()

    learned = FullModelShareableGenerator().shareable_to_learnable(aggregator.aggregate(fl_ctx), fl_ctx)

    assert learned["weights"]["conv.weight"].tolist() == [[10.5, 10.5], [10.5, 10.5]]
    assert learned["weights"]["conv.weight"].dtype == np.float32


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (contribution(round_index=2), "belongs to round 2, this is round 3"),
        (contribution(round_index=None), "belongs to round None, this is round 3"),
        (contribution(kind=DataKind.WEIGHTS), "its weights are of kind"),
        (contribution(float("nan")), "holds NaN or infinite values"),
        (contribution(cases=None), "its number of training cases must be a whole number from 1 to 100,000"),
        (contribution(cases=0), "its number of training cases must be a whole number from 1 to 100,000"),
        (contribution(cases=-3), "its number of training cases must be a whole number from 1 to 100,000"),
        (contribution(cases=float("nan")), "its number of training cases must be a whole number from 1 to 100,000"),
        (contribution(cases="many"), "its number of training cases must be a whole number from 1 to 100,000"),
        (contribution(cases=[3]), "its number of training cases must be a whole number from 1 to 100,000"),
        (contribution(other=np.zeros(1)), "0 missing, 1 unknown;"),
        (contribution(**{"conv.bias": np.zeros(3)}), "conv.bias has shape (3,), the network's has (2,)"),
        (contribution(**{"conv.bias": np.array(["a", "b"])}), "hospital-1 is not accepted"),
        (Shareable(), "hospital-1 is not accepted"),
    ],
)
def test_contribution_that_does_not_pass_is_refused_with_the_reason_and_changes_nothing(engine, caplog, bad, reason):
    aggregator = AlgorithmAggregator(min_accepted=1, max_update_ratio=1e9)

    accepted, code = accept(aggregator, engine, "hospital-1", bad)

    assert not accepted
    assert code in ("MODEL_ERROR", "BAD_UPDATE", "LATE")
    assert reason in caplog.text
    accept(aggregator, engine, "hospital-2", contribution(7.0))
    assert from_shareable(aggregator.aggregate(engine.new_context())).data["conv.bias"].tolist() == [7.0, 7.0]


def test_payload_that_the_algorithm_does_not_know_is_refused(engine, caplog):
    aggregator = AlgorithmAggregator(min_accepted=1, max_update_ratio=1e9)
    parts = {"weights": DXO(DataKind.WEIGHT_DIFF, data=dict(MODEL)), "extra": DXO(DataKind.WEIGHTS, data=dict(MODEL))}
    sent = DXO(DataKind.COLLECTION, data=parts, meta={MetaKey.NUM_STEPS_CURRENT_ROUND: 3}).to_shareable()
    sent.add_cookie(AppConstants.CONTRIBUTION_ROUND, ROUND)

    assert accept(aggregator, engine, "hospital-1", sent) == (False, "MODEL_ERROR")
    assert "it must hold weights and nothing else" in caplog.text


def with_control(value: float) -> Shareable:
    """An update of ones, with a control as SCAFFOLD's sites send it."""
    arrays = {name: np.full_like(array, value) for name, array in MODEL.items()}
    update = {name: np.ones_like(array) for name, array in MODEL.items()}
    parts = {"weights": DXO(DataKind.WEIGHT_DIFF, data=update), "control": DXO(DataKind.WEIGHTS, data=arrays)}
    sent = DXO(DataKind.COLLECTION, data=parts, meta={MetaKey.NUM_STEPS_CURRENT_ROUND: 3}).to_shareable()
    sent.add_cookie(AppConstants.CONTRIBUTION_ROUND, ROUND)
    return sent


def test_size_of_everything_that_a_site_sends_is_held_to_that_of_the_model(engine, caplog):
    # The model is four tens: L2 norm 20. A control of six 10 has 24.5, of six 5 12.2.
    aggregator = AlgorithmAggregator(1, max_update_ratio=1.0, algorithm="scaffold")

    assert accept(aggregator, engine, "hospital-1", with_control(10.0)) == (False, "MODEL_ERROR")
    assert "it has L2 norm 24.5, the most that counts as training is 20" in caplog.text
    assert accept(aggregator, engine, "hospital-2", with_control(5.0)) == (True, None)


def test_state_of_an_algorithm_that_is_not_finite_is_not_kept(engine):
    code = COUNTING.replace('value + settings["by"]', "value + np.inf")
    (app_root(engine.new_context()) / "custom" / "counting.py").write_text(code, encoding="utf-8")
    aggregator = AlgorithmAggregator(1, 1e9, "counting")
    accept(aggregator, engine, "hospital-1", contribution())

    with pytest.raises(ModelError, match="NaN or infinite"):
        aggregator.aggregate(engine.new_context())

    assert aggregator.broadcast(engine.new_context())["rounds"]["conv.bias"].tolist() == [0.0, 0.0]


def test_result_does_not_depend_on_who_came_first_not_in_the_last_bit(engine):
    rng = np.random.default_rng(0)
    sent = {f"hospital-{n}": contribution(cases=n, **{"conv.bias": rng.normal(size=2)}) for n in (1, 2, 3, 4, 5)}
    means = []
    for order in (sorted(sent), sorted(sent, reverse=True)):
        aggregator = AlgorithmAggregator(min_accepted=5, max_update_ratio=1e9)
        for site in order:
            assert accept(aggregator, engine, site, sent[site])[0]
        means.append(from_shareable(aggregator.aggregate(engine.new_context())).data["conv.bias"])

    assert means[0].tobytes() == means[1].tobytes()


def kept_bytes(aggregator: AlgorithmAggregator) -> int:
    """Of all updates that the server has of the round."""
    parts = [*aggregator.accepted.values(), *aggregator.running.waiting.values()]
    return sum(array.nbytes for part in parts for arrays in part.payloads.values() for array in arrays.values())


@pytest.mark.parametrize(
    ("algorithm", "updates"),
    [("fedavg", 1), ("fedavgm", 1), ("fedadam", 1), ("coordinate_median", 9), ("norm_bound", 9), ("multi_krum", 9)],
)
def test_only_an_algorithm_that_looks_at_each_update_has_the_server_keep_them(engine, algorithm, updates):
    aggregator = AlgorithmAggregator(min_accepted=1, max_update_ratio=1e9, algorithm=algorithm, max_share=0.5)

    for number in range(9):
        assert accept(aggregator, engine, f"hospital-{number}", contribution(1.0, cases=number + 1))[0]

    assert kept_bytes(aggregator) == updates * 6 * 4  # six parameters of float32; the largest site's share may be cut


def test_mean_of_what_comes_beside_the_update_is_made_as_it_arrives_too(engine):
    aggregator = AlgorithmAggregator(min_accepted=1, max_update_ratio=1e9, algorithm="scaffold", max_share=0.5)
    for site, control in (("hospital-1", 1.0), ("hospital-2", 2.0), ("hospital-3", 6.0)):
        accept(aggregator, engine, site, with_control(control))

    assert kept_bytes(aggregator) == 2 * 6 * 4
    aggregator.aggregate(engine.new_context())
    assert aggregator.broadcast(engine.new_context())["control"]["conv.bias"].tolist() == [3.0, 3.0]


def test_update_that_cannot_be_added_costs_no_other_site_the_round(engine, caplog):
    aggregator = AlgorithmAggregator(min_accepted=1, max_update_ratio=1e9)

    assert accept(aggregator, engine, "hospital-1", contribution(1e7, cases=100_000)) == (False, "MODEL_ERROR")
    assert "which cannot be added 100000 times" in caplog.text
    assert accept(aggregator, engine, "hospital-2", contribution(7.0))[0]
    assert from_shareable(aggregator.aggregate(engine.new_context())).data["conv.bias"].tolist() == [7.0, 7.0]


def test_state_of_the_algorithm_is_kept_from_round_to_round(engine):
    (app_root(engine.new_context()) / "custom" / "counting.py").write_text(COUNTING, encoding="utf-8")
    aggregator = AlgorithmAggregator(1, 1e9, "counting", {"by": 2})

    for _ in range(2):
        accept(aggregator, engine, "hospital-1", contribution())
        fl_ctx = engine.new_context()
        aggregator.aggregate(fl_ctx)
        aggregator.reset(fl_ctx)

    assert aggregator.broadcast(engine.new_context())["rounds"]["conv.bias"].tolist() == [4.0, 4.0]


@pytest.mark.parametrize("cases", [10**9, 2**63, 1.7e308])
def test_number_of_cases_that_would_own_the_model_is_no_number_of_cases(engine, caplog, cases):
    aggregator = AlgorithmAggregator(min_accepted=1, max_update_ratio=1e9)

    assert accept(aggregator, engine, "hospital-1", contribution(1.0, cases=cases)) == (False, "MODEL_ERROR")
    assert "must be a whole number from 1 to 100,000" in caplog.text


def test_site_keeps_the_number_of_cases_that_it_stated_first(engine, caplog):
    aggregator = AlgorithmAggregator(min_accepted=1, max_update_ratio=1e9)
    assert accept(aggregator, engine, "hospital-1", contribution(1.0, cases=3))[0]
    aggregator.reset(engine.new_context())

    assert not accept(aggregator, engine, "hospital-1", contribution(1.0, cases=4))[0]
    assert "it states 4 training cases as its weight and None beside it, and stated 3 before" in caplog.text
    assert accept(aggregator, engine, "hospital-1", contribution(1.0, cases=3))[0]


def test_weight_is_the_number_of_cases_that_stands_beside_it(engine, caplog):
    aggregator = AlgorithmAggregator(min_accepted=1, max_update_ratio=1e9)
    data = {name: np.ones_like(array) for name, array in MODEL.items()}
    meta = {MetaKey.NUM_STEPS_CURRENT_ROUND: 90, STATISTICS: {"cases": 9}}
    shareable = DXO(DataKind.WEIGHT_DIFF, data=data, meta=meta).to_shareable()
    shareable.add_cookie(AppConstants.CONTRIBUTION_ROUND, ROUND)

    assert not accept(aggregator, engine, "hospital-1", shareable)[0]
    assert "it states 90 training cases as its weight and 9 beside it" in caplog.text
    assert accept(aggregator, engine, "hospital-1", contribution(cases=9))[0]  # what was refused is not held against it


def test_largest_hospital_has_no_more_than_its_share_and_the_share_is_told(engine):
    aggregator = AlgorithmAggregator(min_accepted=3, max_update_ratio=1e9, max_share=0.5)
    for site, value, cases in (("hospital-1", 4.0, 9000), ("hospital-2", 0.0, 3), ("hospital-3", 0.0, 1)):
        accept(aggregator, engine, site, contribution(value, cases=cases))
    fl_ctx = engine.new_context()

    mean = from_shareable(aggregator.aggregate(fl_ctx)).data["conv.bias"]

    assert mean.tolist() == [2.0, 2.0]
    assert fl_ctx.get_prop(MEAN) == {
        "status": "ok",
        "shares": {"hospital-1": 0.5, "hospital-2": 0.375, "hospital-3": 0.125},
    }


def test_round_with_too_few_updates_leaves_the_model_and_the_next_one_asks_again(engine, caplog):
    aggregator = AlgorithmAggregator(min_accepted=2, max_update_ratio=1e9, patience_rounds=2)
    accept(aggregator, engine, "hospital-1", contribution(1.0))
    fl_ctx = engine.new_context()

    nothing = from_shareable(aggregator.aggregate(fl_ctx)).data

    assert {name: value.tolist() for name, value in nothing.items()} == {
        "conv.weight": [[0, 0], [0, 0]],
        "conv.bias": [0, 0],
    }
    assert fl_ctx.get_prop(MEAN) == {"status": "TOO_FEW_UPDATES"}
    assert "1 of the 2 updates that a round needs were accepted (hospital-1)" in caplog.text
    aggregator.reset(fl_ctx)
    for site in ("hospital-1", "hospital-2"):
        accept(aggregator, engine, site, contribution(3.0))
    assert from_shareable(aggregator.aggregate(engine.new_context())).data["conv.bias"].tolist() == [3.0, 3.0]


def test_job_ends_after_as_many_failed_rounds_in_a_row_as_it_bears(engine):
    aggregator = AlgorithmAggregator(min_accepted=1, max_update_ratio=1e9, patience_rounds=2)
    aggregator.aggregate(engine.new_context())
    aggregator.reset(engine.new_context())
    accept(aggregator, engine, "hospital-1", contribution(1.0))
    aggregator.aggregate(engine.new_context())  # a good one begins the count anew
    aggregator.reset(engine.new_context())
    aggregator.aggregate(engine.new_context())

    with pytest.raises(ModelError, match="it is round 2 of this kind without a good one between"):
        aggregator.aggregate(engine.new_context())


def test_second_contribution_of_a_site_is_refused(engine, caplog):
    aggregator = AlgorithmAggregator(min_accepted=1, max_update_ratio=1e9)

    assert accept(aggregator, engine, "hospital-1", contribution(1.0))[0]
    assert not accept(aggregator, engine, "hospital-1", contribution(100.0))[0]

    assert "has contributed to this round already" in caplog.text
    assert from_shareable(aggregator.aggregate(engine.new_context())).data["conv.bias"].tolist() == [1.0, 1.0]


def test_refused_site_may_send_a_good_update_in_the_same_round(engine):
    aggregator = AlgorithmAggregator(min_accepted=1, max_update_ratio=1e9)

    assert not accept(aggregator, engine, "hospital-1", contribution(float("inf")))[0]
    assert accept(aggregator, engine, "hospital-1", contribution(1.0))[0]


def test_round_with_too_few_updates_ends_the_job_rather_than_average_them(engine):
    aggregator = AlgorithmAggregator(min_accepted=4, max_update_ratio=1e9)
    for site in ("hospital-2", "hospital-1", "hospital-3"):
        accept(aggregator, engine, site, contribution())

    with pytest.raises(ModelError, match=r"3 of the 4 updates .* \(hospital-1, hospital-2, hospital-3\)"):
        aggregator.aggregate(engine.new_context())


def test_round_without_any_update_says_so(engine):
    with pytest.raises(ModelError, match=r"0 of the 1 updates that a round needs were accepted \(none\)"):
        AlgorithmAggregator(min_accepted=1, max_update_ratio=1e9).aggregate(engine.new_context())


def test_next_round_begins_with_nothing(engine):
    aggregator = AlgorithmAggregator(min_accepted=1, max_update_ratio=1e9)
    accept(aggregator, engine, "hospital-1", contribution(1.0))

    aggregator.reset(engine.new_context())

    assert accept(aggregator, engine, "hospital-1", contribution(4.0))[0]
    assert from_shareable(aggregator.aggregate(engine.new_context())).data["conv.bias"].tolist() == [4.0, 4.0]


def test_update_that_comes_when_the_mean_was_taken_is_late_and_not_said_to_be_accepted(engine):
    aggregator = AlgorithmAggregator(min_accepted=1, max_update_ratio=1e9)
    accept(aggregator, engine, "hospital-1", contribution())
    aggregator.aggregate(engine.new_context())

    assert accept(aggregator, engine, "hospital-2", contribution()) == (False, "LATE")
    aggregator.reset(engine.new_context())
    assert accept(aggregator, engine, "hospital-2", contribution())[0]


def test_round_of_no_sites_cannot_be_asked_for():
    with pytest.raises(ValueError, match=r"min_accepted must be >= 1 \(got 0\)"):
        AlgorithmAggregator(min_accepted=0, max_update_ratio=1e9)
