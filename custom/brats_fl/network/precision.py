"""Mixed precision where it pays: bfloat16 on GPUs, and on CPUs that have it in hardware and are faster with it."""

from __future__ import annotations

import math
import time
from contextlib import AbstractContextManager
from functools import lru_cache

import torch


def autocast(device: torch.device, amp: bool) -> AbstractContextManager[None]:
    """Context for a forward pass: bfloat16 autocast where ``amp`` is set and the device gains from it."""
    pays = amp and (device.type == "cuda" or (device.type == "cpu" and cpu_bfloat16_pays()))
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=pays)


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


TRAINING_BATCH = 2
"""Patches a step, the bundles' ``batch_size``. PyTorch's fast float32 convolutions need more than one: against a single
patch bfloat16 would seem to gain more than it does."""


@lru_cache(maxsize=1)
def cpu_bfloat16_pays() -> bool:
    """Whether a step of training takes less than 0.8 of the time in bfloat16 on this processor, measured once.

    The step is one convolution, forward and backward, on the feature map of the first level of a bundle's network in
    profile ``small``. The backward pass decides: it gains less than the forward pass, which is all that inference has
    (a UNet's step took 0.21 of the time of float32, its inference 0.11). Processors without bfloat16 instructions
    emulate them and are several times slower; they are not timed at all.
    """
    capabilities = torch.backends.cpu.get_cpu_capability()
    if not capabilities.startswith("AVX512") or not torch.cpu._is_avx512_bf16_supported():
        return False
    return _step_seconds(True) < 0.8 * _step_seconds(False)


def _step_seconds(bfloat16: bool) -> float:
    """Shorter of two steps after a first one, in s."""
    times = []
    # Asked for in an evaluation too, where gradients are off.
    with torch.inference_mode(False), torch.enable_grad():
        # Constants: drawing numbers here would move the study's random stream at a time that differs between processes.
        kernel = torch.full((16, 16, 3, 3, 3), 0.01, requires_grad=True)
        features = torch.full((TRAINING_BATCH, 16, 32, 32, 32), 0.5, requires_grad=True)
        for _ in range(3):
            begin = time.perf_counter()
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bfloat16):
                result = torch.nn.functional.conv3d(features, kernel, padding=1)
            torch.autograd.grad(result, (features, kernel), torch.ones_like(result))
            times.append(time.perf_counter() - begin)
    return min(times[1:])
