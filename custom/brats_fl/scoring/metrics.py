"""Dice, HD95 and volume per case and region by the BraTS rules; ``docs/metrics.md`` explains the definitions.

A region that is empty in prediction and reference scores Dice 1 and HD95 0, one that is empty in only one of
them Dice 0 and HD95 373.13 mm: a missed tumour never drops out of a mean. Values are float64, so that a table
shows 373.13 and not float32's 373.130005.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from monai.handlers import IgniteMetricHandler
from monai.metrics import CumulativeIterationMetric
from numpy.typing import NDArray
from torch import Tensor

from brats_fl.constants import REGIONS
from brats_fl.scoring.surfaces import hd95_mm

MM3_PER_ML = 1000.0


def region_dice(pred: Tensor, label: Tensor) -> Tensor:
    """Dice per case and tumour region.

    Args:
        pred: Binary prediction, (B, 3, H, W, D), channels in the order of ``REGIONS``.
        label: Binary reference, same shape.

    Returns:
        (B, 3) float64 in [0, 1]; 1.0 where both are empty, 0.0 where only one is.

    Raises:
        ValueError: The shapes differ, axis 1 is not 3 long, or a value is neither 0 nor 1.

    Source: Menze et al. 2015, doi:10.1109/TMI.2014.2377694; empty regions as in the BraTS 2020 evaluation.
    """
    check_shapes(pred, label)
    return _dice(as_mask("pred", pred), as_mask("label", label))


def region_hd95_mm(pred: Tensor, label: Tensor, spacing_mm: Sequence[float]) -> Tensor:
    """95th percentile of the Hausdorff distance per case and tumour region, in mm.

    Args:
        pred: Binary prediction, (B, 3, H, W, D), channels in the order of ``REGIONS``.
        label: Binary reference, same shape.
        spacing_mm: Voxel size along H, W and D.

    Returns:
        (B, 3) float64; 0.0 where both are empty, 373.13 where only one is.

    Raises:
        ValueError: As ``region_dice``, or the spacing is not three positive numbers.
    """
    check_shapes(pred, label)
    spacing = as_spacing(spacing_mm)
    masks = as_mask("pred", pred).cpu().numpy()
    references = as_mask("label", label).cpu().numpy()
    rows = [
        [hd95_mm(mask, reference, spacing) for mask, reference in zip(*pair, strict=True)]
        for pair in zip(masks, references, strict=True)
    ]
    return torch.tensor(rows, dtype=torch.float64, device=pred.device)


def region_volumes_ml(mask: Tensor, spacing_mm: Sequence[float]) -> Tensor:
    """Volume per case and tumour region, in millilitres.

    Args:
        mask: Binary, (B, 3, H, W, D), channels in the order of ``REGIONS``.
        spacing_mm: Voxel size along H, W and D.

    Returns:
        (B, 3) float64.

    Raises:
        ValueError: As ``region_hd95_mm``.
    """
    check_shapes(mask, mask)
    voxel_ml = float(as_spacing(spacing_mm).prod()) / MM3_PER_ML
    regions = as_mask("mask", mask)
    rows = [[int(torch.count_nonzero(region)) * voxel_ml for region in case] for case in regions]
    return torch.tensor(rows, dtype=torch.float64, device=mask.device)


class RegionDice(CumulativeIterationMetric):
    """Mean Dice over cases, of one region or of the three, for MONAI's engines.

    Unlike MONAI's ``DiceMetric`` no case is left out: a false positive on an empty region counts as 0. The
    buffer holds a row per case: (N, 3), or (N, 1) for one region.
    """

    def __init__(self, region: str | None = None) -> None:
        super().__init__()
        if region is not None and region not in REGIONS:
            raise ValueError(f"region must be one of {', '.join(REGIONS)}, or None for their mean (got {region!r})")
        self.region = region

    def _compute_tensor(self, y_pred: Tensor, y: Tensor | None = None, **_: Any) -> Tensor:
        if y is None:
            raise ValueError("RegionDice needs a reference: y is None")
        if self.region is None:
            return region_dice(y_pred, y)
        check_shapes(y_pred, y)
        channel = REGIONS.index(self.region)
        one = slice(channel, channel + 1)
        return _dice(as_mask("pred", y_pred[:, one]), as_mask("label", y[:, one]))

    def aggregate(self) -> Tensor:
        """Mean over cases and regions, a scalar tensor; ``ValueError`` where no case was seen."""
        values = self.get_buffer()
        if values is None:
            raise ValueError("RegionDice has seen no case; is the validation split empty?")
        return values.mean()


class RegionDiceHandler(IgniteMetricHandler):
    """Mean Dice over the cases of an epoch, in ``engine.state.metrics`` under the name it is attached by.

    The rows per case, (N, 3) or (N, 1) for one region, are in ``engine.state.metric_details``.

    Args:
        region: ``tc``, ``wt`` or ``et``; None for the mean of the three.
        output_transform: From the engine's output to binary ``(pred, label)``, each (B, 3, H, W, D) or a list
            of (3, H, W, D), as ``monai.handlers.from_engine(["pred", "label"])`` gives.

    Raises:
        ValueError: There is no such region.
    """

    def __init__(
        self, region: str | None = None, output_transform: Callable[[Any], Any] = lambda output: output
    ) -> None:
        super().__init__(metric_fn=RegionDice(region), output_transform=output_transform)


def _dice(pred: Tensor, label: Tensor) -> Tensor:
    rows = [
        [_dice_of_masks(mask, reference) for mask, reference in zip(*pair, strict=True)]
        for pair in zip(pred, label, strict=True)
    ]
    return torch.tensor(rows, dtype=torch.float64, device=pred.device)


def _dice_of_masks(mask: Tensor, reference: Tensor) -> float:
    # One count per mask: torch adds up the bytes of a mask twenty times as slowly when it keeps axes.
    voxels = int(torch.count_nonzero(mask)) + int(torch.count_nonzero(reference))
    return 2 * int(torch.count_nonzero(mask & reference)) / voxels if voxels else 1.0


def check_shapes(pred: Tensor, label: Tensor) -> None:
    """Raise ``ValueError`` unless both are (B, 3, H, W, D)."""
    if pred.shape != label.shape:
        raise ValueError(f"pred has shape {tuple(pred.shape)}, label {tuple(label.shape)}; both must be the same")
    if pred.ndim != 5 or pred.shape[1] != len(REGIONS):
        raise ValueError(
            f"masks must have shape (B, {len(REGIONS)}, H, W, D) with the channels {', '.join(REGIONS)}, "
            f"got {tuple(pred.shape)}"
        )


def as_mask(name: str, values: Tensor) -> Tensor:
    """Values as plain bool tensor; ``ValueError`` where one is not 0 or 1, be it NaN or a probability."""
    values = values.detach().as_subclass(Tensor)
    if values.dtype == torch.bool:
        return values
    mask = values != 0
    if torch.count_nonzero(mask) != torch.count_nonzero(values == 1):
        raise ValueError(
            f"{name} must be binary, 0 or 1 (found {float(values[mask & (values != 1)][0]):g}); threshold it"
        )
    return mask


def as_spacing(spacing_mm: Sequence[float]) -> NDArray[np.float64]:
    """Voxel sizes as an array (3,); ``ValueError`` unless they are three positive numbers."""
    spacing = np.asarray(spacing_mm, dtype=np.float64)
    if spacing.shape != (3,) or not np.isfinite(spacing).all() or (spacing <= 0).any():
        raise ValueError(f"spacing_mm must be three positive numbers, got {spacing_mm!r}")
    return spacing
