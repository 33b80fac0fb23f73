"""What FedAdam and FedYogi share: the mean update is taken for a gradient, each parameter has a step of its own.

Source: Reddi et al. 2021, "Adaptive Federated Optimization" (arXiv 2003.00295), algorithm 2, without bias correction,
as there: m <- beta1 * m + (1 - beta1) * mean update; w <- w + server_rate * m / (sqrt(v) + tau), v beginning at tau^2.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import numpy as np

from brats_fl.algorithms import Contribution, Settings
from brats_fl.algorithms.fedavg import server_update as mean_update
from brats_fl.exchange import Array, Payloads, Weights
from brats_fl.settings import Setting

ADAPTIVE_SETTINGS: Final = {
    "server_rate": Setting(0.01, "step of the server for a parameter whose updates agree", above=0, maximum=1),
    "beta1": Setting(0.9, "share of the mean of earlier updates that is kept", minimum=0, maximum=0.999),
    "beta2": Setting(0.99, "share of the mean of earlier squares that is kept", minimum=0, maximum=0.9999),
    "tau": Setting(0.001, "size of an update below which a step is no longer scaled up", above=0, maximum=1),
}

MEAN: Final = "mean_update"
SQUARE: Final = "mean_square"

Squares = Callable[[Array, Array, float], Array]
"""Mean of squares so far, square of the new update, beta2 -> the new mean of squares."""


def adaptive_state(model: Weights, settings: Settings) -> Payloads:
    """No update yet, and squares of ``tau``."""
    square = settings["tau"] ** 2
    return {
        MEAN: {name: np.zeros_like(value, np.float32) for name, value in model.items()},
        SQUARE: {name: np.full_like(value, square, np.float32) for name, value in model.items()},
    }


def adaptive_update(
    model: Weights, state: Payloads, contributions: Sequence[Contribution], settings: Settings, squares: Squares
) -> tuple[Weights, Payloads]:
    """A step of the server's optimiser, float32, and its new moments."""
    change, _ = mean_update(model, state, contributions, settings)
    beta1, rate, tau = (np.float32(settings[key]) for key in ("beta1", "server_rate", "tau"))
    mean = {name: beta1 * state[MEAN][name] + (1 - beta1) * value for name, value in change.items()}
    square = {name: squares(state[SQUARE][name], value**2, settings["beta2"]) for name, value in change.items()}
    update = {name: rate * mean[name] / (np.sqrt(square[name]) + tau) for name in change}
    return update, {MEAN: mean, SQUARE: square}
