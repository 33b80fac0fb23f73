"""Whether a label lies where the scans show the tumour: how much of the brightness around it the label explains.

On cubes a label whose axes are permuted or mirrored fits the box of the scans, so only the picture tells. The
label's parts are laid on the scans as they are given, in every other order and direction of axes that fits the
box, and shifted; it must explain the scans best as it is given. Names of modalities are not needed, so two swapped
scans do not disturb it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import permutations, product
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from brats_fl.gate.certainty import FEWEST_PIECES, count_pieces
from brats_fl.gate.findings import Finding
from brats_fl.gate.voxels import ThinCase

MARGIN_MM: Final = 8.0
"""The label is compared with what lies this near to it."""

POINTS: Final = 6000
"""Voxels looked at, of the tumour and its margin, evenly drawn."""

CLEARLY_BETTER: Final = 1.2
"""Another placement must explain this many times as much. On 13 real and 21 sample cases the best other orientation
had 0.05 to 0.74 of what the label has as it is given, the best shift of 24 mm and more 0.08 to 0.33."""

LEAST_FIT: Final = 0.08
"""Less is no fit at all. The same cases had 0.13 to 0.66, with the label of another patient 0.004 to 0.06."""

SURELY_BETTER: Final = 1.5
"""So many times as much is an error, less a warning."""

SURELY_NO_FIT: Final = 0.03
"""Less is an error where no other placement fits, more a warning."""

GOOD_FIT: Final = 0.3
"""So much is not had by chance: turned, labels of the same cases had up to 0.26, shifted by 24 mm and more 0.16."""

SEARCH_MM: Final = 48.0
COARSE_MM: Final = 12.0
FEWEST_VOXELS: Final = 30

Points = NDArray[np.intp]


@dataclass(frozen=True)
class Placement:
    """How a label is laid on the scans: axis k comes from the label's axis ``order[k]``, mirrored, then shifted."""

    order: tuple[int, ...] = (0, 1, 2)
    mirrored: tuple[bool, ...] = (False, False, False)
    shift: tuple[int, ...] = (0, 0, 0)
    """In voxels."""

    def __str__(self) -> str:
        """What was done to a label that fits when it is placed like this."""
        parts = []
        if self.order != (0, 1, 2):
            parts.append(f"its axes in the order {self.order}")
        if any(self.mirrored):
            parts.append("mirrored along axis " + " and ".join(str(k) for k in range(3) if self.mirrored[k]))
        return ", ".join(parts)


AS_GIVEN: Final = Placement()


@dataclass(frozen=True)
class Sample:
    """Voxels of a label and of its margin, and the scans to lay them on."""

    points: Points
    """(N, 3) voxel indices."""
    parts: NDArray[np.intp]
    """(N,) 0 in the margin, else 1, 2, ... for the label's values."""
    scans: NDArray[np.float32]
    """(X, Y, Z, modalities), mean 0 and deviation 1 in the brain, its brightest and darkest percent cut."""
    brain: NDArray[np.bool_]


def draw_sample(thin: ThinCase, label: NDArray[np.uint8]) -> Sample:
    """Voxels of a label and its margin, and the scans made comparable.

    Args:
        thin: The case.
        label: Library values on the case's thin grid.
    """
    steps = max(1, round(MARGIN_MM / float(np.mean(thin.spacing_mm))))
    there = label > 0
    corner, crop = _crop(there, steps)
    points = np.argwhere(ndimage.binary_dilation(there[crop], iterations=steps)) + corner
    if len(points) > POINTS:
        points = points[np.random.default_rng(0).choice(len(points), POINTS, replace=False)]
    brain = thin.brain
    scans = np.stack([_standardise(scan, brain) for scan in thin.scans.values()], axis=-1)
    return Sample(points, label[tuple(points.T)].astype(np.intp), scans, brain)


def _crop(there: NDArray[np.bool_], margin: int) -> tuple[Points, tuple[slice, ...]]:
    box = ndimage.find_objects(there.astype(np.uint8))[0]
    low = np.array([max(0, part.start - margin) for part in box])
    return low, tuple(slice(int(start), part.stop + margin) for start, part in zip(low, box, strict=True))


def _standardise(scan: NDArray[np.float32], brain: NDArray[np.bool_]) -> NDArray[np.float32]:
    inside = scan[brain]
    low, high = np.percentile(inside[::5], (1, 99))
    np.clip(inside, low, high, out=inside)
    standard = np.zeros_like(scan)
    standard[brain] = (inside - inside.mean()) / max(float(inside.std()), 1e-6)
    return standard


def fit(sample: Sample, placement: Placement = AS_GIVEN) -> float:
    """Share of the scans' variance in and near the tumour that the label's parts explain, 0 to 1.

    The mean over modalities of the variance between parts over all variance (eta squared), times the share of the
    tumour that lies in the brain.
    """
    shape = np.array(sample.brain.shape)
    turned = sample.points[:, placement.order]
    points: Points = np.where(placement.mirrored, shape - 1 - turned, turned) + np.array(placement.shift)
    in_box = np.all((points >= 0) & (points < shape), axis=1)
    flat = np.ravel_multi_index(tuple(points[in_box].T), sample.brain.shape)
    in_brain = sample.brain.reshape(-1)[flat]
    values, parts = sample.scans.reshape(-1, sample.scans.shape[-1])[flat[in_brain]], sample.parts[in_box][in_brain]
    tumour = np.count_nonzero(parts)
    if tumour < FEWEST_VOXELS or tumour == len(parts):
        return 0.0
    members = (parts[:, None] == np.arange(parts.max() + 1)).astype(np.float32)
    counts = np.maximum(members.sum(axis=0), 1)[:, None]
    # Not a matrix product, whose threads would get in the way of other cases on other cores.
    means = np.einsum("nk,nm->km", members, values) / counts
    between = (counts * (means - values.mean(axis=0)) ** 2).sum(axis=0)
    total = np.maximum(values.var(axis=0) * len(values), 1e-6)
    return float((between / total).mean() * tumour / np.count_nonzero(sample.parts))


def other_orientations(shape: tuple[int, ...]) -> Iterator[Placement]:
    """Every order and direction of axes that keeps the shape, but the given one: 47 for a cube, 15 for BraTS's box."""
    for order in permutations(range(3)):
        if tuple(shape[axis] for axis in order) == tuple(shape):
            for mirrored in product((False, True), repeat=3):
                if (order, mirrored) != ((0, 1, 2), (False, False, False)):
                    yield Placement(order, mirrored)


def best_shift(sample: Sample, spacing_mm: NDArray[np.float64]) -> tuple[float, Placement]:
    """The shift of up to 48 mm along each axis at which the label explains most, and how much it explains there.

    It climbs from where the label is. Only where that ends in a poor fit is everything looked at, every 12 mm.
    """
    step = np.maximum(1, np.rint(COARSE_MM / spacing_mm)).astype(int)
    found = _climb(sample, AS_GIVEN, step)
    if found[0] >= GOOD_FIT:
        return found
    reach = np.floor(SEARCH_MM / (step * spacing_mm)).astype(int)
    starts = product(*(range(-int(n) * int(s), int(n) * int(s) + 1, int(s)) for n, s in zip(reach, step, strict=True)))
    coarse = Sample(sample.points[::4], sample.parts[::4], sample.scans, sample.brain)
    best = max((Placement(shift=start) for start in starts), key=lambda placement: fit(coarse, placement))
    return max(found, _climb(sample, best, step // 2), key=lambda pair: pair[0])


def _climb(sample: Sample, start: Placement, step: NDArray[np.int_]) -> tuple[float, Placement]:
    """The best fit that moves by ever smaller steps along the axes lead to."""
    found = (fit(sample, start), start)
    while np.any(step >= 1):
        moves = (
            Placement(shift=tuple(int(v) for v in np.array(found[1].shift) + sign * step * axis))
            for axis in np.eye(3, dtype=int)
            for sign in (1, -1)
        )
        better = max(((fit(sample, move), move) for move in moves), key=lambda pair: pair[0])
        if better[0] > found[0]:
            found = better
        else:
            step = step // 2
    return found


def check_place(case: str, thin: ThinCase, label: NDArray[np.uint8]) -> list[Finding]:
    """A label that another placement fits clearly better, or that fits nowhere.

    Args:
        case: Name of the case.
        thin: Its scans.
        label: Library values on the thin grid.
    """
    if np.count_nonzero(label) < FEWEST_VOXELS:
        return []
    sample = draw_sample(thin, label)
    given = fit(sample)
    turned = max(((fit(sample, p), p) for p in other_orientations(label.shape)), key=lambda pair: pair[0])
    shifted = best_shift(sample, thin.spacing_mm)
    explains = f"it explains {given:.0%} of the scans' contrast around the tumour as it is"
    # A round tumour that is turned fits nearly as well when it is shifted.
    if turned[0] > max(CLEARLY_BETTER * given, 0.9 * shifted[0], LEAST_FIT):
        found = f"{explains}, {turned[0]:.0%} with {turned[1]}"
        is_sure = turned[0] > SURELY_BETTER * given
    elif shifted[0] > max(CLEARLY_BETTER * given, LEAST_FIT):
        moved_mm = (np.array(shifted[1].shift) * thin.spacing_mm).round(0).astype(int).tolist()
        found = f"{explains}, {shifted[0]:.0%} when it is moved by {moved_mm} mm along its axes"
        is_sure = shifted[0] > SURELY_BETTER * given
    elif given < LEAST_FIT:
        found = f"{explains}, and not more in another place: it may be another patient's"
        is_sure = given < SURELY_NO_FIT
    else:
        return []
    is_sure &= count_pieces(np.count_nonzero(label), thin.spacing_mm) >= FEWEST_PIECES
    return [Finding("G47-label-not-on-image", found, case, "label", doubtful=not is_sure)]
