"""Mixed precision where it pays: bfloat16 on GPUs, and on CPUs that have it in hardware and are faster with it."""

from __future__ import annotations

import time
from contextlib import AbstractContextManager
from functools import lru_cache

import torch


def autocast(device: torch.device, amp: bool) -> AbstractContextManager[None]:
    """Context for a forward pass: bfloat16 autocast where ``amp`` is set and the device gains from it."""
    pays = amp and (device.type == "cuda" or (device.type == "cpu" and cpu_bfloat16_pays()))
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=pays)


SMALLEST_CPU_PATCH = 64
"""Shortest side of a patch that is trained on in bfloat16 on a CPU. The networks halve it four times, and of a feature
map of 2 x 2 x 2 voxels oneDNN's bfloat16 convolution gives a weight gradient of uninitialised memory (PyTorch 2.13,
AVX512_BF16; maps of 3 and more are right, the forward pass always is)."""


def trains_in_bfloat16(patches: torch.Tensor, amp: bool) -> bool:
    """Whether a batch of patches (B, C, H, W, D) may be trained on in mixed precision on its device."""
    return amp and (patches.device.type != "cpu" or min(patches.shape[2:]) >= SMALLEST_CPU_PATCH)


@lru_cache(maxsize=1)
def cpu_bfloat16_pays() -> bool:
    """Whether a convolution in bfloat16 takes less than 0.8 of the time of float32 on this processor, measured once.

    Processors without bfloat16 instructions emulate them and are several times slower; they are not timed at all.
    """
    capabilities = torch.backends.cpu.get_cpu_capability()
    if not capabilities.startswith("AVX512") or not torch.cpu._is_avx512_bf16_supported():
        return False
    # Constants: drawing numbers here would move the study's random stream at a time that differs between processes.
    kernel = torch.full((16, 16, 3, 3, 3), 0.01)
    patch = torch.full((1, 16, 32, 32, 32), 0.5)
    return _seconds(kernel, patch, True) < 0.8 * _seconds(kernel, patch, False)


def _seconds(kernel: torch.Tensor, patch: torch.Tensor, enabled: bool) -> float:
    times = []
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
        for _ in range(6):
            begin = time.perf_counter()
            torch.nn.functional.conv3d(patch, kernel, padding=1)
            times.append(time.perf_counter() - begin)
    return min(times[1:])
