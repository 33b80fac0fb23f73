"""Gradient inversion: the scan that an update was trained on, looked for as one that gives the same gradient.

The attacker is a strong one: it knows the network, the weights before the step, the loss, the patch's size and its
label, and gets the update alone. It is no proof that nobody can do better.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

Loss = Callable[[Tensor, Tensor], Tensor]
"""Logits and regions, (1, R, H, W, D) both, to a scalar."""

Update = Mapping[str, Tensor]
"""Name of a parameter -> trained value less the one before."""

RATE_FALLS_AFTER: Final = (3 / 8, 5 / 8, 7 / 8)
"""Shares of the iterations after which the rate is a tenth: Geiping et al. 2020, appendix."""

SMALLEST_LENGTH: Final = 1e-9
"""Below it a correlation is of rounding errors."""


@dataclass(frozen=True)
class Search:
    """How a scan is looked for."""

    iterations: int
    """Of each start."""
    restarts: int
    """Starts from other noise; the one whose gradient agrees best is taken."""
    seed: int = 0
    rate: float = 0.1
    """Of Adam on the signs of the gradient, in standard deviations of a scan."""
    total_variation: float = 0.1
    """Weight of the mean step between neighbouring voxels beside the cosine distance. With 0.001 a step of the small
    UNet gave a mean correlation of .39, with 0.1 one of .57."""


@dataclass(frozen=True)
class Rebuilt:
    """What an attack came to."""

    image: Tensor
    """(1, C, H, W, D) float32."""
    distance: float
    """1 less the cosine of its gradient with the update's; 0 where they agree."""


def invert(
    network: nn.Module,
    loss: Loss,
    update: Update,
    regions: Tensor,
    channels: int,
    search: Search,
    told: Callable[[int], None] = lambda _: None,
) -> Rebuilt:
    """The image whose gradient has the direction of an update, the best of some starts from noise.

    Args:
        network: With the weights before the step; in training mode where training was.
        loss: Of training.
        update: What left the hospital; of any length, its direction alone counts.
        regions: The patch's label, (1, R, H, W, D), which the attacker is given.
        channels: Of the image.
        search: Iterations, starts and seed; the same give the same image.
        told: Called with the number of iterations done, over all starts.

    Source: Geiping et al. 2020, arXiv 2003.14053: cosine distance of the gradients, total variation, signed steps.
    """
    generator = torch.Generator().manual_seed(search.seed)
    found = []
    for start in range(search.restarts):
        noise = torch.randn((1, channels, *regions.shape[2:]), generator=generator)
        distance = partial(distance_of, network, loss, update, regions=regions)
        found.append(_descend(distance, noise.to(regions.device), search, told, start * search.iterations))
    return min(found, key=lambda one: one.distance)


def _descend(
    distance_from: Callable[[Tensor], Tensor], start: Tensor, search: Search, told: Callable[[int], None], before: int
) -> Rebuilt:
    image = start.clone().requires_grad_()
    optimiser = torch.optim.Adam([image], lr=search.rate)
    falls = [round(share * search.iterations) for share in RATE_FALLS_AFTER]
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimiser, falls)
    best = Rebuilt(image.detach().clone(), float("inf"))
    for done in range(1, search.iterations + 1):
        distance = distance_from(image)
        if float(distance.detach()) < best.distance:
            best = Rebuilt(image.detach().clone(), float(distance.detach()))
        total = distance + search.total_variation * total_variation(image)
        image.grad = torch.sign(torch.autograd.grad(total, image)[0])
        optimiser.step()
        schedule.step()
        told(before + done)
    return best


def distance_of(network: nn.Module, loss: Loss, update: Update, image: Tensor, regions: Tensor) -> Tensor:
    """1 less the cosine between the downhill direction of an image's loss and an update: 0 to 2, scalar."""
    named = {name: parameter for name, parameter in network.named_parameters() if name in update}
    gradient = torch.autograd.grad(loss(network(image), regions), list(named.values()), create_graph=True)
    sent = [update[name] for name in named]
    product = sum(((one * other).sum() for one, other in zip(gradient, sent, strict=True)), torch.zeros(()))
    return 1 + product / (_length(gradient) * _length(sent)).clamp_min(1e-20)


def _length(arrays: Sequence[Tensor]) -> Tensor:
    return sum(((one**2).sum() for one in arrays), torch.zeros(())).clamp_min(1e-30).sqrt()


def total_variation(image: Tensor) -> Tensor:
    """Mean absolute step between neighbours along each spatial axis of (1, C, H, W, D), added up."""
    steps = [image.diff(dim=axis).abs().mean() for axis in range(2, image.ndim) if image.shape[axis] > 1]
    return sum(steps, torch.zeros(()))


def correlations(truth: Tensor, rebuilt: Tensor, parts: Tensor) -> tuple[float, ...]:
    """Correlation of each channel over some parts, the mean of each part taken out of both.

    With the brain as one part it is Pearson's: brightness and contrast do not count. With a part a tissue it is what
    was rebuilt beyond the label.

    Args:
        truth: (1, C, H, W, D).
        rebuilt: Same shape.
        parts: (H, W, D) integers: voxels of a part have the same, above 0; what is 0 is left out.

    Returns:
        One number a channel, -1 to 1; 0.0 where one of both is constant in each part.
    """
    inside = parts > 0
    images = (image[0][:, inside].double().numpy() for image in (truth, rebuilt))
    first, second = (_without_means(values, parts[inside].numpy()) for values in images)
    return tuple(_cosine(one, other) for one, other in zip(first, second, strict=True))


def _without_means(values: npt.NDArray[np.float64], parts: npt.NDArray[np.integer]) -> npt.NDArray[np.float64]:
    left = values.copy()
    for part in np.unique(parts):
        left[:, parts == part] -= left[:, parts == part].mean(axis=1, keepdims=True)
    return left


def _cosine(one: npt.NDArray[np.float64], other: npt.NDArray[np.float64]) -> float:
    lengths = float(np.linalg.norm(one) * np.linalg.norm(other))
    return float(one @ other) / lengths if lengths > SMALLEST_LENGTH else 0.0
