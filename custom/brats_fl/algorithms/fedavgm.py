"""FedAvgM: federated averaging whose server keeps moving in the direction of the rounds before.

Source: Hsu et al. 2019, "Measuring the Effects of Non-Identical Data Distribution for Federated Visual Classification"
(arXiv 1909.06335), section 4: v <- momentum * v + mean update; w <- w + server_rate * v.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from brats_fl.algorithms import Contribution, Settings
from brats_fl.algorithms.fedavg import server_update as mean_update
from brats_fl.exchange import Payloads, Weights
from brats_fl.settings import Setting

SETTINGS: Final = {
    "momentum": Setting(
        0.9, "of the server: share of the last rounds' direction that is kept", minimum=0, maximum=0.99
    ),
    "server_rate": Setting(1.0, "step of the server along its direction", above=0, maximum=10),
}

NEEDS_MEAN_ONLY: Final = True
VELOCITY: Final = "velocity"


def server_state(model: Weights, settings: Settings) -> Payloads:
    """No direction yet."""
    return {VELOCITY: {name: np.zeros_like(value, np.float32) for name, value in model.items()}}


def server_update(
    model: Weights, state: Payloads, contributions: Sequence[Contribution], settings: Settings
) -> tuple[Weights, Payloads]:
    """A step along the direction, which the mean update has turned."""
    mean, _ = mean_update(model, state, contributions, settings)
    momentum, rate = np.float32(settings["momentum"]), np.float32(settings["server_rate"])
    velocity = {name: momentum * state[VELOCITY][name] + change for name, change in mean.items()}
    return {name: rate * value for name, value in velocity.items()}, {VELOCITY: velocity}
