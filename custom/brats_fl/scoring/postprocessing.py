"""The bundles' last transform: ``finishing`` over what the network gave for a case."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any, Final

import torch
from monai.data import MetaTensor
from monai.transforms import Transform

from brats_fl.cases.regions import labels_to_regions, to_file_labels
from brats_fl.constants import DEFAULT_LABEL_TABLE
from brats_fl.scoring.finishing import MM3_PER_ML, PostProcessing, finish

PROBABILITY: Final = "probability"
BRAIN: Final = "brain"
"""Keys of an item: what the network said and where there is brain, both in the scan's own geometry."""

OF_ROUNDING: Final = 1e-3
"""Standard deviations of a normalised scan: what interpolation may make of a 0 outside of the brain is far less."""


class BrainMaskd(Transform):
    """Add ``brain`` (1, H, W, D) float32, 1 where a modality of ``image`` is not 0; to be inverted as ``pred`` is."""

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:  # noqa: D102
        image = data["image"]
        brain = (image.as_tensor().abs() > OF_ROUNDING).any(dim=0, keepdim=True).float()
        return {**data, BRAIN: MetaTensor(brain, meta=dict(image.meta))}  # Invertd passes over what has no geometry


class FinishMaskd(Transform):
    """``pred`` from probabilities to the regions of the mask that is delivered, (3, H, W, D) float32, 0 or 1.

    With ``output_key`` also that mask, (1, H, W, D) uint8 with the label values of the case's convention.

    Args:
        thresholds, smallest_wt_share, smallest_et_ml: As ``PostProcessing``.
        output_key: Where to put the mask; None for none.
        keep_probability: Whether what ``pred`` was stays as ``probability``.
    """

    def __init__(
        self,
        thresholds: Sequence[float] = (0.5, 0.5, 0.5),
        smallest_wt_share: float = 0.0,
        smallest_et_ml: float = 0.0,
        output_key: str | None = None,
        keep_probability: bool = False,
    ) -> None:
        self.settings = PostProcessing(tuple(thresholds), smallest_wt_share, smallest_et_ml)
        self.output_key = output_key
        self.keep_probability = keep_probability

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:  # noqa: D102
        item = dict(data)
        pred = item["pred"]
        meta = dict(pred.meta if isinstance(pred, MetaTensor) else {"affine": item["image"].affine})
        voxel_ml = float(torch.det(torch.as_tensor(meta["affine"])[:3, :3]).abs()) / MM3_PER_ML
        labels = torch.from_numpy(finish(pred.numpy(force=True), voxel_ml, self.settings))
        item["pred"] = MetaTensor(labels_to_regions(labels), meta=meta)
        if self.keep_probability:
            item[PROBABILITY] = torch.as_tensor(pred).as_subclass(torch.Tensor)
        if self.output_key is not None:
            mask = to_file_labels(labels, str(item.get("labels", DEFAULT_LABEL_TABLE)))
            item[self.output_key] = MetaTensor(mask[None], meta=meta)
        return item
