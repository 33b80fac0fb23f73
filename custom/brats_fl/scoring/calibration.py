"""Whether a probability means what it says: reliability, expected calibration error, and how unsure the network is.

Over the brain's voxels near the tumour: far from it a network is sure, and right, of nearly all, so that a mean over
the whole brain would hide what it says at the tumour's edge.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from brats_fl.cases.grids import AFFINE_TOLERANCE_MM
from brats_fl.scoring.surfaces import Box, Mask, bounding_box, grown

NEAR_TUMOUR_MM: Final = 10.0
"""From the nearest voxel of the reference's whole tumour, which itself is near."""

BINS: Final = 10
"""Of equal width over [0, 1]; 1 is in the last."""


@dataclass(frozen=True)
class Bin:
    """Voxels whose probability is of one bin."""

    voxels: int
    mean_probability: float | None
    """None without a voxel, as is ``share``."""
    share: float | None
    """Of them, what is of the region."""


@dataclass(frozen=True)
class Reliability:
    """A region's voxels by the probability that they were given; sums, so that cases can be added up."""

    voxels: NDArray[np.int64]
    """(BINS,)."""
    probability: NDArray[np.float64]
    """(BINS,) sum of the probabilities."""
    positive: NDArray[np.int64]
    """(BINS,) voxels that are of the region."""

    def __add__(self, other: Reliability) -> Reliability:
        return Reliability(
            self.voxels + other.voxels, self.probability + other.probability, self.positive + other.positive
        )

    def expected_error(self) -> float | None:
        """Mean over voxels of the gap, in its bin, between mean probability and share that is of the region.

        In [0, 1]; 0 is perfect, None without a voxel.

        Source: Naeini et al. 2015, doi:10.1609/aaai.v29i1.9602, of the probability of the region.
        """
        total = int(self.voxels.sum())
        return float(np.abs(self.probability - self.positive).sum() / total) if total else None

    @classmethod
    def of_bins(cls, bins: Sequence[Bin]) -> Reliability:
        """The sums behind ``bins``.

        Raises:
            ValueError: They are not ``BINS``, or a figure cannot be.
        """
        if len(bins) != BINS:
            raise ValueError(f"must have {BINS} bins (got {len(bins)})")
        for number, one in enumerate(bins):
            ratios = [one.mean_probability, one.share]
            known = [ratio for ratio in ratios if ratio is not None and 0 <= ratio <= 1]
            if not 0 <= one.voxels < 2**53 or len(known) != (2 if one.voxels else 0) or ratios.count(None) % 2:
                raise ValueError(
                    f"bin {number} must have voxels, and where it has any two ratios from 0 to 1 (got {one})"
                )
        voxels = np.array([one.voxels for one in bins], dtype=np.int64)
        probability = np.array([(one.mean_probability or 0.0) * one.voxels for one in bins], dtype=np.float64)
        positive = np.array([round((one.share or 0.0) * one.voxels) for one in bins], dtype=np.int64)
        return cls(voxels, probability, positive)

    def bins(self) -> list[Bin]:
        """The bins, from the lowest probability up."""
        return [
            Bin(
                int(voxels),
                float(self.probability[number] / voxels) if voxels else None,
                float(self.positive[number] / voxels) if voxels else None,
            )
            for number, voxels in enumerate(self.voxels)
        ]

    def as_table(self) -> list[dict[str, Any]]:
        """A row a bin: its limits, voxels, mean probability and share of the region, which are None without a voxel."""
        return [
            {"from": number / BINS, "to": (number + 1) / BINS, **asdict(one)} for number, one in enumerate(self.bins())
        ]


def reliability(probability: NDArray[np.floating[Any]], is_region: Mask) -> Reliability:
    """Voxels by their probability.

    Args:
        probability: (N,) in [0, 1].
        is_region: (N,), whether the voxel is of the region.
    """
    bins = np.minimum((probability * BINS).astype(np.int64), BINS - 1)
    return Reliability(
        np.bincount(bins, minlength=BINS),
        np.asarray(np.bincount(bins, weights=probability, minlength=BINS), dtype=np.float64),
        np.bincount(bins[is_region], minlength=BINS),
    )


def mean_entropy_bits(probability: NDArray[np.floating[Any]]) -> float | None:
    """Mean entropy of voxels' probabilities (N,), in bits: 0 sure, 1 undecided everywhere; None without a voxel."""
    return float(entropy_bits(probability).mean()) if probability.size else None


def entropy_bits(probability: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """Entropy of each probability, of any one shape, in bits: 0 at 0 and at 1, 1 at one half."""
    sure = np.finfo(np.float64).tiny
    p = probability.astype(np.float64)
    q = 1 - p
    return np.asarray(-(p * np.log2(np.maximum(p, sure)) + q * np.log2(np.maximum(q, sure))))


def near_tumour(whole_tumour: Mask, brain: Mask, spacing_mm: Sequence[float]) -> tuple[Box, Mask] | None:
    """A box, and which of its voxels are of the brain and no further than 10 mm from the tumour; None without tumour.

    Args:
        whole_tumour: Reference, (H, W, D).
        brain: Same shape.
        spacing_mm: Voxel size along the axes.
    """
    if not whole_tumour.any():
        return None
    margins = [int(np.ceil(NEAR_TUMOUR_MM / size)) for size in spacing_mm]
    box = grown(bounding_box(whole_tumour), (margins[0], margins[1], margins[2]), whole_tumour.shape)
    distances_mm = ndimage.distance_transform_edt(~whole_tumour[box], sampling=spacing_mm)
    return box, (distances_mm <= NEAR_TUMOUR_MM + AFFINE_TOLERANCE_MM) & brain[box]
