"""The five sample hospitals: what their scanners and their patients have in common.

The numbers follow what public BraTS cases of five institutions show: brain intensities from a few hundred to
18,000, one site with low-grade gliomas, others with large or small glioblastomas.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from brats_fl.constants import SITES


@dataclass(frozen=True)
class Hospital:
    """Scanner and case mix of a site. Ranges are drawn from uniformly, once a case."""

    gain: tuple[float, float]
    """Intensity of white matter in T1."""
    noise: float
    """Standard deviation of the noise in each channel of the receiver, in units of white matter."""
    bias: float
    """Strength of the receiver's bias field: standard deviation of its logarithm."""
    blur_mm: float
    """Standard deviation of the in-plane blur."""
    slice_mm: tuple[float, float, float, float]
    """Slice thickness of t1n, t1c, t2w and t2f; BraTS resamples all to 1 mm."""
    fluid_contrast: float
    """Factor on the brightness of fluid in T2: echo time."""
    t1_contrast: float
    """Factor on the difference of grey and white matter in T1."""
    core_ml: tuple[float, float]
    """Volume of the tumour core."""
    edema_ml: tuple[float, float]
    """Volume of the oedema."""
    rim_mm: tuple[float, float]
    """Thickness of the enhancing rim."""
    low_grade: bool = False
    """No enhancing part: label 4 does not occur."""
    extra_cases: int = 0
    """Cases more or fewer than ``--cases-per-site``."""


HOSPITALS: Final = MappingProxyType(
    {
        SITES[0]: Hospital(  # 3 T, 3D sequences: sharp, some shading
            gain=(800, 1100), noise=0.018, bias=0.12, blur_mm=0.35, slice_mm=(1, 1, 1.5, 1.5),
            fluid_contrast=1.15, t1_contrast=0.8, core_ml=(15, 55), edema_ml=(20, 80), rim_mm=(2.5, 5.0),
        ),
        SITES[1]: Hospital(  # 1.5 T, large tumours, thick T2 and FLAIR slices
            gain=(280, 460), noise=0.035, bias=0.06, blur_mm=0.55, slice_mm=(2, 2, 4, 5),
            fluid_contrast=0.85, t1_contrast=1.1, core_ml=(35, 80), edema_ml=(50, 110), rim_mm=(3.5, 7.0),
            extra_cases=1,
        ),
        SITES[2]: Hospital(  # noisy scanner with a strong surface coil
            gain=(240, 330), noise=0.055, bias=0.16, blur_mm=0.4, slice_mm=(1.5, 1.5, 3, 3),
            fluid_contrast=0.8, t1_contrast=1.0, core_ml=(20, 60), edema_ml=(35, 90), rim_mm=(3.0, 8.0),
            extra_cases=-1,
        ),
        SITES[3]: Hospital(  # low grade: large cores that do not enhance
            gain=(6500, 9500), noise=0.025, bias=0.09, blur_mm=0.45, slice_mm=(1.5, 1.5, 3, 2),
            fluid_contrast=0.75, t1_contrast=1.25, core_ml=(35, 95), edema_ml=(20, 70), rim_mm=(0.0, 0.0),
            low_grade=True,
        ),
        SITES[4]: Hospital(  # early findings: small tumours, soft pictures
            gain=(1400, 2300), noise=0.03, bias=0.08, blur_mm=0.8, slice_mm=(3, 2, 5, 5),
            fluid_contrast=1.0, t1_contrast=0.95, core_ml=(6, 25), edema_ml=(10, 45), rim_mm=(2.5, 5.0),
            extra_cases=1,
        ),
    }
)  # fmt: skip
"""Site name -> its scanner and case mix."""
