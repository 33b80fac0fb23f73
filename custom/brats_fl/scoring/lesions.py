"""Lesion-wise Dice and HD95 by the rule of BraTS 2023 for adult glioma: each lesion of the reference counts once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from brats_fl.scoring.surfaces import Mask, bounding_box, grown, hd95_mm

LESION_DILATION: Final = 3
"""Steps over faces and edges: parts of a reference that meet then are one lesion, a prediction that meets it is its."""

LARGEST_SPECK_MM3: Final = 50.0
"""A lesion of the reference has more; a smaller one is neither missed nor found, and no false lesion where predicted.

So the challenge's program (``eval.py``) has it.
"""

LESION_MISSED_MM: Final = 374.0
"""HD95 of a missed and of a false lesion in BraTS 2023, where a whole region that is missed has 373.13."""

_ROUNDING: Final = 1.001
"""50 voxels of 1.0000001 mm, as a header may round 1 mm, are 50 mm3; one voxel of 1 mm more is not."""

_FACES_AND_EDGES: Final = ndimage.generate_binary_structure(3, 2)
_TOUCHING: Final = np.ones((3, 3, 3), dtype=bool)
"""Voxels that share a face, an edge or a corner are of one part."""


@dataclass(frozen=True)
class LesionScores:
    """A region's lesions in one case."""

    dice: float
    """Mean over the reference's lesions and the false ones, which have 0; 1 without any."""
    hd95_mm: float
    """The same mean; missed and false lesions have 374, and it is 0 without any."""
    found: int
    missed: int
    false: int
    """Parts of the prediction, of any size, that meet no lesion, large or small."""


def lesion_scores(
    mask: Mask, reference: Mask, spacing_mm: NDArray[np.float64], whole_hd95_mm: float | None = None
) -> LesionScores:
    """Scores of one region's lesions, (H, W, D) masks.

    A lesion is scored against all parts of the prediction that meet it after its dilation; one part may meet several.

    Args:
        mask: Prediction.
        reference: Reference.
        spacing_mm: Voxel size along the axes.
        whole_hd95_mm: HD95 of the two masks where it is known: a lesion that is the whole region has no other.

    Source: Saluja et al. 2023, rachitsaluja/BraTS-2023-Metrics, with this library's HD95.
    """
    if not reference.any():
        _, false = ndimage.label(mask, structure=_TOUCHING)
        return LesionScores(0.0, LESION_MISSED_MM, 0, 0, false) if false else LesionScores(1.0, 0.0, 0, 0, 0)
    lesions = _label_lesions(reference)
    parts, number_of_parts = ndimage.label(mask, structure=_TOUCHING)
    voxels = np.bincount(lesions[reference], minlength=int(lesions.max()) + 1)
    large = np.flatnonzero(voxels * spacing_mm.prod() > LARGEST_SPECK_MM3 * _ROUNDING)
    meetings = _meetings(lesions, parts)
    met = {int(lesion): meetings[meetings[:, 0] == lesion, 1] for lesion in large}
    false = number_of_parts - len(np.unique(meetings[:, 1]))
    scores = [(0.0, LESION_MISSED_MM)] * false
    for lesion, own_parts in met.items():
        is_whole = len(own_parts) == number_of_parts and voxels[lesion] == voxels.sum()
        own, predicted = (lesions == lesion) & reference, np.isin(parts, own_parts)
        scores.append(_score_lesion(predicted, own, spacing_mm, whole_hd95_mm if is_whole else None))
    if not scores:
        return LesionScores(1.0, 0.0, 0, 0, 0)
    dice, distances_mm = np.mean(scores, axis=0).tolist()
    found = sum(len(own_parts) > 0 for own_parts in met.values())
    return LesionScores(dice, distances_mm, found, len(large) - found, false)


def _score_lesion(
    predicted: Mask, own: Mask, spacing_mm: NDArray[np.float64], known_hd95_mm: float | None
) -> tuple[float, float]:
    """Dice and HD95 of a lesion, (H, W, D) masks; the prediction is empty where it was missed."""
    if not predicted.any():
        return 0.0, LESION_MISSED_MM
    dice = 2 * np.count_nonzero(own & predicted) / (np.count_nonzero(own) + np.count_nonzero(predicted))
    return dice, hd95_mm(predicted, own, spacing_mm) if known_hd95_mm is None else known_hd95_mm


def _label_lesions(reference: Mask) -> NDArray[np.int32]:
    """Number of the lesion that a voxel is of or near to, 0 elsewhere.

    A lesion's own dilation is its part of the dilated reference: what is near it is near no other.
    """
    lesions = np.zeros(reference.shape, dtype=np.int32)
    box = grown(bounding_box(reference), (LESION_DILATION,) * 3, reference.shape)
    near = ndimage.binary_dilation(reference[box], structure=_FACES_AND_EDGES, iterations=LESION_DILATION)
    ndimage.label(near, structure=_TOUCHING, output=lesions[box])
    return lesions


def _meetings(lesions: NDArray[np.int32], parts: NDArray[np.int32]) -> NDArray[np.int64]:
    """(N, 2) pairs of a lesion and a part of the prediction that share voxels."""
    both = (lesions > 0) & (parts > 0)
    codes = np.unique(lesions[both].astype(np.int64) * (int(parts.max()) + 1) + parts[both])
    return np.stack(np.divmod(codes, int(parts.max()) + 1), axis=1)
