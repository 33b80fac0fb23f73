"""Several networks as one: the mean of their probabilities, each with a sliding window of its own training patch.

A bundle's configuration takes it in the place of its network and its inferer; all that follows, from the sigmoid to the
mask, stays as it is. MONAI's ``EnsembleEvaluator`` keeps the output of every network until all are there, and has one
inferer for all of them; here one sum is kept, and each network has its own window.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from monai.inferers import Inferer
from torch import Tensor, nn

from brats_fl.network.engine_packages import TORCH, check_engine
from brats_fl.network.inferers import BrainInferer

CLOSEST = 1e-6
"""Distance from 0 and 1 that a mean probability keeps: float32 tells 1 - 1e-6 from 1, and the logit stays finite."""


class Ensemble(nn.Module):
    """Networks that are loaded side by side; ``EnsembleInferer`` calls them one after the other.

    Args:
        members: The networks, one or more.
    """

    def __init__(self, members: Sequence[nn.Module]) -> None:
        super().__init__()
        if not members:
            raise ValueError("members must be one network or more (got none)")
        self.members = nn.ModuleList(members)


class EnsembleInferer(Inferer):
    """Whole brain (1, 4, H, W, D) to the logits of the mean probability, (1, 3, H, W, D) float32.

    Args:
        windows: Of each member, its training patch in voxels.
        overlap, mirror_axes, amp, engine: As ``BrainInferer``, of all members.
    """

    def __init__(
        self,
        windows: Sequence[Sequence[int]],
        overlap: float = 0.5,
        mirror_axes: Sequence[int] = (),
        amp: bool = True,
        engine: str = TORCH,
    ) -> None:
        check_engine(engine)
        self.windows = [list(window) for window in windows]
        self.overlap, self.mirror_axes, self.amp, self.engine = overlap, list(mirror_axes), amp, engine

    def __call__(self, inputs: Tensor, network: Ensemble, *args: Any, **kwargs: Any) -> Tensor:  # noqa: D102
        # One at a time: an inferer keeps the importance map of its window.
        inferers = (
            BrainInferer(window, self.overlap, self.mirror_axes, self.amp, engine=self.engine)
            for window in self.windows
        )
        pairs = zip(inferers, network.members, strict=True)
        return mean_logits(len(self.windows), (inferer(inputs, member, *args, **kwargs) for inferer, member in pairs))


def mean_logits(count: int, logits: Iterable[Tensor]) -> Tensor:
    """Logits of the mean probability of ``count`` outputs, which are taken one by one; one sum is kept.

    Args:
        count: How many there are.
        logits: Tensors of one shape.
    """
    total: Tensor | None = None
    for one in logits:
        probability = one.float().sigmoid()
        total = probability if total is None else total.add_(probability)
    assert total is not None
    return torch.logit(total.div_(count), eps=CLOSEST)
