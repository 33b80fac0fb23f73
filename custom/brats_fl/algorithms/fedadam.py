"""FedAdam: the server's own optimiser, Adam, takes the sites' mean update for a gradient.

Source: Reddi et al. 2021, "Adaptive Federated Optimization" (arXiv 2003.00295), algorithm 2: v <- beta2 * v +
(1 - beta2) * update^2.
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
    """A step of Adam."""
    return adaptive_update(model, state, contributions, settings, _squares)


def _squares(kept: Array, new: Array, beta2: float) -> Array:
    """Mean that forgets by ``beta2``."""
    return np.float32(beta2) * kept + np.float32(1 - beta2) * new
