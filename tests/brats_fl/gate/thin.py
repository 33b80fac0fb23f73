"""A case at 2 mm that a reader can picture: a ball for a brain, balls in it for a tumour."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from brats_fl.constants import ED, ET, MODALITIES, NCR
from brats_fl.gate.voxels import ThinCase

SHAPE = (96, 96, 80)
MIDDLE = (48, 48, 40)
TUMOUR = (30, 40, 48)
"""Off the middle along every axis, so that every mirror image lies elsewhere."""

# Brain, oedema, enhancing tumour, core.
BRIGHTNESS = {
    "t1c": (100, 90, 180, 60),
    "t1n": (110, 95, 90, 60),
    "t2w": (100, 170, 150, 220),
    "t2f": (100, 190, 170, 120),
}


def ball(centre: tuple[int, ...], radius: float, shape: tuple[int, ...] = SHAPE) -> NDArray[np.bool_]:
    grid = np.indices(shape)
    return sum((axis - c) ** 2 for axis, c in zip(grid, centre, strict=True)) <= radius**2


def make_label() -> NDArray[np.uint8]:
    label = np.zeros(SHAPE, np.uint8)
    label[ball((TUMOUR[0] + 8, TUMOUR[1], TUMOUR[2]), 8)] = ED  # longer along the first axis
    for radius, part in ((10, ED), (6, ET), (4, NCR)):
        label[ball(TUMOUR, radius)] = part
    return label


def swap_parts(label: NDArray[np.uint8], first: int, second: int) -> NDArray[np.uint8]:
    values = np.arange(4, dtype=np.uint8)
    values[[first, second]] = second, first
    return values[label]


def make_thin(label: NDArray[np.uint8] | None = None, **changed: NDArray[np.float32]) -> ThinCase:
    """Scans with a tumour at ``TUMOUR``; the label is the right one unless another is given."""
    brain, tumour, rng = ball(MIDDLE, 36), make_label(), np.random.default_rng(0)
    scans: dict[str, NDArray[np.float32]] = {}
    for name in MODALITIES:
        healthy, *parts = BRIGHTNESS[name]
        scan = np.full(SHAPE, float(healthy))
        for part, value in zip((ED, ET, NCR), parts, strict=True):
            scan[tumour == part] = value
        scans[name] = np.where(brain, scan + rng.normal(0, 12, SHAPE), 0).astype(np.float32)
    scans.update(changed)
    return as_thin(scans, tumour if label is None else label)


def as_thin(scans: Mapping[str, NDArray[np.float32]], label: NDArray[np.uint8] | None) -> ThinCase:
    return ThinCase(scans, {name: scan != 0 for name, scan in scans.items()}, label, np.full(3, 2.0))
