"""Federated averaging as plain functions on updates: name of a parameter -> its change, an array.

Source: McMahan et al. 2017, "Communication-Efficient Learning of Deep Networks from Decentralized Data"
(arXiv 1602.05629), algorithm 1: w <- w + sum over clients k of (n_k / n) * (w_k - w), n_k the client's training cases.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from brats_fl.errors import ModelError

Array = npt.NDArray[np.floating]
Update = Mapping[str, Array]


class WeightedMean:
    """Running weighted mean of updates, in float64, so that the result does not depend on who came first.

    Memory: one float64 copy of the parameters, however many sites there are.
    """

    def __init__(self) -> None:
        self.total: dict[str, npt.NDArray[np.float64]] = {}
        self.weight = 0.0

    def add(self, update: Update, weight: float) -> None:
        """Add an update.

        Raises:
            ModelError: The weight is not a finite number above 0.
        """
        if not (isinstance(weight, (int, float, np.number)) and np.isfinite(weight) and weight > 0):
            raise ModelError(f"the weight of an update must be a finite number > 0 (got {weight!r})")
        for name, change in update.items():
            scaled = np.multiply(change, weight, dtype=np.float64)
            if name in self.total:
                self.total[name] += scaled
            else:
                self.total[name] = scaled
        self.weight += weight

    def result(self) -> dict[str, npt.NDArray[np.float32]]:
        """The mean, float32.

        Raises:
            ModelError: Nothing was added.
        """
        if not self.weight:
            raise ModelError("no update to average: none was accepted")
        return {name: (total / self.weight).astype(np.float32) for name, total in self.total.items()}


def check_update(update: Update, like: Mapping[str, Array]) -> None:
    """Raise ``ModelError`` unless weights or an update have exactly a network's keys and shapes, and finite values."""
    missing = sorted(set(like) - set(update))
    unknown = set(update) - set(like)
    if missing or unknown:
        # Unknown names are not shown: at the server they are a site's own text, which does not belong into its log.
        raise ModelError(
            f"keys differ from the network's: {len(missing)} missing{_first(missing)}, {len(unknown)} unknown; "
            "they belong to another network: use the same bundle and profile"
        )
    for name, change in update.items():
        if np.shape(change) != np.shape(like[name]):
            raise ModelError(
                f"{name} has shape {np.shape(change)}, the network's has {np.shape(like[name])}; "
                "it belongs to another network: use the same bundle and profile"
            )
        if not np.isfinite(change).all():
            raise ModelError(f"{name} holds NaN or infinite values; the training diverged: lower the learning rate")


def check_size(update: Update, model: Update, max_ratio: float) -> None:
    """Raise ``ModelError`` where an update is implausibly large for one round of training.

    Args:
        update: Change of each parameter.
        model: The global model that it changes.
        max_ratio: Largest L2 norm of the update, as a multiple of the model's.
    """
    size, limit = global_norm(update), max_ratio * global_norm(model)
    if size > limit:
        raise ModelError(f"it has L2 norm {size:.3g}, the most that counts as training is {limit:.3g}")


def global_norm(values: Update) -> float:
    """L2 norm over all parameters together."""
    return float(np.sqrt(sum(float(np.sum(np.square(value, dtype=np.float64))) for value in values.values())))


def _first(names: list[str]) -> str:
    return f" (first: {names[0]})" if names else ""
