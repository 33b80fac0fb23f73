"""Norm bound: federated averaging of updates none of which is longer than the round's median length allows.

Source: Sun et al. 2019, "Can You Really Backdoor Federated Learning?" (arXiv 1911.07963), section 4: an update u counts
as u / max(1, |u| / M). There M is given; here it is a multiple of the median of the round's lengths, which one half of
the sites cannot raise, and which falls by itself as training comes to its end.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from brats_fl.aggregation import global_norm, weighted_mean
from brats_fl.algorithms import Contribution, Settings
from brats_fl.exchange import Payloads, Weights
from brats_fl.settings import Setting

SETTINGS: Final = {
    "norm_ratio": Setting(
        1.0, "length that an update may have, in medians of the round's lengths", above=0, maximum=100
    )
}


def least_updates(settings: Settings) -> int:
    """Three: of two, one is half of the sites."""
    return 3


def server_update(
    model: Weights, state: Payloads, contributions: Sequence[Contribution], settings: Settings
) -> tuple[Weights, Payloads]:
    """The mean of the bounded updates, weighted by cases; there is no state."""
    norms = [global_norm(part.update) for part in contributions]
    bound = settings["norm_ratio"] * float(np.median(norms))
    parts = zip(contributions, norms, strict=True)
    return weighted_mean([(shorten(part.update, norm, bound), part.weight) for part, norm in parts]), state


def shorten(update: Weights, norm: float, bound: float) -> Weights:
    """The same direction, no longer than the bound."""
    if norm <= bound:
        return update
    return {name: value * np.float32(bound / norm) for name, value in update.items()}
