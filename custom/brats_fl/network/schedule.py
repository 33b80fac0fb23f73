"""How the trainer steps: its optimiser, the learning rate by the position in the whole study, gradient clipping."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import torch
from ignite.engine import Engine, Events
from monai.engines.utils import IterationEvents

OPTIMISERS: Final = {"adamw": torch.optim.AdamW, "sgd": torch.optim.SGD}
"""By the word of the bundle's ``optimizer_name``; the second is plain, without momentum."""


def make_optimizer(
    name: str, params: Iterable[torch.nn.Parameter], lr: float, weight_decay: float
) -> torch.optim.Optimizer:
    """An optimiser by its word.

    Raises:
        ValueError: There is no such word.
    """
    if name not in OPTIMISERS:
        raise ValueError(f"optimizer_name must be one of {', '.join(OPTIMISERS)} (got {name!r})")
    return OPTIMISERS[name](params, lr=lr, weight_decay=weight_decay)


class PolynomialDecay:
    """Learning rate = start x (1 - step / all steps) ^ power, set before every step.

    It depends on nothing but the trainer's epoch and iteration, which the federated client sets from the round:
    sites stay in step with each other, and one that missed rounds rejoins at the right rate. All steps are those of
    ``total_epochs``, which is rounds x local epochs in a federation.

    Source of power 0.9: Isensee et al. 2021, doi:10.1038/s41592-020-01008-z.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, total_epochs: int, power: float = 0.9) -> None:
        self.optimizer = optimizer
        self.total_epochs = total_epochs
        self.power = power
        self.start_rates = [group["lr"] for group in optimizer.param_groups]

    def attach(self, engine: Engine) -> None:
        """Called by the trainer."""
        engine.add_event_handler(Events.ITERATION_STARTED, self)

    def __call__(self, engine: Engine) -> None:
        """Set the rate of the step that begins."""
        steps = self.total_epochs * (engine.state.epoch_length or 1)
        left = max(1 - (engine.state.iteration - 1) / steps, 0.0)
        for group, rate in zip(self.optimizer.param_groups, self.start_rates, strict=True):
            group["lr"] = rate * left**self.power


class GradientClipping:
    """Scale the gradient to at most ``max_norm`` (global L2 norm over all parameters) before the optimiser's step."""

    def __init__(self, max_norm: float) -> None:
        if not max_norm > 0:
            raise ValueError(f"max_norm must be > 0 (got {max_norm!r})")
        self.max_norm = max_norm

    def attach(self, engine: Engine) -> None:
        """Called by the trainer."""
        engine.add_event_handler(IterationEvents.BACKWARD_COMPLETED, self)

    def __call__(self, engine: Any) -> None:
        """Clip; with a gradient scaler the gradients are unscaled first."""
        if getattr(engine, "scaler", None) is not None:
            engine.scaler.unscale_(engine.optimizer)
        torch.nn.utils.clip_grad_norm_(engine.network.parameters(), self.max_norm)
