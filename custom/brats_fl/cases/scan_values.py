"""What a scan's values say of it at a glance: checked each time a case is read, so that nothing is trained on or
segmented that the data gate calls an error for them. About 1 % of the time of reading.

That a scan is constant every reader refuses, through ``scans.read_volumes``; the rest training and inference do.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from brats_fl.cases.grids import Grid
from brats_fl.errors import ScanValuesError

SURELY_A_HEAD_ML: Final = 2600.0
"""The largest brains of grown-ups have 2,000 ml, and wide ventricles may add to that; a head has 3,000 and more."""

GLANCE_STEP: Final = 4
"""Every fourth voxel along each axis is looked at, 140,000 of nine million."""

SURELY_HOT: Final = 20.0
"""Ranges of the brain's middle 98 % by which the most extreme voxel may be off the median. In 56 real scans 2.8 was the
most; a voxel at the end of 16-bit integers has 30 and more, and the network sees it 100 deviations off."""

PERHAPS_HOT: Final = 6.0
"""So many are a warning of the gate."""

FEWEST_VOXELS: Final = 100
"""Of those looked at; fewer tell no range."""

MENDS: Final = {
    "G22-constant": "export the scan again",
    "G27-hot-voxels": "set voxels beyond the brain's own range to its end, or export the scan again",
    "G31-not-stripped": "strip the skull, for example with HD-BET, and set what is outside to 0",
}
"""Rule of the gate -> what to do."""


def reach_of(voxels: NDArray[Any]) -> float:
    """How far the most extreme voxel is off the brain's median, in ranges of the brain's middle 98 %; 0 for too few."""
    few = voxels[::GLANCE_STEP, ::GLANCE_STEP, ::GLANCE_STEP]
    brain = few[few != 0]
    if brain.size < FEWEST_VOXELS:
        return 0.0
    low, middle, high = np.percentile(brain, [1, 50, 99])
    if low == high:
        return 0.0
    lowest = float(voxels.min())
    # What is not below 0 may be the background, which is no part of the brain's range.
    reach = max(float(voxels.max()) - middle, middle - lowest if lowest < 0 else 0.0)
    return float(reach / (high - low))


def background_of(voxels: NDArray[Any]) -> float:
    """Value outside the brain: the median of the eight corners."""
    x, y, z = (max(size - 1, 1) for size in voxels.shape)
    return float(np.median(voxels[::x, ::y, ::z]))


def refuse_at_a_glance(case: str, name: str, voxels: NDArray[Any], grid: Grid, scan: str) -> None:
    """Raise ``ScanValuesError`` for a scan that surely is no brain stripped of its skull, 0 around it, in sound values.

    Args:
        case: Name of the case, for the message.
        name: Modality, for the message.
        voxels: The scan, (H, W, D), finite.
        grid: Its grid.
        scan: Where it is, for the message.
    """
    if (fault := fault_at_a_glance(voxels, grid)) is not None:
        raise values_error(case, name, fault, scan)


def refuse_constant(case: str, name: str, voxels: NDArray[Any], scan: str) -> None:
    """Raise ``ScanValuesError`` for a scan of which every voxel has one value."""
    if (fault := fault_of_constant(voxels)) is not None:
        raise values_error(case, name, fault, scan)


def values_error(case: str, name: str, fault: tuple[str, str], scan: str) -> ScanValuesError:
    """The error for a rule and what was found."""
    rule, found = fault
    return ScanValuesError(case, name, rule, found, scan, MENDS[rule])


def fault_of_constant(voxels: NDArray[Any]) -> tuple[str, str] | None:
    """Rule and finding of a scan of which every voxel has one value; None where they differ."""
    few = voxels[::GLANCE_STEP, ::GLANCE_STEP, ::GLANCE_STEP]
    # Few voxels that are all alike may miss a small field of view: then every voxel is looked at.
    if few.min() == few.max() and voxels.min() == voxels.max():
        return "G22-constant", f"every voxel is {float(voxels.flat[0]):g}"
    return None


def fault_at_a_glance(voxels: NDArray[Any], grid: Grid) -> tuple[str, str] | None:
    """Rule of the gate that a scan surely breaks, and by what; None where none shows."""
    if (constant := fault_of_constant(voxels)) is not None:
        return constant
    few = voxels[::GLANCE_STEP, ::GLANCE_STEP, ::GLANCE_STEP]
    if (background := background_of(voxels)) != 0:
        return "G31-not-stripped", f"around the brain is {background:g}, not 0"
    volume_ml = np.count_nonzero(few) / few.size * voxels.size * float(np.prod(grid.spacing_mm)) / 1000
    if volume_ml > SURELY_A_HEAD_ML:
        found = f"about {volume_ml:,.0f} ml are not 0; a brain has up to {SURELY_A_HEAD_ML:,.0f} ml"
        return "G31-not-stripped", found
    if (reach := reach_of(voxels)) > SURELY_HOT:
        return "G27-hot-voxels", describe_reach(reach)
    return None


def describe_reach(reach: float) -> str:
    """What there is, as a finding says it."""
    return f"one voxel at least is {reach:,.0f} times as far off the median as the brain's middle 98 % are apart"
