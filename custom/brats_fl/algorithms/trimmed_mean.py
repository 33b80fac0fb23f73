"""Trimmed mean: of each value of the model, the mean of the updates without the largest and the smallest.

Source: Yin et al. 2018, "Byzantine-Robust Distributed Learning: Towards Optimal Statistical Rates" (arXiv 1803.01498),
algorithm 1, option II. All sites count alike: the number of cases is a site's own statement.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from brats_fl.algorithms import Contribution, Settings
from brats_fl.exchange import Array, Payloads, Weights
from brats_fl.settings import Setting

SETTINGS: Final = {
    "hostile": Setting(1, "sites that may send anything: so many values are cut off at each end", minimum=1, maximum=50)
}


def least_updates(settings: Settings) -> int:
    """One more than are cut off at both ends."""
    return 2 * int(settings["hostile"]) + 1


def server_update(
    model: Weights, state: Payloads, contributions: Sequence[Contribution], settings: Settings
) -> tuple[Weights, Payloads]:
    """The mean of what is left of each value; there is no state."""
    cut = int(settings["hostile"])

    def mean(name: str) -> Array:
        ordered = np.sort([part.update[name] for part in contributions], axis=0)
        kept = ordered[cut : len(ordered) - cut]
        return np.asarray(kept.mean(axis=0, dtype=np.float64), dtype=np.float32)

    return {name: mean(name) for name in model}, state
