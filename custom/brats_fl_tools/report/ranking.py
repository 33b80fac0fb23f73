"""Which hospitals a model serves best and least, where enough cases stand behind it to say so."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

FEWEST_FOR_RANK = 5
"""With fewer cases of a hospital, which one is the best or the lowest is chance: nothing is said of it."""


@dataclass(frozen=True)
class Ranking:
    """The hospitals that the model serves best and least, by mean Dice."""

    worst_site: str
    best_site: str
    gap: float
    """Mean Dice of the best site less that of the worst."""


def rank(means: Mapping[str, float], cases: Mapping[str, int | None]) -> Ranking | None:
    """Best and lowest hospital among those with enough cases.

    Args:
        means: Mean Dice per site.
        cases: How many cases that is over; None where nobody said.
    """
    enough = [site for site in means if (cases.get(site) or 0) >= FEWEST_FOR_RANK]
    if len(enough) < 2:
        return None
    worst, best = min(enough, key=lambda site: means[site]), max(enough, key=lambda site: means[site])
    return Ranking(worst, best, means[best] - means[worst])
