"""One sample case: anatomy, tumour and scanner put together."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from brats_fl.constants import MODALITIES, SITES
from brats_fl_tools.sample.anatomy import draw_pose, fold_brain, load_atlas, push_aside
from brats_fl_tools.sample.fields import MAX_SPACING_MM, MIN_SPACING_MM, Grid
from brats_fl_tools.sample.hospitals import HOSPITALS
from brats_fl_tools.sample.scanner import scan
from brats_fl_tools.sample.signal import synthesise
from brats_fl_tools.sample.tumour import grow_tumour, plan_tumour


@dataclass(frozen=True)
class SampleCase:
    """A synthetic case as BraTS would deliver it."""

    case: str
    """``Sample_h1_001`` is the first case of hospital-1."""
    images: dict[str, NDArray[np.int16]]
    """Modality, in the order of ``MODALITIES`` -> scan (H, W, D); 0 outside the brain, above 0 inside."""
    seg: NDArray[np.uint8]
    """Labels of BraTS 2020, (H, W, D): 0, 1 necrotic and non-enhancing core, 2 oedema, 4 enhancing tumour."""
    affine: NDArray[np.float64]
    """Voxel to scanner coordinates, (4, 4), LPS."""
    spacing_mm: float
    grade: str
    """``HGG`` or ``LGG``."""


def make_case(seed: int, hospital: int, index: int, spacing_mm: float = 2.0) -> SampleCase:
    """The sample case that these numbers stand for: the same bits on every call, whatever else was made.

    On another spacing it is the same patient and the same tumour with other noise.

    Args:
        seed: Of the whole sample, >= 0.
        hospital: 1 to 5.
        index: Case of the hospital, from 1.
        spacing_mm: Isotropic, 1 (240 × 240 × 155 voxels) to 4; 2 gives 120 × 120 × 78.

    Raises:
        ValueError: A number is out of its range.
    """
    _check(seed, hospital, index, spacing_mm)
    profile, grid = HOSPITALS[SITES[hospital - 1]], Grid(spacing_mm)
    # One stream a stage: noise, whose draw depends on the grid, comes last and shifts nothing.
    body, growth, contrast, machine = (
        np.random.default_rng(child) for child in np.random.SeedSequence([seed, hospital, index]).spawn(4)
    )
    plan = plan_tumour(growth, load_atlas(), profile)
    pose = push_aside(draw_pose(body, grid), plan.seed_mm, 1.5 * plan.radius_mm, plan.push)
    anatomy = fold_brain(body, pose)
    tumour = grow_tumour(growth, anatomy, pose, plan)
    scans = scan(machine, synthesise(contrast, anatomy, tumour, profile), anatomy.brain, grid, profile)
    images: dict[str, NDArray[np.int16]] = {modality: np.zeros(grid.shape, np.int16) for modality in MODALITIES}
    for modality, image in images.items():
        image[grid.box] = scans[modality]
    seg = np.zeros(grid.shape, np.uint8)
    seg[grid.box] = tumour.labels
    return SampleCase(
        case=case_name(hospital, index),
        images=images,
        seg=seg,
        affine=grid.affine,
        spacing_mm=spacing_mm,
        grade="LGG" if profile.low_grade else "HGG",
    )


def case_name(hospital: int, index: int) -> str:
    """Name of a case: ``Sample_h1_001``."""
    return f"Sample_h{hospital}_{index:03d}"


def _check(seed: int, hospital: int, index: int, spacing_mm: float) -> None:
    if seed < 0:
        raise ValueError(f"seed must be >= 0 (got {seed})")
    if not 1 <= hospital <= len(SITES):
        raise ValueError(f"hospital must be 1 to {len(SITES)} (got {hospital})")
    if index < 1:
        raise ValueError(f"index must be >= 1 (got {index})")
    if not MIN_SPACING_MM <= spacing_mm <= MAX_SPACING_MM:
        raise ValueError(f"spacing_mm must be {MIN_SPACING_MM:g} to {MAX_SPACING_MM:g} (got {spacing_mm:g})")
