"""FedProx: local training is held near the model that was sent, so that many local steps do not drift apart.

Source: Li et al. 2020, "Federated Optimization in Heterogeneous Networks" (arXiv 1812.06127), equation 2: each site
minimises its loss plus mu / 2 times the squared distance to the global model; the gradient of that is
mu * (w - w_global). The server averages as in ``fedavg``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from brats_fl.algorithms import Settings
from brats_fl.algorithms.fedavg import NEEDS_MEAN_ONLY, server_update
from brats_fl.settings import Setting

if TYPE_CHECKING:
    import torch

__all__ = ["NEEDS_MEAN_ONLY", "SETTINGS", "local_term", "server_update"]

SETTINGS: Final = {"mu": Setting(0.01, "pull to the model that was sent", minimum=0, maximum=10)}


def local_term(
    weight: torch.Tensor,
    start: torch.Tensor,
    received: Mapping[str, torch.Tensor],
    own: Mapping[str, torch.Tensor],
    settings: Settings,
) -> torch.Tensor:
    """``mu`` times the way from the model that was sent."""
    return settings["mu"] * (weight - start)
