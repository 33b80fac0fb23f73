"""Intervals over patients, tests, and how many patients would decide: numbers that can be redone by hand."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import wilcoxon

from brats_fl_tools.acceptance.statistics import (
    Estimate,
    Spread,
    cases_needed,
    draw_patients,
    estimate,
    holm,
    mean_of,
    median_of,
    paired_p,
    ratio_of,
    signed_rank_p,
)
from brats_fl_tools.report.comparison import bootstrap_interval

SIX = tuple("abcdef")


def test_figure_that_all_patients_share_has_an_interval_of_no_width():
    found = estimate(SIX, mean_of(np.full(6, 0.5)))

    assert found == Estimate(0.5, 0.5, 0.5, patients=6, cases=6)


def test_interval_of_one_case_a_patient_is_that_of_the_report_of_a_run():
    values = np.array([0.1, 0.4, 0.5, 0.7, 0.8, 0.9])

    found = estimate(SIX, mean_of(values))

    assert found is not None
    assert (found.low, found.high) == pytest.approx(bootstrap_interval(values))


def test_four_patients_have_no_interval_however_many_scans_they_have():
    found = estimate(("a", "a", "a", "b", "c", "d"), mean_of(np.arange(6.0)))

    assert found == Estimate(2.5, None, None, patients=4, cases=6)


def test_no_case_has_no_figure():
    assert estimate((), mean_of(np.array([]))) is None


def test_scans_of_a_patient_are_drawn_together():
    counts = draw_patients(("a", "a", "b", "c", "d", "e"))

    assert (counts[:, 0] == counts[:, 1]).all()
    assert (counts[:, 1:].sum(axis=1) == 5).all()  # as many patients as there are


def test_median_of_a_draw_is_that_of_its_cases_written_out():
    values = np.array([5.0, 1.0, 4.0, 2.0])
    draws = np.array([[1, 1, 1, 1], [2, 0, 1, 1], [0, 3, 0, 1], [1, 0, 0, 1]])

    assert median_of(values)(draws).tolist() == [3.0, 4.5, 1.0, 3.5]


def test_ratio_is_of_means_and_not_a_mean_of_ratios():
    found = estimate(("a", "b"), ratio_of(np.array([0.2, 0.6]), np.array([0.4, 0.6])))

    assert found is not None
    assert found.value == pytest.approx(0.8)  # .8 / 1.0; the mean of ratios would be .75


def test_half_the_distance_takes_four_times_the_patients():
    found = Estimate(0.6, 0.5, 0.75, patients=10, cases=10)

    assert cases_needed(found, 0.55) == 40  # (.1 / .05)^2 x 10
    assert cases_needed(found, 0.7) == 23  # (.15 / .1)^2 x 10 = 22.5
    assert cases_needed(found, 0.6) is None
    assert cases_needed(Estimate(0.6, None, None, 4, 4), 0.5) is None


def test_five_differences_of_one_sign_have_the_least_p_that_five_can_have():
    assert paired_p(np.array([0.1, 0.2, 0.3, 0.4, 0.5]), "abcde") == pytest.approx(2 / 2**5)
    assert paired_p(np.array([0.1, 0.2, 0.3, 0.4]), "abcd") is None


def test_patient_with_many_scans_counts_once_in_a_test():
    differences = np.array([0.1, 0.3, 0.1, 0.3, 0.4, 0.5])  # a: .2

    assert paired_p(differences, ("a", "a", "b", "c", "d", "e")) == pytest.approx(2 / 2**5)


@pytest.mark.parametrize("size", [6, 9, 12])
def test_signed_rank_test_agrees_with_scipy(size: int):
    differences = np.round(np.random.default_rng(size).normal(0.3, 1, size), 6)

    assert signed_rank_p(differences) == pytest.approx(wilcoxon(differences, method="exact").pvalue)


def test_equal_differences_share_their_rank():
    # Ranks 1.5, 1.5, 3 of signs -, +, +: the sum of + is 4.5. Of 8 tosses 4.5 or more come up in 3 (4.5, 4.5, 6).
    assert signed_rank_p(np.array([-0.1, 0.1, 0.2])) == pytest.approx(2 * 3 / 8)


def test_models_that_do_not_differ_have_a_p_of_one():
    assert paired_p(np.zeros(6), SIX) == 1.0


def test_holm_multiplies_the_smallest_p_by_all_tests_and_never_falls():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])  # 3 x .01, 2 x .03, then .06 > 1 x .04
    assert holm([0.6, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


def test_one_seed_has_no_spread():
    assert Spread((0.5,)).sd is None
    assert (Spread((0.5, 0.7)).mean, Spread((0.5, 0.7)).sd) == pytest.approx((0.6, 0.02**0.5))
