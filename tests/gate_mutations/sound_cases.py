"""Cases that look odd and are sound: the gate may warn of them, and must not call them wrong."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from scipy import ndimage
from tests.gate_mutations.clean_cases import Clean
from tests.gate_mutations.faults import brain_of

from brats_fl.cases.datalists import Case
from brats_fl.constants import LABEL

ET_IN_FILE, NCR_IN_FILE, ED_IN_FILE = 4, 1, 2

STRIPPING_VOXELS = 2.0
"""How far the edges of two strippings lie apart: the brains of a sample case then overlap by about 94 %."""

SOUND: dict[str, Callable[[Clean, Path], Case]] = {}


def sound(name: str) -> Callable[[Callable[[Clean, Path], Case]], Callable[[Clean, Path], Case]]:
    """Add a maker to the catalogue."""

    def add(make: Callable[[Clean, Path], Case]) -> Callable[[Clean, Path], Case]:
        SOUND[name] = make
        return make

    return add


def _tiny_enhancing(clean: Clean, folder: Path, voxels: int) -> Case:
    """Enhancing tumour of some voxels only, a clump at the very rim of the tumour, and bright in t1c."""
    label = clean.voxels[LABEL].copy()
    label[label == ET_IN_FILE] = ED_IN_FILE
    tumour = label > 0
    rim = np.argwhere(tumour & ~ndimage.binary_erosion(tumour))
    places = np.argwhere(tumour)
    nearest = places[np.argsort(((places - rim[0]) ** 2).sum(axis=1))[:voxels]]
    label[tuple(nearest.T)] = ET_IN_FILE
    t1c = clean.voxels["t1c"].copy()
    t1c[tuple(nearest.T)] = np.percentile(t1c[brain_of(clean)], 99.5)
    return clean.files(folder, label=label, t1c=t1c)


for _count in (1, 5, 28, 60):
    sound(f"{_count} voxels of enhancing tumour at the tumour's rim")(
        lambda clean, folder, count=_count: _tiny_enhancing(clean, folder, count)
    )


@sound("no enhancing tumour")
def _(clean: Clean, folder: Path) -> Case:
    label = clean.voxels[LABEL]
    return clean.files(folder, label=np.where(label == ET_IN_FILE, NCR_IN_FILE, label))


def _part_of_head(clean: Clean, folder: Path, normal: tuple[float, float, float]) -> Case:
    """FLAIR with two thirds of the brain, cut off by a plane."""
    brain = brain_of(clean)
    heights = np.asarray(sum(axis * part for axis, part in zip(np.indices(brain.shape), normal, strict=True)))
    kept = heights <= np.percentile(heights[brain], 66)
    return clean.files(folder, t2f=np.where(kept, clean.voxels["t2f"], 0))


for _name, _normal in {
    "lower": (0.0, 0.0, 1.0),
    "upper": (0.0, 0.0, -1.0),
    "front": (0.0, 1.0, 0.0),
    "lower, obliquely cut,": (0.0, 0.4, 1.0),
}.items():
    sound(f"FLAIR covers the {_name} two thirds of the head")(
        lambda clean, folder, normal=_normal: _part_of_head(clean, folder, normal)
    )


@sound("each skull was stripped by itself, and brains overlap by 94 %")
def _(clean: Clean, folder: Path) -> Case:
    brain = brain_of(clean)
    # Depth below the surface, and a smooth random depth that each scan's stripping goes to.
    depth = ndimage.distance_transform_edt(brain) - ndimage.distance_transform_edt(~brain)
    rng = np.random.default_rng(0)
    stripped = {}
    for name in ("t1n", "t2w", "t2f"):
        rough = ndimage.gaussian_filter(rng.normal(size=brain.shape), 4)
        edge = STRIPPING_VOXELS * rough / rough.std()
        inside = depth > edge
        filled = clean.voxels[name] + np.where(brain, 0, np.median(clean.voxels[name][brain])).astype(np.int16)
        stripped[name] = np.where(inside, filled, 0)
    return clean.files(folder, **stripped)
