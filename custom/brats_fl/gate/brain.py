"""Rules about the brain: the skull is gone, the brain is whole, and it lies at one place in all scans of a case."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from brats_fl.cases.grids import Grid
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
"""Overlap over union of a scan's brain with the others'. In a BraTS case it is 0.999, mirrored 0.72 to 0.94."""


def check_background(case: str, thin: ThinCase, backgrounds: Mapping[str, float]) -> list[Finding]:
    """Scans with more than a brain in them, or with another value than 0 around it."""
    voxel_ml = float(np.prod(thin.spacing_mm)) / 1000
    findings = []
    for name, brain in thin.brains.items():
        volume_ml = np.count_nonzero(brain) * voxel_ml
        if volume_ml > LARGEST_BRAIN_ML:
            found = f"{volume_ml:,.0f} ml differ from the background; a brain has up to {LARGEST_BRAIN_ML:,.0f} ml"
        elif backgrounds[name] != 0:
            found = f"around the brain is {backgrounds[name]:g}, not 0"
        else:
            continue
        findings.append(Finding("G31-not-stripped", found, case, name))
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
    """Scans whose brain is not where most scans of the case have it."""
    if len(thin.brains) < 3:
        return []
    votes = np.add.reduce([brain.astype(np.uint8) for brain in thin.brains.values()])
    findings = []
    for name, brain in thin.brains.items():
        others = (votes - brain) >= len(thin.brains) // 2
        share = overlap(brain, others)
        if share < SAME_BRAIN:
            found = f"its brain shares {share:.0%} with that of the others; {_how_it_lies(brain, others)}"
            findings.append(Finding("G33-brains-differ", found, case, name))
    return findings


def overlap(first: Mask, second: Mask) -> float:
    """Voxels in both over voxels in either (Jaccard index)."""
    either = np.count_nonzero(first | second)
    return np.count_nonzero(first & second) / either if either else 1.0


def _how_it_lies(brain: Mask, others: Mask) -> str:
    mirrored = {axis: overlap(np.flip(brain, axis), others) for axis in range(3)}
    best = max(mirrored, key=lambda axis: mirrored[axis])
    if mirrored[best] > SAME_BRAIN:
        return f"mirrored along axis {best} it shares {mirrored[best]:.0%}"
    apart: NDArray[Any] = np.argwhere(brain).mean(axis=0) - np.argwhere(others).mean(axis=0)
    return f"its middle is {np.round(apart, 1).tolist()} voxels of the 2 mm grid away"
