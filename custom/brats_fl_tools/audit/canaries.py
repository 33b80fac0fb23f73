"""Canaries: cases of nobody, of which a coin says whether they are trained on; who guesses the coins bounds epsilon.

If training were (epsilon, delta)-private, nobody could guess the coins better than epsilon allows. So right guesses are
evidence, from below, of what epsilon is at least: Jagielski et al. 2020 (arXiv 2006.07709), in one run as Steinke et
al. 2023 (arXiv 2305.08846).
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np
from scipy.special import expit
from scipy.stats import binom

from brats_fl.cases.datalists import Case, DataList, check_unique, find_datalists, read_datalist
from brats_fl.constants import SPLITS
from brats_fl.errors import DataListError, PrivacyError
from brats_fl.files import write_whole
from brats_fl.reading import Reader

CONFIDENCE: Final = 0.95
LARGEST_EPSILON: Final = 50.0
"""Up to which a bound is looked for; no number of canaries that one can plant shows more."""

FEWEST: Final = 12
"""Canaries: with 6 guesses, all right, the bound is 0.43; with fewer it is next to nothing."""

READER: Final = Reader(DataListError, "without the key as it was written nothing can be said; plant anew")


@dataclass(frozen=True)
class Key:
    """Which canaries were planted: the secret of the audit, kept from whoever trains and guesses."""

    planted: Mapping[str, bool]
    """Name of each canary -> whether it was put into the training list."""


@dataclass(frozen=True)
class Bound:
    """What the guesses say of epsilon."""

    canaries: int
    guesses: int
    right: int
    delta: float
    epsilon: float
    """Lower bound at ``CONFIDENCE``; 0 where the guesses show nothing."""
    largest: float
    """What it would be had every guess been right: no more can be shown with so many canaries."""


def read_key(path: Path) -> Key:
    """A key as ``write_key`` wrote it.

    Raises:
        DataListError: It is missing, damaged or none.
    """
    return READER.typed(Key, READER.json_object(path), path)


def write_key(path: Path, key: Key) -> None:
    """Write a key; the file appears whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, json.dumps(asdict(key), indent=1) + "\n")


def list_canaries(folder: Path) -> dict[str, Case]:
    """Labelled cases of all data lists of a folder, by name.

    Raises:
        DataListError: A list is wrong, a name stands twice, or there are fewer than ``FEWEST``.
    """
    lists = [read_datalist(path) for path in find_datalists(folder)]
    cases = [case for found in lists for split in SPLITS for case in found.split(split) if case.label is not None]
    named = {case.case: case for case in cases}
    if len(named) != len(cases):
        raise DataListError(f"{folder}: {len(cases) - len(named)} canaries share a name with another; rename them")
    if len(named) < FEWEST:
        raise DataListError(
            f"{folder}: has {len(named)} labelled cases, and fewer than {FEWEST} canaries show nothing; make more with "
            "`brats-fl sample --cases-per-site`"
        )
    return named


def plant(path: Path, canaries: Mapping[str, Case]) -> tuple[DataList, Key]:
    """A data list with each canary in its training by the throw of a coin, and the key; the coins are the system's own.

    Args:
        path: The hospital's data list, for its site's name and its cases.
        canaries: By name.

    Raises:
        DataListError: The list is wrong, or has a case of a canary's name.
    """
    own = read_datalist(path)
    key = Key({name: bool(secrets.randbits(1)) for name in canaries})
    for planted in (canaries.values(), [case for name, case in canaries.items() if key.planted[name]]):
        # All are looked at first: whether a name is refused must not depend on the coin.
        added = tuple(replace(case, patient=f"canary {case.case}") for case in planted)
        together = replace(own, training=(*own.training, *added))
        check_unique(path, together)
    return together, key


def guess_coins(suspicion: Mapping[str, float]) -> dict[str, bool]:
    """Guesses of half the canaries: in for the quarter that looks most as if trained on, out for the least.

    How many are guessed is fixed beforehand, so that the bound holds as it is; the middle half, where guesses are
    worst, is passed over.
    """
    ranked = sorted(suspicion, key=lambda name: suspicion[name])
    quarter = len(ranked) // 4
    return dict.fromkeys(ranked[:quarter], False) | dict.fromkeys(ranked[len(ranked) - quarter :], True)


def score(suspicion: Mapping[str, float], key: Key, delta: float) -> Bound:
    """What guesses from the model say of epsilon.

    Args:
        suspicion: Name of each canary of the key -> higher where it looks trained on.
        key: The coins.
        delta: Of the guarantee.
    """
    guesses = guess_coins(suspicion)
    right = sum(key.planted[name] is guess for name, guess in guesses.items())
    count, canaries = len(guesses), len(suspicion)
    return Bound(
        *(canaries, count, right, delta),
        epsilon=lower_bound(count, right, canaries, delta),
        largest=lower_bound(count, count, canaries, delta),
    )


def lower_bound(guesses: int, right: int, canaries: int, delta: float, confidence: float = CONFIDENCE) -> float:
    """The largest epsilon that so many right guesses refute: with this confidence the true one is above it.

    Args:
        guesses: Coins that were guessed.
        right: Of these.
        canaries: All, guessed or not.
        delta: Of the guarantee.
        confidence: Of the bound.

    Returns:
        0.0 where the guesses refute nothing.

    Raises:
        PrivacyError: ``delta`` is no probability.
    """
    if not 0 <= delta < 1:
        raise PrivacyError(f"delta must be at least 0 and below 1 (got {delta!r}); take that of the guarantee")
    low, high = 0.0, LARGEST_EPSILON
    if p_value(guesses, right, canaries, low, delta) > 1 - confidence:
        return 0.0
    while high - low > 1e-6:
        middle = (low + high) / 2
        if p_value(guesses, right, canaries, middle, delta) > 1 - confidence:
            high = middle
        else:
            low = middle
    return low


def p_value(guesses: int, right: int, canaries: int, epsilon: float, delta: float) -> float:
    """How likely so many right guesses or more are, at most, under (epsilon, delta)-privacy.

    Each guess is right with e^epsilon / (1 + e^epsilon) at most; delta adds 2 x canaries x delta x the steepest mean
    rise of that distribution's tail. Source: Steinke et al. 2023, theorem 5.2.
    """
    chance = expit(epsilon)
    tail = float(binom.sf(right - 1, guesses, chance))
    below = np.cumsum(binom.pmf(right - 1 - np.arange(right), guesses, chance))
    steepest = float((below / np.arange(1, right + 1)).max()) if right else 0.0
    return min(tail + 2 * canaries * delta * steepest, 1.0)


def suspicion_of(loss: float, reference: float | None) -> float:
    """Higher where a canary looks trained on: its loss is low, or lower than a model's that has not seen it."""
    return (0.0 if reference is None else reference) - loss


def refuse_other(canaries: Sequence[str] | Mapping[str, Case], key: Key) -> None:
    """Raise ``DataListError`` where canaries are not those of the key."""
    if differing := sorted(set(canaries) ^ set(key.planted)):
        raise DataListError(
            f"{len(differing)} canaries are in the folder or in the key alone ({differing[0]}); give those of the key"
        )
