"""SCAFFOLD: each site corrects every local step by how its own gradient differs from that of all sites.

Source: Karimireddy et al. 2020, "SCAFFOLD: Stochastic Controlled Averaging for Federated Learning" (arXiv 1910.06378),
algorithm 1 with option II: a local step goes along g - c_i + c; after the round c_i <- c_i - c + (w_sent - w_local) /
(sum of the learning rates of its steps). That is the site's mean gradient for plain SGD only: the job must set
``optimizer_name`` to ``sgd``, and a clipped gradient counts as clipped.

Differs from the paper in what the server makes of it: c is the mean of the controls that came in this round, weighted
as the updates are, and not the sum of their changes, which a refused or lost update would bend for good.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

import numpy as np

from brats_fl.aggregation import weighted_mean
from brats_fl.algorithms import Contribution, LocalRun, Settings
from brats_fl.algorithms.fedavg import server_update as mean_update
from brats_fl.exchange import Payloads, Weights
from brats_fl.settings import Setting

if TYPE_CHECKING:
    import torch

SETTINGS: Final = {"server_rate": Setting(1.0, "step of the server along the mean update", above=0, maximum=10)}

NEEDS_MEAN_ONLY: Final = True
CONTROL: Final = "control"
SENT: Final = (CONTROL,)


def server_state(model: Weights, settings: Settings) -> Payloads:
    """Controls of zero: the first round is one of federated averaging."""
    return {CONTROL: {name: np.zeros_like(value, np.float32) for name, value in model.items()}}


def broadcast(state: Payloads, settings: Settings) -> Payloads:
    """The control of all sites."""
    return {CONTROL: state[CONTROL]}


def local_term(
    weight: torch.Tensor,
    start: torch.Tensor,
    received: Mapping[str, torch.Tensor],
    own: Mapping[str, torch.Tensor],
    settings: Settings,
) -> torch.Tensor:
    """Control of all sites minus the site's own, which is zero before its first round."""
    return received[CONTROL] - own[CONTROL] if own else received[CONTROL]


def client_update(run: LocalRun, received: Payloads, own: Payloads, settings: Settings) -> tuple[Payloads, Payloads]:
    """The site's new control, kept and sent."""
    rates = np.float32(run.learning_rate_sum)
    control = {
        name: (own[CONTROL][name] if own else 0) - received[CONTROL][name] + (run.start[name] - trained) / rates
        for name, trained in run.trained.items()
    }
    return {CONTROL: control}, {CONTROL: control}


def server_update(
    model: Weights, state: Payloads, contributions: Sequence[Contribution], settings: Settings
) -> tuple[Weights, Payloads]:
    """A step along the mean update; the control of all sites is the mean of theirs."""
    mean, _ = mean_update(model, state, contributions, settings)
    control = weighted_mean([(part.payloads[CONTROL], part.weight) for part in contributions])
    return {name: np.float32(settings["server_rate"]) * value for name, value in mean.items()}, {CONTROL: control}
