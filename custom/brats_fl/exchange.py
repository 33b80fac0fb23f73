"""What travels between server and sites: named payloads of named arrays; and which of a network's parameters do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import torch

Array = npt.NDArray[np.floating]

Weights = Mapping[str, Array]
"""Name of a parameter -> its values, or their change."""

Payloads = Mapping[str, Weights]
"""Name of what travels -> its arrays."""

WEIGHTS: Final = "weights"
"""The payload that every algorithm has: the model on its way to a site, its change on the way back."""


MASKED: Final = "masked"
"""In the place of an update in secure aggregation: words that mean nothing without the other hospitals'."""


def shared_keys(network: torch.nn.Module) -> tuple[str, ...]:
    """Names of the parameters that sites share and the server averages: today all of them.

    Server and sites both ask here, and nowhere else is it decided.
    """
    return tuple(network.state_dict())


def shared_weights(network: torch.nn.Module) -> dict[str, Array]:
    """The network's shared parameters on the CPU; on a CPU they are the network's own memory, not copies."""
    state = network.state_dict()
    return {name: state[name].numpy(force=True) for name in shared_keys(network)}


def load_shared(network: torch.nn.Module, weights: Weights) -> None:
    """Put shared parameters into a network and leave its others as they are; keys and shapes were checked before."""
    import torch

    network.load_state_dict({name: torch.tensor(np.asarray(value)) for name, value in weights.items()}, strict=False)
