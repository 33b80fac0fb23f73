"""The training loss."""

from __future__ import annotations

import torch
from monai.losses import DiceLoss
from torch import Tensor, nn
from torch.nn import functional as F


class DiceBCELoss(nn.Module):
    """Dice loss plus binary cross-entropy on overlapping regions, each channel a sigmoid of its own.

    MONAI's ``DiceCELoss`` takes several channels for exclusive classes and puts a softmax over them; the
    regions overlap (enhancing tumour lies in the core, the core in the whole), so that it does not fit.

    The loss is computed in float32 even under autocast: a sum over more than 65,504 voxels overflows float16,
    and bfloat16 keeps three digits of it.

    Args:
        dice_weight: Weight of the Dice loss.
        bce_weight: Weight of the cross-entropy.
        batch: Sum over the patches of a batch before dividing, so that a patch without enhancing tumour does
            not score as a miss; False for Dice per patch. The choice of the BraTS 2020 winner (Isensee et al.
            2020, arXiv 2011.00848).
        smooth: Added above and below the fraction bar of Dice; keeps an empty region finite.
    """

    def __init__(
        self, dice_weight: float = 1.0, bce_weight: float = 1.0, batch: bool = True, smooth: float = 1e-5
    ) -> None:
        super().__init__()
        self.dice_weight = dice_weight
        self.bce_weight = bce_weight
        self.dice = DiceLoss(sigmoid=True, batch=batch, smooth_nr=smooth, smooth_dr=smooth)

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Scalar float32 loss.

        Args:
            logits: Network output before the sigmoid, (B, 3, H, W, D), float32 or half precision.
            target: Binary regions, same shape, any dtype.

        Raises:
            ValueError: The shapes differ.
        """
        if logits.shape != target.shape:
            raise ValueError(
                f"logits have shape {tuple(logits.shape)}, target has {tuple(target.shape)}; they must agree"
            )
        with torch.autocast(device_type=logits.device.type, enabled=False):
            logits, target = logits.float(), target.float()
            dice = self.dice(logits, target)
            bce = F.binary_cross_entropy_with_logits(logits, target)
            return self.dice_weight * dice + self.bce_weight * bce
