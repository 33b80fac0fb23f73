"""What noise is worth: the (epsilon, delta) of all that was computed on a patient's scans, by Google's dp-accounting.

Two data sets are neighbours where one patient's scans count in the first and count for nothing in the second (the
zero-out relation of Kairouz et al. 2021, arXiv 2103.00039, section 2): the number of patients is not a secret. For
Poisson sampling and a sum of clipped vectors it has the losses of adding or removing a record.

Sources: Abadi et al. 2016, arXiv 1607.00133 (the mechanism); Koskela et al. 2020, arXiv 1906.03049, and Doroshenko et
al. 2022, arXiv 2207.04380 (privacy loss distributions, which dp-accounting composes numerically, rounded upwards).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from math import ceil, log, sqrt
from typing import Any, Final

from brats_fl.errors import PrivacyError

LEAST_NOISE: Final = 0.5
"""Noise multiplier below which a job is not private in any useful sense, and the accountant takes minutes."""

MOST_NOISE: Final = 1e6
MOST_STEPS: Final = 1_000_000


@dataclass(frozen=True)
class NoisedSteps:
    """Steps that each draw a patient with a probability, and add noise to the sum of the clipped gradients."""

    noise_multiplier: float
    """Standard deviation of the noise, in clipping norms."""
    sampling_rate: float
    """Probability that a patient is drawn at a step."""
    steps: int

    def __post_init__(self) -> None:
        """Check the numbers.

        Raises:
            ValueError: One is out of its bounds.
        """
        if not LEAST_NOISE <= self.noise_multiplier <= MOST_NOISE:
            raise ValueError(
                f"noise_multiplier must be in [{LEAST_NOISE}, {MOST_NOISE:g}] (got {self.noise_multiplier})"
            )
        if not 0 < self.sampling_rate <= 1:
            raise ValueError(f"sampling_rate must be above 0 and at most 1 (got {self.sampling_rate})")
        if not 1 <= self.steps <= MOST_STEPS:
            raise ValueError(f"steps must be from 1 to {MOST_STEPS:,} (got {self.steps})")


def epsilon_of(parts: Iterable[NoisedSteps], delta: float) -> float:
    """Epsilon of all parts together, at a delta; 0 of none.

    Raises:
        PrivacyError: delta is no probability, or dp-accounting is not installed.
    """
    if not 0 < delta < 1:
        raise PrivacyError(f"delta must be above 0 and below 1 (got {delta!r})")
    together: Counter[tuple[float, float]] = Counter()
    for part in parts:
        together[part.noise_multiplier, part.sampling_rate] += part.steps
    return _epsilon(tuple(sorted(together.items())), delta) if together else 0.0


@lru_cache(maxsize=256)
def _epsilon(together: tuple[tuple[tuple[float, float], int], ...], delta: float) -> float:
    accountant, events = _accountant()
    for (noise_multiplier, sampling_rate), steps in together:
        if sampling_rate == 1:  # the sum of Gaussian mechanisms is one with less noise, and costs no composition
            accountant.compose(events.GaussianDpEvent(noise_multiplier / sqrt(steps)))
        else:
            gaussian = events.GaussianDpEvent(noise_multiplier)
            accountant.compose(events.PoissonSampledDpEvent(sampling_rate, gaussian), steps)
    return float(accountant.get_epsilon(delta))


def _accountant() -> tuple[Any, Any]:
    """A new accountant, and the words for what it composes; imported here: 2 s that no other job pays."""
    try:
        from dp_accounting import dp_event
        from dp_accounting.pld import PLDAccountant
    except ImportError as error:
        raise PrivacyError(
            "dp-accounting is not installed, and without it nothing says what noise is worth; install it with "
            f"`pip install -c constraints.txt dp-accounting` ({error})"
        ) from error
    return PLDAccountant(), dp_event


def noise_for(epsilon: float, delta: float, sampling_rate: float, steps: int) -> float:
    """A noise multiplier whose steps stay within (epsilon, delta), at most a hundredth above the least that does.

    Raises:
        PrivacyError: epsilon or delta is out of its bounds, or no noise multiplier in its bounds does it.
    """
    if not 0 < epsilon < float("inf") or not 0 < delta < 1:
        raise PrivacyError(f"epsilon must be above 0 (got {epsilon!r}), and delta above 0 and below 1 (got {delta!r})")

    def is_enough(noise: float) -> bool:
        return epsilon_of([NoisedSteps(noise, sampling_rate, steps)], delta) <= epsilon

    # From above: the accountant is the faster the more noise there is. The guess is the classic Gaussian mechanism's.
    high = max(LEAST_NOISE, sampling_rate * sqrt(2 * steps * log(1.25 / delta)) / epsilon)
    while not is_enough(high):
        if high > MOST_NOISE / 2:
            raise PrivacyError(f"no noise multiplier up to {MOST_NOISE:g} gives epsilon {epsilon:g}; take fewer steps")
        high *= 2
    while high / 2 > LEAST_NOISE and is_enough(high / 2):
        high /= 2
    low = max(LEAST_NOISE, high / 2)
    while high - low > 0.004 * high:
        middle = (low + high) / 2
        low, high = (low, middle) if is_enough(middle) else (middle, high)
    return ceil(high * 100) / 100
