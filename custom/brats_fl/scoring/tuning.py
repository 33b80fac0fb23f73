"""Choosing how probabilities become a mask, on cases that were not trained on, and how much that is worth.

One region after the other, the outermost first, since each region lies in the one before it: for each setting the Dice
of every case is known, and the setting with the highest mean is taken. What a choice is worth is not its mean on the
cases that chose it: each case is scored with what the others would have chosen. Where that is no better than the
default, the default stays.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from brats_fl.cases.regions import labels_to_regions
from brats_fl.constants import REGIONS
from brats_fl.errors import RunError
from brats_fl.scoring.finishing import ET, TC, WT, PostProcessing, finish

THRESHOLDS = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
WT_SHARES = (0.0, 0.1, 0.25)
ET_ML = (0.0, 0.05, 0.1, 0.3)
FEWEST_CASES = 5
"""Fewer say next to nothing of a threshold."""

Setting = TypeVar("Setting")


@dataclass(frozen=True)
class Prediction:
    """What a network says of a case, and what is true."""

    probabilities: NDArray[np.floating[Any]]
    """(3, H, W, D) in [0, 1], channels in the order of ``REGIONS``."""
    reference: NDArray[np.bool_]
    """(3, H, W, D)."""
    voxel_ml: float


@dataclass(frozen=True)
class Choice:
    """Settings, and the mean Dice over regions and cases that they are worth."""

    settings: PostProcessing
    before: float
    """With the default settings."""
    after: float
    """With these, on the cases that they were chosen on."""
    left_out: float
    """Each case with what all other cases would have chosen."""


def choose(predictions: Sequence[Callable[[], Prediction]]) -> Choice:
    """Thresholds and sizes for a network, from predictions that are made or read when they are asked for.

    Raises:
        RunError: There are fewer than ``FEWEST_CASES``.
    """
    refuse_few(len(predictions))
    settings, left_out = PostProcessing(), [0.0] * len(REGIONS)
    for region, candidates in ((WT, of_whole_tumour), (TC, of_core), (ET, of_enhancing)):
        options = candidates(settings)
        table = np.array([_scores(call(), options, region) for call in predictions])
        settings, left_out[region] = pick(options, table)
    before, after = (mean_dice(predictions, used) for used in (PostProcessing(), settings))
    return Choice(settings, before, after, float(np.mean(left_out)))


def refuse_few(cases: int) -> None:
    """Raise ``RunError`` where there are too few cases to choose on."""
    if cases < FEWEST_CASES:
        raise RunError(
            f"{cases} cases are too few to choose thresholds on; {FEWEST_CASES} are the fewest: give more hospitals, "
            "or partition with a larger --validation"
        )


def mean_dice(predictions: Sequence[Callable[[], Prediction]], settings: PostProcessing) -> float:
    """Mean over cases and regions."""
    regions = range(len(REGIONS))
    return float(np.mean([[_dice(call(), settings, region) for region in regions] for call in predictions]))


def pick(options: Sequence[Setting], table: NDArray[np.floating[Any]]) -> tuple[Setting, float]:
    """The best setting, and its worth: the mean of each case's score under what the other cases choose.

    The first option is the default; it stays where another one's worth is no higher than its mean.

    Args:
        options: Settings.
        table: (cases, settings), score of each case.
    """
    others = table.sum(axis=0) - table  # (cases, settings): of all cases but one
    worth = float(np.mean(table[np.arange(len(table)), others.argmax(axis=1)]))
    default = float(table[:, 0].mean())
    if worth <= default:
        return options[0], default
    return options[int(table.sum(axis=0).argmax())], worth


def of_whole_tumour(settings: PostProcessing) -> list[PostProcessing]:
    """Settings that differ in what concerns WT; the given one first."""
    varied = [replace(_with(settings, WT, t), smallest_wt_share=share) for t in THRESHOLDS for share in WT_SHARES]
    return [settings, *varied]


def of_core(settings: PostProcessing) -> list[PostProcessing]:
    """Settings that differ in what concerns TC; the given one first."""
    return [settings, *(_with(settings, TC, threshold) for threshold in THRESHOLDS)]


def of_enhancing(settings: PostProcessing) -> list[PostProcessing]:
    """Settings that differ in what concerns ET; the given one first."""
    return [settings, *(replace(_with(settings, ET, t), smallest_et_ml=ml) for t in THRESHOLDS for ml in ET_ML)]


def _with(settings: PostProcessing, region: int, threshold: float) -> PostProcessing:
    thresholds = list(settings.thresholds)
    thresholds[region] = threshold
    return replace(settings, thresholds=tuple(thresholds))


def _scores(prediction: Prediction, options: Sequence[PostProcessing], region: int) -> list[float]:
    return [_dice(prediction, option, region) for option in options]


def _dice(prediction: Prediction, settings: PostProcessing, region: int) -> float:
    """Dice of a region as ``scoring.metrics`` has it: 1 where both are empty."""
    labels = finish(prediction.probabilities, prediction.voxel_ml, settings)
    mask = np.asarray(labels_to_regions(labels))[region].astype(bool)
    reference = prediction.reference[region]
    total = int(mask.sum()) + int(reference.sum())
    return 2.0 * int((mask & reference).sum()) / total if total else 1.0
