"""FedYogi: the server's own optimiser, Yogi, takes the sites' mean update for a gradient.

Source: Reddi et al. 2021, "Adaptive Federated Optimization" (arXiv 2003.00295), algorithm 2: v <- v - (1 - beta2) *
update^2 * sign(v - update^2), which grows as FedAdam's does and shrinks slowly: one quiet round does not make the next
steps large.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from brats_fl.algorithms import Contribution, Settings
from brats_fl.algorithms._adaptive import ADAPTIVE_SETTINGS as SETTINGS
from brats_fl.algorithms._adaptive import adaptive_state as server_state
from brats_fl.algorithms._adaptive import adaptive_update
from brats_fl.algorithms.fedavg import NEEDS_MEAN_ONLY
from brats_fl.exchange import Array, Payloads, Weights

__all__ = ["NEEDS_MEAN_ONLY", "SETTINGS", "server_state", "server_update"]


def server_update(
    model: Weights, state: Payloads, contributions: Sequence[Contribution], settings: Settings
) -> tuple[Weights, Payloads]:
    """A step of Yogi."""
    return adaptive_update(model, state, contributions, settings, _squares)


def _squares(kept: Array, new: Array, beta2: float) -> Array:
    """Moved towards the new square by a share of it, whichever way."""
    return kept - np.float32(1 - beta2) * new * np.sign(kept - new)
