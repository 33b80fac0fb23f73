"""Membership inference on losses that a reader can order by hand."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from brats_fl_tools.audit.membership import LARGEST_CHANCE, CaseLoss, auc, chance_of, measure


def cases(name: str, losses: Sequence[float], references: Sequence[float] | None = None) -> list[CaseLoss]:
    known = references or [None] * len(losses)
    pairs = enumerate(zip(losses, known, strict=True))
    return [CaseLoss(f"{name}-{number}", loss, reference) for number, (loss, reference) in pairs]


def test_auc_is_the_share_of_pairs_in_order_and_ties_count_half():
    assert auc(np.array([3.0, 2.0]), np.array([1.0, 2.0])) == (1 + 1 + 1 + 0.5) / 4
    assert auc(np.array([1.0]), np.array([2.0])) == 0


def test_model_that_knows_its_cases_by_heart_is_found_out():
    found = measure(cases("in", np.linspace(0.1, 0.2, 12)), cases("out", np.linspace(0.5, 0.9, 12)))

    (score,) = found.scores
    assert (score.kind, score.auc, score.auc_interval, score.true_positive_rate) == ("loss", 1.0, (1.0, 1.0), 1.0)
    assert score.advantage == 0.5  # half the members are at the mean training loss or below it, and no other


def test_model_that_forgot_its_cases_gives_a_guess():
    losses = np.random.default_rng(0).normal(size=80)

    (score,) = measure(cases("in", losses[:40]), cases("out", losses[40:])).scores

    low, high = score.auc_interval
    assert low < 0.5 < high
    assert abs(score.auc - 0.5) < chance_of(40, 40)


def test_easy_cases_pass_for_known_ones_without_a_reference_and_not_with_one():
    easy, hard = [0.1 + number / 100 for number in range(12)], [0.8 + number / 100 for number in range(12)]
    # Hard cases were trained on, and the model is a little better on them than the reference; easy ones were not.
    members, others = cases("in", hard, [loss + 0.1 for loss in hard]), cases("out", easy, easy)

    by_loss, calibrated = measure(members, others).scores

    assert by_loss.auc == 0
    assert (calibrated.kind, calibrated.auc, calibrated.true_positive_rate) == ("calibrated", 1.0, 1.0)


def test_reference_that_lacks_a_case_is_not_used():
    some = cases("in", [0.1] * 12, [0.2] * 12)

    assert [score.kind for score in measure(some, cases("out", [0.3] * 12)).scores] == ["loss"]


def test_too_few_patients_have_no_figures_however_many_cases_they_have():
    ten = measure(cases("in", [0.1] * 10), cases("out", [0.9] * 10))
    eleven = measure(cases("in", [0.1] * 11), cases("out", [0.9] * 11))
    one_patient = measure([CaseLoss("p", 0.1)] * 40, cases("out", [0.9] * 40))

    assert (ten.is_too_small, ten.scores) == (True, ())
    assert (eleven.is_too_small, len(eleven.scores)) == (False, 1)
    assert (one_patient.members, one_patient.member_patients, one_patient.scores) == (40, 1, ())


def test_spread_of_a_guess_is_that_of_guesses():
    rng = np.random.default_rng(1)

    guesses = [auc(rng.random(11), rng.random(11)) for _ in range(4000)]

    low, high = np.percentile(guesses, [2.5, 97.5])
    assert (high - low) / 2 == pytest.approx(chance_of(11, 11), rel=0.05)
    assert chance_of(11, 11) < LARGEST_CHANCE < chance_of(10, 10)


def test_patients_are_resampled_with_all_their_cases():
    # Two looks at each of 12 patients tell no more than one.
    inside, outside = cases("in", np.linspace(0, 1, 12)), cases("out", np.linspace(0.3, 1.3, 12))

    once, twice = measure(inside, outside).scores[0], measure(inside * 2, outside * 2).scores[0]

    assert twice.auc == once.auc
    assert twice.auc_interval == pytest.approx(once.auc_interval, abs=0.02)
