"""Which updates are attacked: a step, a round, and the step with each protection, from two states of the network."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from brats_fl.constants import MODALITIES
from brats_fl.errors import DataListError
from brats_fl_tools.audit.inversion import Search, correlations, invert
from brats_fl_tools.audit.material import Item, Material, check_patch, cut_at_tumour
from brats_fl_tools.audit.summary import CONTROL, STATES, Attack
from brats_fl_tools.audit.updates import (
    Patch,
    Update,
    clipped_and_noised,
    compressed,
    mean_of,
    plain_step,
    trained_steps,
)


@dataclass(frozen=True)
class Plan:
    """What an audit tries."""

    patch: int
    """Voxels along each axis."""
    search: Search
    steps: int
    """Of a round."""
    hospitals: int
    """In a mean."""
    sigmas: tuple[float, ...]
    """Noise, in clipping norms."""

    @property
    def patches(self) -> int:
        """How many are needed."""
        return max(self.steps, self.hospitals)

    @property
    def attacks(self) -> int:
        """How many are made."""
        return len(STATES) * len(self.titles)

    @property
    def titles(self) -> dict[str, str]:
        """Update -> its name on the page."""
        return {
            "step": "one step, its gradient",
            "optimiser": "one step of the bundle's optimiser",
            "round": f"a round of {self.steps} steps",
            "int8": "one step, as int8",
            **{f"sigma={sigma:g}": f"one step, clipped, noise of sigma {sigma:g}" for sigma in self.sigmas},
            "mean": f"mean of {self.hospitals} hospitals' steps",
            CONTROL: "control: a step on another case",
        }


@dataclass(frozen=True)
class Target:
    """The patch that is looked for, and others that were trained on with it; the first of ``patches`` is the target."""

    case: str
    patches: tuple[Patch, ...]

    @property
    def brain(self) -> Tensor:
        """(H, W, D) integers: 1 where any of the scans is not 0."""
        return (self.patches[0][0][0] != 0).any(0).long()

    @property
    def tissues(self) -> Tensor:
        """(H, W, D) integers: another for each combination of regions in the brain, 0 outside it."""
        regions = self.patches[0][1][0].round().long()
        weights = 2 ** torch.arange(len(regions)).reshape(-1, 1, 1, 1)
        return ((regions * weights).sum(0) + 1) * self.brain


def choose_target(material: Material, items: Sequence[Item], plan: Plan) -> Target:
    """The first case's patch at the middle of its tumour, then patches of other patients, over and over if need be.

    Raises:
        CaseError: A case cannot be read, or the first has no tumour.
        DataListError: No other patient has a tumour: the second patch, which is the control, must hold nothing of the
            first one's scan.
        ModelError: The network cannot take the patch.
    """
    rng = np.random.default_rng(plan.search.seed)
    others = [item for item in items if item["patient"] != items[0]["patient"]]
    prepared = [(item["case"], *material.prepare(item)) for item in (items[0], *others[: plan.patches - 1])]
    first = cut_at_tumour(*prepared[0], plan.patch, None)
    check_patch(material.networks["start"], first)
    with_tumour = [case for case in prepared if case[2].any()]
    if len(with_tumour) < 2:
        raise DataListError(
            f"{items[0]['case']}: of no other patient there is a training case with a tumour, and the audit holds what "
            "it finds against another patient's scan; give the lists of a hospital with two"
        )
    further = [
        cut_at_tumour(*with_tumour[number % len(with_tumour)], plan.patch, rng) for number in range(1, plan.patches)
    ]
    return Target(items[0]["case"], (first, *further))


def make_updates(material: Material, network: nn.Module, target: Target, plan: Plan) -> dict[str, Update]:
    """What is sent, by the keys of ``Plan.titles``."""
    patches, loss = target.patches, material.loss
    steps = [plain_step(network, loss, patch) for patch in patches[: plan.hospitals]]
    return {
        "step": steps[0],
        "optimiser": trained_steps(network, loss, patches[:1], material.optimiser, material.max_norm),
        "round": trained_steps(network, loss, patches[: plan.steps], material.optimiser, material.max_norm),
        "int8": compressed(steps[0], "int8"),
        **{f"sigma={sigma:g}": clipped_and_noised(steps[0], sigma, plan.search.seed) for sigma in plan.sigmas},
        "mean": mean_of(steps),
        CONTROL: steps[1],
    }


def attack_all(
    material: Material, target: Target, plan: Plan, told: Callable[[str, str, int], None]
) -> Iterator[tuple[Attack, Tensor]]:
    """Each attack's figures and the image that it came to, (1, 4, H, W, D).

    Args:
        material: Of the bundle.
        target: What is looked for.
        plan: What is tried.
        told: Called with state, update and iterations done of the attack.
    """
    image, regions = target.patches[0]
    for state, network in material.networks.items():
        for name, update in make_updates(material, network, target, plan).items():
            begin = time.monotonic()
            found = invert(
                *(network, material.loss, update, regions, image.shape[1], plan.search),
                partial(told, state, name),
            )
            figures, beyond = (
                dict(zip(MODALITIES, correlations(image, found.image, parts), strict=True))
                for parts in (target.brain, target.tissues)
            )
            yield Attack(state, name, figures, beyond, found.distance, round(time.monotonic() - begin, 1)), found.image


def from_label_alone(target: Target) -> dict[str, float]:
    """Correlation of the best guess that knows the label and no update: each tissue at its own mean.

    The attacker was given the label; a rebuilt scan that correlates no better tells nothing beside it.
    """
    image, _ = target.patches[0]
    guess = torch.zeros_like(image)
    for tissue in target.tissues.unique():
        inside = target.tissues == tissue
        guess[0][:, inside] = image[0][:, inside].mean(1, keepdim=True)
    return dict(zip(MODALITIES, correlations(image, guess, target.brain), strict=True))
