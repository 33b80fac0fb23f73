"""From the network's probabilities to the mask: one way for validation, evaluation and use.

What is scored is what is delivered: the regions of the label map that is written, not those that the network drew.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from brats_fl.cases.regions import regions_to_labels
from brats_fl.constants import REGIONS

Masks = NDArray[np.bool_]

MM3_PER_ML = 1000.0
TC, WT, ET = (REGIONS.index(name) for name in ("tc", "wt", "et"))


@dataclass(frozen=True)
class PostProcessing:
    """How probabilities become a mask; chosen on validation cases, never on those it is then judged by."""

    thresholds: tuple[float, ...] = (0.5, 0.5, 0.5)
    """Probability from which a voxel counts, per region in the order of ``REGIONS``."""
    smallest_wt_share: float = 0.0
    """Parts of the whole tumour under this share of the largest part's volume are false positives; 0 keeps all."""
    smallest_et_ml: float = 0.0
    """An enhancing part that is smaller as a whole is a false positive, and core; 0 leaves it alone."""

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            ValueError: A threshold or share is not between 0 and 1, or the volume is negative.
        """
        if len(self.thresholds) != len(REGIONS) or not all(0 < value < 1 for value in self.thresholds):
            raise ValueError(f"thresholds must be {len(REGIONS)} numbers between 0 and 1 (got {list(self.thresholds)})")
        if not 0 <= self.smallest_wt_share < 1:
            raise ValueError(f"smallest_wt_share must be from 0 to under 1 (got {self.smallest_wt_share})")
        if not self.smallest_et_ml >= 0:
            raise ValueError(f"smallest_et_ml must be >= 0 ml (got {self.smallest_et_ml})")


def finish(probabilities: NDArray[np.floating[Any]], voxel_ml: float, settings: PostProcessing) -> NDArray[np.uint8]:
    """Label map with the library's values, (H, W, D) uint8.

    Regions are made nested, enhancing tumour within core within whole: what lies outside the larger region is dropped.

    Args:
        probabilities: (3, H, W, D) in [0, 1], channels in the order of ``REGIONS``.
        voxel_ml: Volume of a voxel.
        settings: How.

    Source: small enhancing parts: Isensee et al. 2020, arXiv 2011.00848.
    """
    masks: Masks = np.stack([probabilities[i] >= settings.thresholds[i] for i in range(len(REGIONS))])
    if settings.smallest_wt_share:
        masks[WT] = keep_large_parts(masks[WT], settings.smallest_wt_share)
    masks[TC] &= masks[WT]
    masks[ET] &= masks[TC]
    if 0 < np.count_nonzero(masks[ET]) * voxel_ml < settings.smallest_et_ml:
        masks[ET] = False
    return regions_to_labels(masks)


def keep_large_parts(mask: NDArray[np.bool_], share: float) -> NDArray[np.bool_]:
    """The connected parts of a mask (H, W, D) that have at least ``share`` of the largest part's voxels.

    Voxels that touch by a corner are connected.
    """
    found = ndimage.find_objects(mask.astype(np.uint8))
    if not found:
        return mask
    box = found[0]
    parts, count = ndimage.label(mask[box], structure=np.ones((3, 3, 3)))
    sizes = np.bincount(parts.ravel(), minlength=count + 1)
    sizes[0] = 0
    kept = np.zeros_like(mask)
    kept[box] = (sizes >= share * sizes.max())[parts] & mask[box]
    return kept
