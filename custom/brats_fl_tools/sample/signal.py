"""Contrast: how bright each tissue is in each modality, without a scanner's faults.

Brightness is in units of white matter. The values follow the medians of public BraTS cases per label and
tissue; what a threshold would fall for is there as in patients: fluid as bright as oedema in T2, vessels and
meninges as bright as a rim after contrast, bright white matter around the ventricles of the old in FLAIR.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

import numpy as np
from scipy import ndimage

from brats_fl_tools.sample.anatomy import Anatomy
from brats_fl_tools.sample.fields import Grid, Volume, smooth_field
from brats_fl_tools.sample.hospitals import Hospital
from brats_fl_tools.sample.tumour import Tumour

TUMOUR_SPREAD = 0.15
"""Standard deviation of the logarithm of a tumour part's brightness among patients."""

TISSUE_SPREAD = 0.04
"""The same for healthy tissue."""


@dataclass(frozen=True)
class Contrast:
    """Brightness per tissue in one modality; white matter is 1."""

    grey: float
    fluid: float
    necrosis: float
    enhancing: float
    edema: float
    detail: float
    """Factor on the atlas's T1 detail."""
    vessel: float


CONTRASTS: Final = MappingProxyType(
    {
        "t1n": Contrast(grey=0.79, fluid=0.36, necrosis=0.60, enhancing=0.80, edema=0.82, detail=1.0, vessel=0.75),
        "t1c": Contrast(grey=0.83, fluid=0.40, necrosis=0.56, enhancing=1.65, edema=0.84, detail=1.0, vessel=1.9),
        "t2w": Contrast(grey=1.42, fluid=3.2, necrosis=2.8, enhancing=1.95, edema=2.15, detail=-1.2, vessel=0.6),
        "t2f": Contrast(grey=1.28, fluid=0.30, necrosis=1.7, enhancing=1.8, edema=1.85, detail=-0.6, vessel=0.7),
    }
)
"""Modality -> brightness, for a scanner with contrast factors of 1."""


@dataclass(frozen=True)
class Bystanders:
    """What is bright without being tumour, float32 in 0 to 1 on the box."""

    vessels: Volume
    meninges: Volume
    worn_white: Volume
    """White matter lesions of age, around the ventricles and in spots."""


def draw_bystanders(rng: np.random.Generator, anatomy: Anatomy) -> Bystanders:
    """Vessels in the sulci and fissures, remnants of meninges at the brain's edge, worn white matter."""
    grid, fluid = anatomy.grid, anatomy.fluid
    first, second = smooth_field(rng, grid, 13.0), smooth_field(rng, grid, 13.0)
    # Where two fields vanish together runs a curve: a tube of about 2 mm.
    tubes = np.exp(-(first**2 + second**2) / np.float32(0.02))
    near_fluid = np.clip(2.5 * _blur(fluid, grid, 1.5), 0.1, 1)
    plexus = (anatomy.depth_mm > 28) * fluid * np.clip(smooth_field(rng, grid, 4.5) - 0.9, 0, 1)
    edge = np.exp(-((anatomy.depth_mm / np.float32(2.2)) ** 2))
    patches = np.clip(smooth_field(rng, grid, 18.0) - 0.3, 0, 1)
    patches *= np.clip(1 + smooth_field(rng, grid, 5.0), 0, 2)
    age = float(rng.uniform(0, 1)) ** 2
    caps = 3.0 * _blur(fluid * (anatomy.depth_mm > 26), grid, 3.5)
    caps *= np.clip(1 + smooth_field(rng, grid, 9.0), 0, 2)
    spots = np.clip(2.0 * (smooth_field(rng, grid, 6.0) - 2.3), 0, 1) * (anatomy.depth_mm > 8)
    return Bystanders(
        vessels=np.clip(tubes * near_fluid + plexus, 0, 1),
        meninges=np.clip(edge * patches, 0, 1),
        worn_white=np.clip((0.15 + age) * (caps + spots), 0, 1) * anatomy.white,
    )


def _blur(volume: Volume, grid: Grid, sigma_mm: float) -> Volume:
    return ndimage.gaussian_filter(volume, sigma_mm / grid.spacing_mm, truncate=3)


def synthesise(rng: np.random.Generator, anatomy: Anatomy, tumour: Tumour, hospital: Hospital) -> dict[str, Volume]:
    """Noise-free brightness per modality, white matter about 1, float32 on the box."""
    bystanders = draw_bystanders(rng, anatomy)
    texture = 0.03 * smooth_field(rng, anatomy.grid, 5.0) + 0.02 * smooth_field(rng, anatomy.grid, 2.5)
    patchwork = 0.14 * smooth_field(rng, anatomy.grid, 8.0) + 0.1 * smooth_field(rng, anatomy.grid, 3.5)
    return {
        modality: _synthesise_one(rng, modality, anatomy, tumour, hospital, bystanders, texture, patchwork)
        for modality in CONTRASTS
    }


def _synthesise_one(
    rng: np.random.Generator,
    modality: str,
    anatomy: Anatomy,
    tumour: Tumour,
    hospital: Hospital,
    bystanders: Bystanders,
    texture: Volume,
    patchwork: Volume,
) -> Volume:
    mean = _draw_contrast(rng, modality, hospital)
    core = tumour.necrosis + tumour.enhancing
    # A mass and its swelling press the sulci shut: fluid gives way to the tissue beside it.
    fluid = anatomy.fluid * (1 - 0.6 * tumour.edema)
    solid = 1 - fluid
    share = anatomy.grey / (anatomy.grey + anatomy.white + np.float32(1e-3))
    brain = solid * (share * mean.grey + (1 - share)) * (1 + texture) + fluid * mean.fluid
    brain += mean.detail * anatomy.detail
    brain += bystanders.worn_white * (mean.edema - 1) * np.float32(0.7)
    swollen = mean.edema * (1 + 0.5 * patchwork) * (1 - 0.12 * share)
    brain += tumour.edema * solid * (0.72 + 0.26 * tumour.near_core) * (swollen - brain)
    sign = -1 if modality == "t2w" else 1  # what enhances less is wetter
    brain += tumour.necrosis * (mean.necrosis * (1 + 0.6 * patchwork) - brain)
    brain += tumour.enhancing * (mean.enhancing * (1 + sign * patchwork) - brain)
    brain += bystanders.vessels * (1 - core) * (mean.vessel - brain)
    brain += bystanders.meninges * (1 - core) * (0.5 if modality == "t2w" else 0.9 * mean.vessel - 0.2)
    return np.maximum(brain, np.float32(0.02))


def _draw_contrast(rng: np.random.Generator, modality: str, hospital: Hospital) -> Contrast:
    base = CONTRASTS[modality]
    tissue = np.exp(rng.normal(0, TISSUE_SPREAD, 2))
    parts = np.exp(rng.normal(0, TUMOUR_SPREAD, 3))
    suppressed = float(rng.uniform(0.55, 1.15))
    t1_factor = hospital.t1_contrast if modality in ("t1n", "t1c") else 1.0
    fluid_factor = hospital.fluid_contrast if modality == "t2w" else 1.0
    # In FLAIR a watery core is anything from dark to bright; in T2 it follows the brightness of fluid.
    necrosis_factor = suppressed if modality == "t2f" else fluid_factor**0.7
    wet_factor = fluid_factor**0.7
    return Contrast(
        grey=1 - (1 - base.grey) * t1_factor * float(tissue[0]),
        fluid=base.fluid * fluid_factor * float(tissue[1]),
        necrosis=base.necrosis * necrosis_factor * float(parts[0]) * (1.1 if hospital.low_grade else 1.0),
        enhancing=base.enhancing * wet_factor * float(parts[1]),
        edema=base.edema * wet_factor * float(parts[2]) ** 0.5,
        detail=base.detail * t1_factor,
        vessel=base.vessel,
    )
