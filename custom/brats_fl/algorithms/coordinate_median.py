"""Coordinate median: of each value of the model, the median of what the sites' updates say.

Source: Yin et al. 2018, "Byzantine-Robust Distributed Learning: Towards Optimal Statistical Rates" (arXiv 1803.01498),
algorithm 1, option I. All sites count alike: the number of cases is a site's own statement.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from brats_fl.algorithms import Contribution, Settings
from brats_fl.exchange import Payloads, Weights

LEAST: Final = 3
"""Of two, the median is the mean."""


def least_updates(settings: Settings) -> int:
    """Three: fewer have no middle that one of them does not own."""
    return LEAST


def server_update(
    model: Weights, state: Payloads, contributions: Sequence[Contribution], settings: Settings
) -> tuple[Weights, Payloads]:
    """The median of the updates, value by value; there is no state."""
    updates = [part.update for part in contributions]
    median = {name: np.median([update[name] for update in updates], axis=0).astype(np.float32) for name in model}
    return median, state
