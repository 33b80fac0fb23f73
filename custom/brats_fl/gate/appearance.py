"""Whether the scans of a case look like the modalities they are listed as, and whether two of them are one.

What is used, with the label's help, and is the same for any scanner's scale: fluid makes T2 skewed towards bright,
T1 and FLAIR towards dark; T1 with and without contrast agent go together, T1 and T2 go against each other; oedema
is bright in T2 and FLAIR; contrast agent lights up vessels and the enhancing tumour.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations, permutations
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from brats_fl.constants import ED, ET, MODALITIES
from brats_fl.gate.findings import Finding
from brats_fl.gate.voxels import ThinCase

ONE_PICTURE: Final = 0.995
"""Correlation within the brain. A copy on another scale has 1.000, two scans of 34 real and sample cases up to 0.88."""

CLEARLY_BETTER: Final = 0.3
"""Points by which another order must look better to be told. On 13 real and 21 sample cases the right order led the
best other one by 0.49 to 3.3 points."""

SURELY_BETTER: Final = 0.8
"""Points that make it an error: a sound case has so many less than once in a thousand times."""

FEWEST_VOXELS: Final = 20
MARGIN_MM: Final = 4.0
MOST_IQRS: Final = 3.0

T1C, T1N, T2W, T2F = range(4)


@dataclass(frozen=True)
class Looks:
    """What the four scans of a case look like, each an array over scans, brightness in units of the healthy brain's
    interquartile range above its median."""

    skew: NDArray[np.float64]
    """Logarithm of the bright tail over the dark tail, 95th and 5th percentile."""
    highlights: NDArray[np.float64]
    """Logarithm of the 99.9th percentile."""
    oedema: NDArray[np.float64]
    """Brightness of oedema."""
    enhancing: NDArray[np.float64]
    """Brightness of enhancing tumour above that of oedema; 0 where there is none."""
    together: NDArray[np.float64]
    """(4, 4) correlation in the healthy brain."""


def check_copies(case: str, thin: ThinCase) -> list[Finding]:
    """Two scans of a case that show one picture, whatever the scale of each."""
    brain = thin.brain
    if np.count_nonzero(brain) < FEWEST_VOXELS:
        return []
    findings = []
    for first, second in combinations(thin.scans, 2):
        together = float(np.corrcoef(thin.scans[first][brain], thin.scans[second][brain])[0, 1])
        if together > ONE_PICTURE:
            found = f"{first} and {second} show the same picture, correlation {together:.4f}"
            findings.append(Finding("G25-same-volume-twice", found, case, second))
    return findings


def check_order(case: str, thin: ThinCase, label: NDArray[np.uint8]) -> list[Finding]:
    """Scans that would look right in another order of modalities.

    Args:
        case: Name of the case.
        thin: Its scans, all four.
        label: Library values on the thin grid, where the tumour is.
    """
    looks = describe_looks(thin, label)
    if looks is None:
        return []
    points = {order: score_order(looks, order) for order in permutations(range(4))}
    as_listed, best = (T1C, T1N, T2W, T2F), max(points, key=lambda order: points[order])
    lead = points[best] - points[as_listed]
    if lead < CLEARLY_BETTER:
        return []
    moved = [f"what is listed as {MODALITIES[best[k]]} looks like {MODALITIES[k]}" for k in range(4) if best[k] != k]
    found = f"{', '.join(moved)} (by {lead:.1f} points)"
    return [Finding("G26-modalities-swapped", found, case, doubtful=lead < SURELY_BETTER)]


def describe_looks(thin: ThinCase, label: NDArray[np.uint8]) -> Looks | None:
    """What the scans look like; None where there is too little healthy brain, or no tumour, to tell."""
    margin = max(1, round(MARGIN_MM / float(np.mean(thin.spacing_mm))))
    healthy = ndimage.binary_erosion(thin.brain, iterations=margin)
    healthy &= ~ndimage.binary_dilation(label > 0, iterations=margin)
    oedema = label == ED if np.count_nonzero(label == ED) >= FEWEST_VOXELS else label > 0
    if np.count_nonzero(healthy) < 1000 or np.count_nonzero(oedema) < FEWEST_VOXELS:
        return None
    rows = [_describe(thin.scans[name], healthy, oedema, label == ET) for name in MODALITIES]
    skew, highlights, bright, enhancing = np.array(rows).T
    together = np.corrcoef([thin.scans[name][healthy] for name in MODALITIES])
    return Looks(skew, highlights, bright, enhancing, together)


def _describe(
    scan: NDArray[np.float32], healthy: NDArray[np.bool_], oedema: NDArray[np.bool_], enhancing: NDArray[np.bool_]
) -> tuple[float, float, float, float]:
    dark, low, middle, high, bright, highlight = np.percentile(scan[healthy], (5, 25, 50, 75, 95, 99.9))
    iqr = max(float(high - low), 1e-6)

    def brightness(where: NDArray[np.bool_]) -> float:
        return float(np.clip((scan[where].mean() - middle) / iqr, -MOST_IQRS, MOST_IQRS))

    of_oedema = brightness(oedema)
    above = brightness(enhancing) - of_oedema if np.count_nonzero(enhancing) >= FEWEST_VOXELS else 0.0
    tails = np.log(np.maximum([(bright - middle) / iqr, (middle - dark) / iqr, (highlight - middle) / iqr], 0.05))
    return float(tails[0] - tails[1]), float(tails[2]), of_oedema, above


def score_order(looks: Looks, order: tuple[int, ...]) -> float:
    """How right the scans look in an order: the higher, the better.

    Args:
        looks: What the scans look like.
        order: Which scan is taken for t1c, t1n, t2w and t2f.
    """
    t1c, t1n, t2w, t2f = order
    skew, oedema, together = looks.skew, looks.oedema, looks.together
    return float(
        skew[t2w]
        - (skew[t1c] + skew[t1n] + skew[t2f]) / 3
        + 2 * (together[t1c, t1n] - together[t1n, t2w])
        + together[t1n, t2f]
        - together[t2f, t2w]
        + (oedema[t2f] + oedema[t2w] - oedema[t1c] - oedema[t1n]) / 4
        + (looks.highlights[t1c] - looks.highlights[t1n]) / 2
        + (looks.enhancing[t1c] - looks.enhancing[t1n]) / 2
    )
