"""Networks that MONAI lacks."""

from __future__ import annotations

from collections.abc import Sequence

from monai.networks.layers.factories import Norm
from monai.networks.nets import AttentionUnet
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


class InstanceNormAttentionUnet(AttentionUnet):
    """MONAI's Attention UNet with instance norm in place of its hard-coded batch norm.

    Its state holds parameters and nothing else: no running statistics of one hospital's scans that a weighted
    mean would mix up, and batch size 1 trains. Arguments and parameter names are those of ``AttentionUnet``.

    Every spatial size must be a multiple of the product of ``strides``, and more than one voxel must be left
    at the bottom, because instance norm needs a variance: with four strides of 2, 32 × 16 × 16 is smallest.

    Args:
        spatial_dims: 2 or 3.
        in_channels: Channels of the input.
        out_channels: Channels of the output, logits.
        channels: Channels per level, the top first.
        strides: Stride from each level to the next, one fewer than levels.
        kernel_size: Of the convolutions.
        up_kernel_size: Of the transposed convolutions, odd.
        dropout: Probability; not applied in attention gates and up-convolutions.

    Source: Oktay et al. 2018, arXiv 1804.03999; normalisation by Ulyanov et al. 2016, arXiv 1607.08022.
    """

    def __init__(
        self,
        spatial_dims: int,
        in_channels: int,
        out_channels: int,
        channels: Sequence[int],
        strides: Sequence[int],
        kernel_size: Sequence[int] | int = 3,
        up_kernel_size: Sequence[int] | int = 3,
        dropout: float = 0.0,
    ) -> None:
        super().__init__(
            spatial_dims=spatial_dims,
            in_channels=in_channels,
            out_channels=out_channels,
            channels=channels,
            strides=strides,
            kernel_size=kernel_size,
            up_kernel_size=up_kernel_size,
            dropout=dropout,
        )
        use_instance_norm(self, spatial_dims)


def use_instance_norm(network: nn.Module, spatial_dims: int) -> None:
    """Replace every batch norm of a network, in place, by affine instance norm without running statistics."""
    instance_norm = Norm[Norm.INSTANCE, spatial_dims]
    for parent in list(network.modules()):
        for name, child in parent.named_children():
            if isinstance(child, _BatchNorm):
                setattr(parent, name, instance_norm(child.num_features, affine=True))
