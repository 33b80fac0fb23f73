"""Checkpoints of weights: read them, and load them into the network they were made for and no other."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine, Events

from brats_fl.aggregation import check_update
from brats_fl.errors import ModelError
from brats_fl.files import write_whole


def read_state(path: Path) -> dict[str, torch.Tensor]:
    """Parameters of a checkpoint, plain or under the key ``model``, on the CPU.

    Raises:
        ModelError: The file is missing or no checkpoint.
    """
    try:
        content: Any = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise ModelError(f"{path}: no such checkpoint") from None
    except Exception as error:  # torch, zipfile and pickle each raise their own
        raise ModelError(f"{path}: is no checkpoint of weights ({type(error).__name__})") from error
    state = content.get("model", content) if isinstance(content, dict) else None
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise ModelError(f"{path}: holds no state dict; expected parameters, plain or under the key 'model'")
    return state


def save_whole(path: Path, content: Mapping[str, Any]) -> None:
    """Write a checkpoint; the file appears whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # Through memory: of a full disk torch says things like "unexpected pos 64 vs 0", Python says that it is full.
    file = io.BytesIO()
    torch.save(content, file)
    write_whole(path, file.getbuffer())


def check_state(state: Mapping[str, torch.Tensor], network: torch.nn.Module) -> None:
    """Raise ``ModelError`` unless a state has exactly a network's keys and shapes, and finite values."""
    check_update(
        {name: value.numpy(force=True) for name, value in state.items()},
        {name: value.numpy(force=True) for name, value in network.state_dict().items()},
    )


class WeightsLoader:
    """Engine handler that loads a checkpoint into the network when the engine starts.

    MONAI's ``CheckpointLoader`` answers weights of another network with a list of every key; this names the file, the
    first key that differs and the mend.

    Args:
        load_path: Checkpoint, parameters plain or under the key ``model``.
        network: Network to load into, wherever it lies.

    Raises:
        ModelError: When called: the file is missing, is no checkpoint, or does not fit the network.
    """

    def __init__(self, load_path: str | Path, network: torch.nn.Module) -> None:
        self.load_path = Path(load_path)
        self.network = network

    def attach(self, engine: Engine) -> None:
        """Called by the engine."""
        engine.add_event_handler(Events.STARTED, self)

    def __call__(self, engine: Engine) -> None:
        """Load."""
        state = read_state(self.load_path)
        try:
            check_state(state, self.network)
        except ModelError as error:
            raise ModelError(f"{self.load_path}: {error}") from None
        self.network.load_state_dict(state)
