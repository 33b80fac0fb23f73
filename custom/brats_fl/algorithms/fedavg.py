"""Federated averaging: the mean of the sites' updates, weighted by training cases.

Source: McMahan et al. 2017, "Communication-Efficient Learning of Deep Networks from Decentralized Data"
(arXiv 1602.05629), algorithm 1: w <- w + sum over clients k of (n_k / n) * (w_k - w), n_k the client's training cases,
held down where one client would own the model (``max_share``).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from brats_fl.aggregation import weighted_mean
from brats_fl.algorithms import Contribution, Settings
from brats_fl.exchange import Payloads, Weights

NEEDS_MEAN_ONLY: Final = True


def server_update(
    model: Weights, state: Payloads, contributions: Sequence[Contribution], settings: Settings
) -> tuple[Weights, Payloads]:
    """The weighted mean of the updates; there is no state."""
    return weighted_mean([(part.update, part.weight) for part in contributions]), state
