"""A choice is made where it is worth something on cases that did not make it."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest

from brats_fl.errors import RunError
from brats_fl.scoring.finishing import PostProcessing
from brats_fl.scoring.tuning import Prediction, choose, pick


def constant(prediction: Prediction) -> Prediction:
    return prediction


def case(inner: float, rim: float, seed: int = 0) -> Prediction:
    """A tumour of 4^3 voxels, all of it enhancing; the network says ``inner`` there and ``rim`` in the 8^3 around."""
    rng = np.random.default_rng(seed)
    reference = np.zeros((3, 12, 12, 12), bool)
    reference[:, 4:8, 4:8, 4:8] = True
    probabilities = np.zeros(reference.shape, np.float32)
    probabilities[:, 2:10, 2:10, 2:10] = rim
    probabilities[:, 4:8, 4:8, 4:8] = inner
    return Prediction(probabilities + rng.uniform(0, 1e-3, reference.shape).astype(np.float32), reference, 0.001)


def test_network_that_sees_too_much_gets_a_higher_threshold():
    choice = choose([partial(constant, case(0.95, 0.65, seed)) for seed in range(6)])

    assert choice.settings.thresholds == (0.5, 0.7, 0.5)  # of TC, WT, ET: what lies outside WT is in no region
    assert choice.before == pytest.approx(2 * 64 / (512 + 64))  # the rim of 8^3 counts as tumour
    assert choice.after == pytest.approx(1.0)
    assert choice.left_out == pytest.approx(1.0)


def test_good_network_keeps_the_default():
    choice = choose([partial(constant, case(0.95, 0.1, seed)) for seed in range(5)])

    assert choice.settings == PostProcessing()
    assert choice.before == choice.after == choice.left_out == pytest.approx(1.0)


def test_false_alarm_far_away_is_dropped_by_its_size():
    predictions = []
    for seed in range(5):
        one = case(0.95, 0.1, seed)
        one.probabilities[:, 0, 0, :3] = 0.95
        predictions.append(partial(constant, one))

    choice = choose(predictions)

    assert choice.settings.smallest_wt_share == 0.1  # 3 voxels of 64; TC and ET lie within and follow
    assert choice.after == pytest.approx(1.0)


def test_choice_that_only_one_case_wants_is_not_made():
    # Of four cases each is best with a setting of its own: left out, none is served by what the others choose.
    table = np.array([[0.5, 0.9, 0.1, 0.1], [0.5, 0.1, 0.9, 0.1], [0.5, 0.1, 0.1, 0.9], [0.5, 0.3, 0.3, 0.3]])

    assert pick(["default", "a", "b", "c"], table) == ("default", 0.5)


def test_choice_is_worth_what_it_gives_on_the_case_that_did_not_make_it():
    table = np.array([[0.5, 0.8], [0.5, 0.7], [0.5, 0.4]])

    chosen, worth = pick(["default", "other"], table)

    assert chosen == "other"
    assert worth == pytest.approx((0.8 + 0.7 + 0.4) / 3)  # without any one case the others still choose it


def test_few_cases_choose_nothing():
    with pytest.raises(RunError, match="4 cases are too few to choose thresholds on; 5 are the fewest"):
        choose([partial(constant, case(0.9, 0.1))] * 4)
