"""How the network is called: on training patches, and on whole brains with a sliding window."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from monai.inferers import SimpleInferer, SlidingWindowInferer
from torch import Tensor

from brats_fl.network.engine_packages import TORCH, check_engine
from brats_fl.network.inference_engines import answered_by
from brats_fl.network.precision import autocast, reduction_of, trains_in_bfloat16

NetworkCall = Callable[..., Tensor]


class PatchInferer(SimpleInferer):
    """The network on a batch of patches, (B, 4, H, W, D) to logits (B, 3, H, W, D) float32."""

    def __init__(self, amp: bool = True) -> None:
        super().__init__()
        self.amp = amp

    def __call__(self, inputs: Tensor, network: NetworkCall, *args: Any, **kwargs: Any) -> Tensor:  # noqa: D102
        with autocast(inputs.device, trains_in_bfloat16(inputs, self.amp, reduction_of(network))):
            return network(_plain(inputs), *args, **kwargs).float()


class BrainInferer(SlidingWindowInferer):
    """Sliding window with Gaussian weights over a whole brain, (1, 4, H, W, D) to logits (1, 3, H, W, D).

    The window is the training patch, in use as in training. Instance norm takes its statistics over what it is shown:
    the same weights over-segment in windows that are larger than those that they were trained in.

    Args:
        roi_size: The training patch, in voxels; a brain that is smaller is padded with 0, as a training patch is.
        overlap: Share of a window that overlaps the next, at least.
        mirror_axes: Spatial axes to mirror at test time; the logits of all combinations are averaged.
        amp: Mixed precision where it pays, see ``brats_fl.network.precision``.
        windows_at_once: Windows in a batch: with one, PyTorch's 3-D convolutions on a CPU take twice as long a window.
        engine: What computes a window's logits, see ``brats_fl.network.inference_engines``; other than torch on a CPU
            and in float32 alone, whatever ``amp`` says.
    """

    def __init__(
        self,
        roi_size: Sequence[int],
        overlap: float = 0.5,
        mirror_axes: Sequence[int] = (),
        amp: bool = True,
        windows_at_once: int = 2,
        engine: str = TORCH,
    ) -> None:
        check_engine(engine)
        super().__init__(roi_size=tuple(roi_size), sw_batch_size=windows_at_once, overlap=overlap, mode="gaussian")
        self.mirror_axes = tuple(mirror_axes)
        self.amp = amp
        self.engine = engine

    def __call__(self, inputs: Tensor, network: NetworkCall, *args: Any, **kwargs: Any) -> Tensor:  # noqa: D102
        with autocast(inputs.device, self.amp and self.engine == TORCH), answered_by(self.engine, network):
            logits = super().__call__(_plain(inputs), self._mirrored(network), *args, **kwargs)
        return logits.float()

    def _mirrored(self, network: NetworkCall) -> NetworkCall:
        def call(window: Tensor, *args: Any, **kwargs: Any) -> Tensor:
            total = network(window, *args, **kwargs)
            for axes in combinations(self.mirror_axes):
                dims = [axis + 2 for axis in axes]
                total = total + network(window.flip(dims), *args, **kwargs).flip(dims)
            return total / 2 ** len(self.mirror_axes)

        return call


def combinations(axes: Sequence[int]) -> list[tuple[int, ...]]:
    """Every non-empty subset of the axes: 3 axes give 7."""
    return [tuple(axis for bit, axis in enumerate(axes) if mask >> bit & 1) for mask in range(1, 2 ** len(axes))]


def _plain(inputs: Tensor) -> Tensor:
    """The tensor without MONAI's metadata, whose bookkeeping costs more than a small network's pass."""
    plain: torch.Tensor = inputs.as_tensor() if hasattr(inputs, "as_tensor") else inputs
    return plain
