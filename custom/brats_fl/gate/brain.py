"""Rules about the brain: the skull is gone, the brain is whole, and it lies at one place in all scans of a case."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from brats_fl.cases.grids import Grid
from brats_fl.cases.scan_values import SURELY_A_HEAD_ML
from brats_fl.gate.findings import Finding
from brats_fl.gate.voxels import ThinCase

Mask = NDArray[np.bool_]

LARGEST_BRAIN_ML: Final = 2200.0
"""Brains of public BraTS cases have 1,170 to 1,560 ml; a head with skull and skin has 3,000 and more."""

SMALLEST_BRAIN_ML: Final = 700.0

SMALLEST_BRAIN_MM: Final = (110.0, 135.0, 105.0)
"""Left to right, front to back, bottom to top; the smallest of 34 real and sample brains were 126, 144 and 128."""

FLAT_END_CM2: Final = 30.0
"""Area of the outermost slice of 2 mm: a round end has up to 20 cm², a cut 10 mm deep into the crown 45."""

FLAT_BOTTOM_CM2: Final = 70.0
"""BraTS's field of view often ends in the cerebellum, which is flat already: up to 37 cm²."""

SAME_BRAIN: Final = 0.95
"""Overlap over union of a scan's brain with the others'. In a BraTS case it is 0.999, mirrored 0.72 to 0.94; stripped
scan by scan 0.94, and less where a scan covers part of the head. So less alone is a warning."""

CLEARLY_BETTER: Final = 0.5
"""A mirrored or shifted scan must leave less than this share of what differs as it is. Where brains differ by their
stripping or by the field of view, no other place leaves less than nearly all of it."""

SHORTEST_SHIFT_MM: Final = 4.0
"""Registration is that good, and half a slice of 8 mm."""

BOTH_SIDES: Final = 0.1
"""Of each of two brains, outside the other where both fields of view reach: no stripping leaves so much out on either
side. Two strippers agree to 0.97 (Dice), part of a head leaves out on one side only."""


def check_background(case: str, thin: ThinCase, backgrounds: Mapping[str, float]) -> list[Finding]:
    """Scans with more than a brain in them, or with another value than 0 around it."""
    voxel_ml = float(np.prod(thin.spacing_mm)) / 1000
    findings = []
    for name, brain in thin.brains.items():
        volume_ml = np.count_nonzero(brain) * voxel_ml
        doubtful = LARGEST_BRAIN_ML < volume_ml <= SURELY_A_HEAD_ML and backgrounds[name] == 0
        if volume_ml > LARGEST_BRAIN_ML:
            found = f"{volume_ml:,.0f} ml differ from the background; a brain has up to {LARGEST_BRAIN_ML:,.0f} ml"
        elif backgrounds[name] != 0:
            found = f"around the brain is {backgrounds[name]:g}, not 0"
        else:
            continue
        findings.append(Finding("G31-not-stripped", found, case, name, doubtful=doubtful))
    return findings


def check_wholeness(case: str, thin: ThinCase, grid: Grid) -> list[Finding]:
    """Ends of the brain that are cut: it is too small, or ends in a plane."""
    brain = np.logical_or.reduce(list(thin.brains.values()))
    volume_ml = np.count_nonzero(brain) * float(np.prod(thin.spacing_mm)) / 1000
    faults = list(_flat_ends(brain, thin.spacing_mm, grid.axes))
    if volume_ml < SMALLEST_BRAIN_ML:
        faults.append(f"the brain has {volume_ml:.0f} ml, less than {SMALLEST_BRAIN_ML:.0f}")
    return [Finding("G32-brain-cut-off", "; ".join(faults), case)] if faults else []


def _flat_ends(brain: Mask, spacing_mm: NDArray[np.float64], axes: str) -> Iterator[str]:
    names = {"L": "left", "R": "right", "A": "front", "P": "back", "S": "top", "I": "bottom"}
    opposite = dict(zip("LRAPSI", "RLPAIS", strict=True))
    for axis, towards in enumerate(axes):
        others = tuple(k for k in range(3) if k != axis)
        areas = np.count_nonzero(brain, axis=others) * float(np.prod(spacing_mm[list(others)])) / 100
        there = np.flatnonzero(areas)
        length_mm = (there[-1] - there[0] + 1) * spacing_mm[axis]
        shortest_mm = SMALLEST_BRAIN_MM["LPS".index(towards if towards in "LPS" else opposite[towards])]
        if length_mm < shortest_mm:
            yield (
                f"from {names[opposite[towards]]} to {names[towards]} the brain is {length_mm:.0f} mm long, "
                f"less than {shortest_mm:.0f}"
            )
        for end, at in ((opposite[towards], there[0]), (towards, there[-1])):
            limit = FLAT_BOTTOM_CM2 if end == "I" else FLAT_END_CM2
            if areas[at] > limit:
                yield f"the {names[end]} of the brain is a plane of {areas[at]:.0f} cm²"


def check_same_place(case: str, thin: ThinCase) -> list[Finding]:
    """Scans whose brain is not where most scans of the case have it.

    An error where it is known what is wrong: mirrored or shifted, it lies right, or both brains have much that the
    other has not. Else a warning: a scan that covers part of the head, or that was stripped by itself, may be sound.
    """
    if len(thin.brains) < 3:
        return []
    votes = np.add.reduce([brain.astype(np.uint8) for brain in thin.brains.values()])
    findings = []
    for name, brain in thin.brains.items():
        others = (votes - brain) >= len(thin.brains) // 2
        share = overlap(brain, others)
        if share < SAME_BRAIN:
            how, is_sure = _how_it_lies(brain, others, share, thin.spacing_mm)
            found = f"its brain shares {share:.0%} with that of the others; {how}"
            findings.append(Finding("G33-brains-differ", found, case, name, doubtful=not is_sure))
    return findings


def overlap(first: Mask, second: Mask) -> float:
    """Voxels in both over voxels in either (Jaccard index)."""
    either = np.count_nonzero(first | second)
    return np.count_nonzero(first & second) / either if either else 1.0


def _how_it_lies(brain: Mask, others: Mask, share: float, spacing_mm: NDArray[np.float64]) -> tuple[str, bool]:
    """How a brain lies to that of the other scans, and whether that is surely wrong."""
    better = 1 - CLEARLY_BETTER * (1 - share)
    mirrored = {axis: overlap(np.flip(brain, axis), others) for axis in range(3)}
    best = max(mirrored, key=lambda axis: mirrored[axis])
    if mirrored[best] > better:
        return f"mirrored along axis {best} it shares {mirrored[best]:.0%}", True
    shift, shifted = best_shift(brain, others)
    shift_mm = np.array(shift) * spacing_mm
    if shifted > better and np.linalg.norm(shift_mm) >= SHORTEST_SHIFT_MM:
        return f"moved by {shift_mm.round().astype(int).tolist()} mm along its axes it shares {shifted:.0%}", True
    outside = outside_shares(brain, others)
    lies = f"where both reach, {outside[0]:.0%} of it lies outside theirs and {outside[1]:.0%} of theirs outside it"
    if min(outside) > BOTH_SIDES:
        return lies, True
    return f"{lies}: it may cover part of the head, or be stripped otherwise", False


def best_shift(brain: Mask, others: Mask) -> tuple[tuple[int, ...], float]:
    """The shift in voxels, found by climbing from none, with which a brain shares most with another, and how much."""
    found: tuple[tuple[int, ...], float] = ((0, 0, 0), overlap(brain, others))
    step = 4
    while step:
        moves = [
            tuple(int(v) for v in np.array(found[0]) + sign * step * axis)
            for axis in np.eye(3, dtype=int)
            for sign in (1, -1)
        ]
        better = max(((move, overlap(_shifted(brain, move), others)) for move in moves), key=lambda pair: pair[1])
        if better[1] > found[1]:
            found = better
        else:
            step //= 2
    return found


def _shifted(brain: Mask, shift: tuple[int, ...]) -> Mask:
    moved = np.zeros_like(brain)
    pairs = list(zip(shift, brain.shape, strict=True))
    to = tuple(slice(max(by, 0), size + min(by, 0)) for by, size in pairs)
    of = tuple(slice(max(-by, 0), size + min(-by, 0)) for by, size in pairs)
    moved[to] = brain[of]
    return moved


def outside_shares(brain: Mask, others: Mask) -> tuple[float, float]:
    """Shares of a brain outside another one and of that outside it, where both fields of view reach.

    The field of view of a scan is taken to be the box around its brain.
    """
    boxes = [ndimage.find_objects(mask.astype(np.uint8)) for mask in (brain, others)]
    if not all(boxes):
        return 1.0, 1.0
    both = tuple(
        slice(max(a.start, b.start), max(min(a.stop, b.stop), max(a.start, b.start)))
        for a, b in zip(boxes[0][0], boxes[1][0], strict=True)
    )
    one, other = brain[both], others[both]
    common = np.count_nonzero(one & other)
    return 1 - common / max(np.count_nonzero(one), 1), 1 - common / max(np.count_nonzero(other), 1)
