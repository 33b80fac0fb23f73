from __future__ import annotations

from math import exp, sqrt
from statistics import NormalDist

import pytest

from brats_fl.errors import PrivacyError
from brats_fl.privacy.accounting import NoisedSteps, epsilon_of, noise_for


def epsilon_of_one_gaussian(sigma: float, delta: float) -> float:
    """Of the Gaussian mechanism with sensitivity 1: Balle and Wang 2018 (arXiv 1805.06530), theorem 8, by bisection."""

    def delta_of(epsilon: float) -> float:
        cdf = NormalDist().cdf
        half, slope = 1 / (2 * sigma), epsilon * sigma
        return cdf(half - slope) - exp(epsilon) * cdf(-half - slope)

    low, high = 0.0, 50.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if delta_of(middle) > delta else (low, middle)
    return high


def epsilon(sigma: float, rate: float, steps: int, delta: float = 1e-3) -> float:
    return epsilon_of([NoisedSteps(sigma, rate, steps)], delta)


@pytest.mark.parametrize(("sigma", "delta"), [(1.0, 1e-3), (2.0, 1e-5), (5.0, 1e-3)])
def test_one_step_with_all_patients_is_the_gaussian_mechanism(sigma: float, delta: float):
    assert epsilon(sigma, 1, 1, delta) == pytest.approx(epsilon_of_one_gaussian(sigma, delta), rel=1e-5)


def test_nine_steps_with_all_patients_are_one_with_a_third_of_the_noise():
    # The sum of n Gaussian mechanisms of deviation sigma is one of sigma / sqrt(n).
    assert epsilon(6, 1, 9) == pytest.approx(epsilon_of_one_gaussian(6 / sqrt(9), 1e-3), rel=1e-5)


def test_a_rate_that_draws_all_but_always_is_hardly_better_than_all():
    # Composed step by step, where all patients at once have a closed form: both ways must meet.
    assert epsilon(6, 0.9999, 9) == pytest.approx(epsilon(6, 1, 9), rel=1e-2)
    assert epsilon(6, 0.9999, 9) < epsilon(6, 1, 9) + 1e-3


def test_epsilon_grows_with_steps_and_rate_and_falls_with_noise_and_delta():
    base = epsilon(4, 0.1, 20)

    assert epsilon(4, 0.1, 40) > base
    assert epsilon(4, 0.2, 20) > base
    assert epsilon(8, 0.1, 20) < base
    assert epsilon(4, 0.1, 20, delta=1e-2) < base


def test_parts_of_one_kind_count_together_whatever_their_order():
    parts = [NoisedSteps(4, 0.1, 5), NoisedSteps(8, 1, 2), NoisedSteps(4, 0.1, 15)]

    whole = epsilon_of([NoisedSteps(8, 1, 2), NoisedSteps(4, 0.1, 20)], 1e-3)

    assert epsilon_of(parts, 1e-3) == whole > epsilon(4, 0.1, 20)
    assert epsilon_of([], 1e-3) == 0


def test_noise_for_an_epsilon_is_enough_and_two_percent_less_is_not():
    noise = noise_for(2.0, 1e-3, 1.0, 10)

    assert epsilon(noise, 1, 10) <= 2.0 < epsilon(noise * 0.98, 1, 10)


@pytest.mark.parametrize("odd", [(0.4, 0.5, 1), (1, 0, 1), (1, 1.1, 1), (1, 0.5, 0)])
def test_steps_without_noise_rate_or_number_are_refused(odd: tuple[float, float, int]):
    with pytest.raises(ValueError, match="must be"):
        NoisedSteps(*odd)


def test_delta_of_zero_is_refused():
    with pytest.raises(PrivacyError, match="delta must be above 0"):
        epsilon(1, 1, 1, delta=0)
