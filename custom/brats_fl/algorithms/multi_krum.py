"""Multi-Krum: the mean of the updates that lie nearest to the others; whole updates are left out.

Source: Blanchard et al. 2017, "Machine Learning with Adversaries: Byzantine Tolerant Gradient Descent" (arXiv
1703.02757), sections 3 and 5: of n updates with f hostile ones, an update's score is the sum of its squared distances
to its n - f - 2 nearest; the n - f of the lowest scores are averaged. It needs n >= 2 f + 3. All sites count alike: the
number of cases is a site's own statement.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import Final

import numpy as np
import numpy.typing as npt

from brats_fl.aggregation import weighted_mean
from brats_fl.algorithms import Contribution, Settings
from brats_fl.exchange import Payloads, Weights
from brats_fl.settings import Setting

SETTINGS: Final = {
    "hostile": Setting(1, "sites that may send anything; so many updates are left out", minimum=1, maximum=50)
}


def least_updates(settings: Settings) -> int:
    """2 f + 3."""
    return 2 * int(settings["hostile"]) + 3


def server_update(
    model: Weights, state: Payloads, contributions: Sequence[Contribution], settings: Settings
) -> tuple[Weights, Payloads]:
    """The mean of the chosen updates; there is no state."""
    hostile = int(settings["hostile"])
    updates = [part.update for part in contributions]
    scores = krum_scores(updates, hostile)
    chosen = np.argsort(scores, kind="stable")[: len(updates) - hostile]  # among equals the first by name
    return weighted_mean([(updates[index], 1.0) for index in sorted(chosen)]), state


def krum_scores(updates: Sequence[Weights], hostile: int) -> npt.NDArray[np.float64]:
    """Of each update, the sum of its squared distances to its n - f - 2 nearest."""
    count = len(updates)
    distances = np.full((count, count), np.inf)
    for first, second in combinations(range(count), 2):
        distances[first, second] = distances[second, first] = squared_distance(updates[first], updates[second])
    return np.sort(distances, axis=1)[:, : count - hostile - 2].sum(axis=1)


def squared_distance(first: Weights, second: Weights) -> float:
    """Over all parameters together."""
    return sum(float(np.square(first[name] - second[name], dtype=np.float64).sum()) for name in first)
