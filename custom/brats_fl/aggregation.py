"""Means of updates, and whether an update may be part of one; plain functions on named arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from math import ceil, fsum
from typing import Any, TypeGuard

import numpy as np
import numpy.typing as npt

from brats_fl.errors import ModelError
from brats_fl.exact_sums import ExactSum
from brats_fl.exchange import Weights

MOST_CASES = 100_000
"""Training cases that a hospital may state; all public BraTS sets together have a few thousand."""

FEWEST_TO_CAP = 3
"""Sites from which on no one's share may be above ``max_share``."""


def weighted_mean(updates: Sequence[tuple[Weights, float]]) -> dict[str, npt.NDArray[np.float32]]:
    """Mean of updates, each with its weight, float32; in whatever order they are given, and of one update itself.

    Raises:
        ModelError: There is no update, or a value is too large to be added.

    Source: see ``exact_sums``.
    """
    if not updates:
        raise ModelError("no update to average: none was accepted")
    first = updates[0][0]
    if len(updates) == 1:
        return {name: np.asarray(value, np.float32) for name, value in first.items()}
    total = ExactSum(first)
    for update, weight in updates:
        total.add(update, weight)
    return total.divided_by(fsum(weight for _, weight in updates))


def is_count(value: object) -> TypeGuard[int]:
    """Whether a value is a whole number of cases, and no more than any hospital has."""
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool) and bool(0 <= value <= MOST_CASES)


def count_of_cases(value: object) -> int:
    """A site's number of training cases, by which its update counts.

    Raises:
        ModelError: It is not a whole number above 0, or more than any hospital has.
    """
    if not is_count(value) or value < 1:
        raise ModelError(f"its number of training cases must be a whole number from 1 to {MOST_CASES:,}")
    return int(value)


def capped_weights(cases: Mapping[str, int], max_share: float) -> dict[str, float]:
    """Weight of each site's update: its cases, but of three sites and more none above a share of their sum.

    What is cut off one site is dealt to the others by their cases, so that the bound holds for every one of them. With
    one site or two there is no mean that one of them does not own.

    Args:
        cases: Site -> training cases.
        max_share: Largest share of a site; where it is too small for the number of sites, all count as the smallest.
    """
    weights = {site: float(count) for site, count in cases.items()}
    if len(weights) < FEWEST_TO_CAP:
        return weights
    if max_share * len(weights) <= 1:
        return dict.fromkeys(weights, min(weights.values()))
    capped: set[str] = set()
    while True:
        others = sum(count for site, count in cases.items() if site not in capped)
        # The capped ones have max_share each of the whole, the others share what is left of it.
        cap = max_share * others / (1 - max_share * len(capped))
        above = {site for site, count in cases.items() if site not in capped and count > cap}
        if not above:
            return weights | dict.fromkeys(capped, cap)
        capped |= above


def most_capped(max_share: float) -> int:
    """Sites of which ``capped_weights`` may hold down the share, however many take part: those with the most cases.

    ``k`` of them have ``k * max_share`` of the whole, and the others have what is left: ``k < 1 / max_share``.
    """
    return ceil(1 / Fraction(max_share)) - 1


def check_update(update: Weights, like: Weights) -> None:
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


def checked_model(arrays: Mapping[Any, Any], like: Weights) -> Weights:
    """A model that a site sent, as float32, once it is known to have a network's names and shapes and finite values.

    Raises:
        ModelError: It has not.
    """
    if not all(isinstance(value, np.ndarray) and value.dtype.kind == "f" for value in arrays.values()):
        raise ModelError("its parameters must be arrays of floating-point numbers")
    check_update(arrays, like)
    with np.errstate(over="ignore"):  # what is too large for float32 is not finite then
        model = {name: np.asarray(arrays[name], dtype=np.float32) for name in like}
    check_update(model, like)
    return model


def check_size(update: Weights, model: Weights, max_ratio: float) -> None:
    """Raise ``ModelError`` where an update is implausibly large for one round of training.

    Args:
        update: Change of each parameter.
        model: The global model that it changes.
        max_ratio: Largest L2 norm of the update, as a multiple of the model's.
    """
    size, limit = global_norm(update), max_ratio * global_norm(model)
    if size > limit:
        raise ModelError(f"it has L2 norm {size:.3g}, the most that counts as training is {limit:.3g}")


def global_norm(values: Weights) -> float:
    """L2 norm over all parameters together."""
    return float(np.sqrt(sum(float(np.sum(np.square(value, dtype=np.float64))) for value in values.values())))


def _first(names: list[str]) -> str:
    return f" (first: {names[0]})" if names else ""
