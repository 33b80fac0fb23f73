"""Mixed precision where it pays: bfloat16 on GPUs, and on CPUs that have it in hardware."""

from __future__ import annotations

import math
from contextlib import AbstractContextManager

import torch


def autocast(device: torch.device, amp: bool) -> AbstractContextManager[None]:
    """Context for a forward pass: bfloat16 autocast where ``amp`` is set and the device has it."""
    is_mixed = amp and (device.type == "cuda" or (device.type == "cpu" and cpu_has_bfloat16()))
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=is_mixed)


SMALLEST_CPU_MAP = 4
"""Shortest side of a network's lowest feature map that is trained on in bfloat16 on a CPU: 64 voxels of a patch after
four halvings. Of a map of 2 x 2 x 2 voxels oneDNN's bfloat16 convolution gives a weight gradient of uninitialised
memory (PyTorch 2.13, AVX512_BF16; maps of 3 and more are right, the forward pass always is)."""

USUAL_REDUCTION = 16
"""Of a network that does not tell its strides: four halvings, as those of the Attention UNet."""


def trains_in_bfloat16(patches: torch.Tensor, amp: bool, reduction: int = USUAL_REDUCTION) -> bool:
    """Whether a batch of patches (B, C, H, W, D) may be trained on in mixed precision on its device.

    Args:
        patches: The batch.
        amp: Whether it is wanted.
        reduction: Voxels of a patch to one of the network's lowest feature map, along an axis.
    """
    return amp and (patches.device.type != "cpu" or min(patches.shape[2:]) // reduction >= SMALLEST_CPU_MAP)


def reduction_of(network: object) -> int:
    """Voxels of a patch to one of a network's lowest feature map, along the axis with the most halvings.

    Args:
        network: One of MONAI's, which keep their ``strides``, whatever they are wrapped in for several processes.
    """
    strides = getattr(getattr(network, "module", network), "strides", None)
    if strides is None:
        return USUAL_REDUCTION
    return math.prod(stride if isinstance(stride, int) else max(stride) for stride in strides)


def cpu_has_bfloat16() -> bool:
    """Whether this processor computes in bfloat16, with instructions that PyTorch uses.

    A UNet's training step then takes .21 of the time of float32, its inference .11; without them PyTorch emulates
    bfloat16 and is many times slower. Whether it pays is not measured: a busy machine would answer now one, now the
    other, and a run could not be repeated.
    """
    return torch.backends.cpu.get_cpu_capability().startswith("AVX512") and torch.cpu._is_avx512_bf16_supported()
