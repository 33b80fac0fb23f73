"""nnU-Net's network and how it is trained: heads on several levels of the decoder, a loss on each."""

from __future__ import annotations

from typing import Any

import torch
from monai.losses import DeepSupervisionLoss
from monai.networks.nets import DynUNet
from torch import Tensor, nn
from torch.nn import functional as F


class DeeplySupervisedDynUNet(DynUNet):
    """MONAI's DynUNet with deep supervision, each parameter under one name.

    MONAI's network holds every block twice, as ``downsamples.0`` and as ``skip_layers.next_layer.downsample``: its
    state has each value under two names, and a federation that exchanges states sends, clips and averages all of it
    twice. It also keeps the heads' feature maps after a step, which holds their memory and forbids a deep copy, and
    computes them in evaluation, where nobody looks at them. Here the names are MONAI's without ``skip_layers``, the
    heads speak in training only, and nothing is kept. Arguments and outputs are those of ``DynUNet``.

    Every spatial size must be a multiple of the product of ``strides``, and more than one voxel must be left at the
    bottom, because instance norm needs a variance: with four strides of 2, 32 × 16 × 16 is smallest.

    Args:
        arguments: Those of ``DynUNet``; ``deep_supervision`` is always on.

    Source: Isensee et al. 2021, nnU-Net, doi:10.1038/s41592-020-01008-z.
    """

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments, deep_supervision=True)
        del self.skip_layers, self.heads

    def forward(self, x: Tensor) -> Tensor:
        """Logits of a batch of patches.

        Args:
            x: (B, C, H, W, D).

        Returns:
            (B, 3, H, W, D) in evaluation. In training (B, heads, 3, H, W, D), the full resolution first; head k works
            at 1 / 2^k of it and is repeated to full size, because TorchScript allows one type of output.
        """
        x = self.input_block(x)
        skips = [x]
        for downsample in self.downsamples:
            x = downsample(x)
            skips.append(x)
        x = self.bottleneck(x)
        decoded: list[Tensor] = []  # the highest resolution last
        for level, upsample in enumerate(self.upsamples):
            x = upsample(x, skips[-1 - level])
            decoded.append(x)
        logits: Tensor = self.output_block(x)
        if not self.training:
            return logits
        heads = [logits]
        for level, head in enumerate(self.deep_supervision_heads):
            heads.append(F.interpolate(head(decoded[-2 - level]), size=logits.shape[2:], mode="nearest"))
        return torch.stack(heads, dim=1)


class StackedDeepSupervisionLoss(nn.Module):
    """A loss on each head of a deeply supervised network, at the head's own resolution, with nnU-Net's weights.

    Head k weighs 1 / 2^k, and the weights sum to 1; the target of a head is the nearest voxel of the full one. The
    lowest level of the decoder has weight 0 in nnU-Net: it needs no head, as the network's ``deep_supr_num`` says.

    Args:
        loss: Of logits and target of one size.

    Source: Isensee et al. 2021, nnU-Net, doi:10.1038/s41592-020-01008-z.
    """

    def __init__(self, loss: nn.Module) -> None:
        super().__init__()
        self.loss = loss

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Scalar loss.

        Args:
            logits: (B, heads, C, H, W, D) as ``DeeplySupervisedDynUNet`` gives them in training, each head at half the
                resolution of the one before; or (B, C, H, W, D), the full resolution alone.
            target: (B, C, H, W, D).

        Raises:
            ValueError: The shapes do not belong together.
        """
        stacked = logits.unsqueeze(1) if logits.dim() == target.dim() else logits
        if stacked.dim() != target.dim() + 1 or stacked[:, 0].shape != target.shape:
            raise ValueError(
                f"logits have shape {tuple(logits.shape)}, target has {tuple(target.shape)}; "
                "they must agree, but for an axis of heads in second place"
            )
        return supervise(self.loss, own_resolutions(stacked), target.float())


def own_resolutions(stacked: Tensor) -> list[Tensor]:
    """The heads of (B, heads, C, ...) as they were before they were repeated to full size: every 2^k-th voxel."""
    return [every(head, 2**level) for level, head in enumerate(stacked.unbind(1))]


def every(tensor: Tensor, step: int) -> Tensor:
    """(B, C, ...) with every ``step``-th voxel of each spatial axis."""
    for axis in range(2, tensor.dim()):
        tensor = tensor[(slice(None),) * axis + (slice(None, None, step),)]
    return tensor


def supervise(loss: nn.Module, heads: list[Tensor], target: Tensor) -> Tensor:
    """The weighted sum of a loss over heads, the full resolution first."""
    weights = [2.0**-level for level in range(len(heads))]
    normalised = [weight / sum(weights) for weight in weights]
    total: Tensor = DeepSupervisionLoss(loss, weights=normalised)(heads, target)
    return total
