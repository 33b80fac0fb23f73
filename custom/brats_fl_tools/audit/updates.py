"""What leaves a hospital after a step or a round, as itself and with each protection: updates of named tensors."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

import torch
from torch import Tensor, nn

from brats_fl.compression import Compression, as_it_arrives

Patch: TypeAlias = tuple[Tensor, Tensor]
"""Image (1, C, H, W, D) and regions (1, R, H, W, D), float32."""

Loss: TypeAlias = Callable[[Tensor, Tensor], Tensor]
Update: TypeAlias = dict[str, Tensor]
Optimiser: TypeAlias = Callable[[nn.Module], torch.optim.Optimizer]


def plain_step(network: nn.Module, loss: Loss, patch: Patch) -> Update:
    """The negative gradient of a patch: a step of plain gradient descent at rate 1, with nothing hidden in it."""
    names, parameters = zip(*network.named_parameters(), strict=True)
    image, regions = patch
    gradient = torch.autograd.grad(loss(network(image), regions), parameters)
    return {name: -value for name, value in zip(names, gradient, strict=True)}


def trained_steps(
    network: nn.Module, loss: Loss, patches: Sequence[Patch], optimiser: Optimiser, max_norm: float
) -> Update:
    """Update of a round in which each patch is a step of the bundle's optimiser, its gradient clipped as there.

    Args:
        network: Stays as it is.
        loss: Of training.
        patches: One a step.
        optimiser: Makes a fresh one, as every round does.
        max_norm: Global norm that a gradient is scaled to at most.
    """
    trained = copy.deepcopy(network)
    stepper = optimiser(trained)
    for image, regions in patches:
        stepper.zero_grad()
        loss(trained(image), regions).backward()
        torch.nn.utils.clip_grad_norm_(trained.parameters(), max_norm)
        stepper.step()
    before = dict(network.named_parameters())
    return {name: (value - before[name]).detach() for name, value in trained.named_parameters()}


def clipped_and_noised(update: Mapping[str, Tensor], sigma: float, seed: int) -> Update:
    """An update of norm 1 with Gaussian noise of deviation ``sigma`` on every number.

    It is what a step of DP-SGD on one patient sends, in units of the clipping norm, where the gradient is as long as
    that; a shorter one hides better (Abadi et al. 2016, arXiv 1607.00133). The noise here is drawn from a seed, so that
    the audit can be done again: it protects nobody.
    """
    generator = torch.Generator().manual_seed(seed)
    length = float(torch.linalg.vector_norm(torch.cat([value.flatten() for value in update.values()])))
    return {
        name: value / max(length, 1e-20) + sigma * torch.randn(value.shape, generator=generator)
        for name, value in update.items()
    }


def compressed(update: Mapping[str, Tensor], how: Compression) -> Update:
    """An update as the server reads it after it travelled compressed."""
    arrived = as_it_arrives({name: value.numpy() for name, value in update.items()}, how)
    return {name: torch.from_numpy(value.copy()) for name, value in arrived.items()}


def mean_of(updates: Sequence[Mapping[str, Tensor]]) -> Update:
    """Mean of some hospitals' updates: all that secure aggregation shows."""
    return {name: torch.stack([update[name] for update in updates]).mean(0) for name in updates[0]}
