"""Membership inference: whether the loss of a case tells that the model was trained on it.

Two attacks: a low loss (Yeom et al. 2018, arXiv 1709.01604), and a loss that is lower than that of a model which has
not seen the case, so that easy cases do not pass for known ones (Watson et al. 2022, arXiv 2111.08440).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import numpy.typing as npt

from brats_fl_tools.report.comparison import RESAMPLES

Floats = npt.NDArray[np.float64]
Kind = Literal["loss", "calibrated"]

LARGEST_CHANCE: Final = 0.25
"""Half-width of the middle 95 % of AUCs of an attack that guesses, above which figures are not given: with 10 patients
on either side a guess comes out between .24 and .76, and an attack that has found something (.75) looks the same."""


@dataclass(frozen=True)
class CaseLoss:
    """Loss of the model on a case, and of the reference where there is one."""

    patient: str
    loss: float
    reference: float | None = None


@dataclass(frozen=True)
class Score:
    """How well one attack tells cases that were trained on from others."""

    kind: Kind
    auc: float
    """0.5 for a guess, 1 where all are told apart."""
    auc_interval: tuple[float, float]
    """95 % interval, patients resampled."""
    advantage: float
    """True less false positive rate where each case below the mean training loss is called a member (Yeom et al.)."""
    true_positive_rate: float
    """Share of the members that stand out from every other case: at no false positive, the lowest rate there is."""


@dataclass(frozen=True)
class Membership:
    """What the attacks came to; no score where the patients are too few to say."""

    members: int
    """Cases that were trained on."""
    others: int
    member_patients: int
    other_patients: int
    chance: float
    """Half-width of the middle 95 % of AUCs of an attack that guesses."""
    scores: tuple[Score, ...]

    @property
    def is_too_small(self) -> bool:
        """Whether an attack that guesses could look like one that works."""
        return self.chance > LARGEST_CHANCE


def measure(members: Sequence[CaseLoss], others: Sequence[CaseLoss]) -> Membership:
    """Both attacks on losses of cases trained on and of others; the calibrated one where all have a reference.

    Args:
        members: Cases of the training split, at least one.
        others: Cases that the model has not seen, at least one.
    """
    inside, outside = (len({case.patient for case in cases}) for cases in (members, others))
    chance = chance_of(inside, outside)
    kinds: list[Kind] = ["loss"]
    if all(case.reference is not None for case in (*members, *others)):
        kinds.append("calibrated")
    scores = () if chance > LARGEST_CHANCE else tuple(_score(kind, members, others) for kind in kinds)
    return Membership(len(members), len(others), inside, outside, chance, scores)


def chance_of(members: int, others: int) -> float:
    """1.96 standard deviations of a guess's AUC, each sqrt((m + n + 1) / 12 m n): Mann and Whitney 1947."""
    return float(1.96 * np.sqrt((members + others + 1) / (12 * members * others)))


def _score(kind: Kind, members: Sequence[CaseLoss], others: Sequence[CaseLoss]) -> Score:
    inside, outside = (np.array([_suspicion(kind, case) for case in cases]) for cases in (members, others))
    threshold = inside.mean()
    return Score(
        kind,
        auc(inside, outside),
        _interval(members, others, inside, outside),
        float((inside >= threshold).mean() - (outside >= threshold).mean()),
        float((inside > outside.max()).mean()),
    )


def _suspicion(kind: Kind, case: CaseLoss) -> float:
    """Higher where the case looks as if it had been trained on."""
    return -case.loss + ((case.reference or 0.0) if kind == "calibrated" else 0.0)


def auc(inside: Floats, outside: Floats) -> float:
    """Share of pairs of a member and another in which the member has the higher value; ties count half."""
    difference = inside[:, None] - outside[None]
    return float((difference > 0).mean() + (difference == 0).mean() / 2)


def _interval(
    members: Sequence[CaseLoss], others: Sequence[CaseLoss], inside: Floats, outside: Floats
) -> tuple[float, float]:
    """95 % percentile interval of the AUC; patients are drawn with all their cases, from each side on its own."""
    rng = np.random.default_rng(0)
    groups = [_by_patient(members), _by_patient(others)]
    values = []
    for _ in range(RESAMPLES):
        first, second = (np.concatenate([own[i] for i in rng.integers(len(own), size=len(own))]) for own in groups)
        values.append(auc(inside[first], outside[second]))
    low, high = np.percentile(values, [2.5, 97.5])
    return float(low), float(high)


def _by_patient(cases: Sequence[CaseLoss]) -> list[npt.NDArray[np.intp]]:
    names = np.array([case.patient for case in cases])
    return [np.flatnonzero(names == name) for name in dict.fromkeys(names.tolist())]
