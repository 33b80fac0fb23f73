"""Handlers of MONAI's engines."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from monai.handlers import IgniteMetricHandler

from brats_fl.scoring.metrics import RegionDice


class RegionDiceHandler(IgniteMetricHandler):
    """Mean Dice over the cases of an epoch, in ``engine.state.metrics`` under the name it is attached by.

    The rows per case, (N, 3) or (N, 1) for one region, are in ``engine.state.metric_details``.

    Args:
        region: ``tc``, ``wt`` or ``et``; None for the mean of the three.
        output_transform: From the engine's output to binary ``(pred, label)``, each (B, 3, H, W, D) or a list
            of (3, H, W, D), as ``monai.handlers.from_engine(["pred", "label"])`` gives.

    Raises:
        ValueError: There is no such region.
    """

    def __init__(
        self, region: str | None = None, output_transform: Callable[[Any], Any] = lambda output: output
    ) -> None:
        super().__init__(metric_fn=RegionDice(region), output_transform=output_transform)
