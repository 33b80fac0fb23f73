"""Checkpoints of weights: read them, and load them into the network they were made for and no other."""

from __future__ import annotations

import io
import warnings
import zipfile
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import torch
from ignite.engine import Engine, Events

from brats_fl.aggregation import check_update
from brats_fl.errors import ModelError, UnfitError
from brats_fl.files import write_whole
from brats_fl.network.ensembles import Ensemble

WRAPPED_UNDER: Final = ("model", "state_dict", "model_state_dict", "net", "network", "network_weights")
"""Keys under which trainers keep a state dict: FLARE and MONAI, Lightning, hand-written loops, nnU-Net."""

WRAPPERS: Final = ("module", "model", "net", "network")
"""What stands in front of every parameter's name when a network was wrapped: DataParallel's ``module``, and the names
under which Lightning modules and hand-written classes keep a network."""

SHOWN_NAMES: Final = 3

ZIP_BEGIN: Final = b"PK\x03\x04"
"""First bytes of what ``torch.save`` writes: an archive."""

SAVE_STATE: Final = "save the state dict alone, torch.save({}.state_dict(), ...)"
"""The mend for whatever else was saved."""


def read_state(path: Path) -> dict[str, torch.Tensor]:
    """Parameters of a checkpoint, plain or under one of ``WRAPPED_UNDER``, on the CPU, as they are named there.

    Raises:
        ModelError: The file is missing or no checkpoint, or holds two state dicts.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what torch warns of is refused in our words
            content: Any = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise ModelError(f"{path}: no such checkpoint") from None
    except OSError as error:
        raise ModelError(f"{path}: cannot be read ({error.strerror or error})") from error
    except Exception as error:  # torch, pickle and zipfile each raise their own
        raise ModelError(f"{path}: {_why_unreadable(path)}") from error
    return _unwrap(path, content)


def _why_unreadable(path: Path) -> str:
    """Why torch does not load a file as weights, by what the file is."""
    with path.open("rb") as file:
        begin = file.read(len(ZIP_BEGIN))
    if not begin:
        return "is empty, 0 bytes; copy the checkpoint again"
    names = _names_in(path)
    if begin == ZIP_BEGIN and names is None:
        return "is cut short or damaged; copy the checkpoint again"
    parts = {name.rpartition("/")[2] for name in names or ()}
    if "constants.pkl" in parts:
        return f"is a TorchScript program, no checkpoint of weights; {SAVE_STATE.format('torch.jit.load(...)')}"
    if begin == ZIP_BEGIN and "data.pkl" not in parts:
        return f"is an archive of other things, no checkpoint of weights; {SAVE_STATE.format('network')}"
    return (
        "is no checkpoint of weights, or holds other Python objects, too, which are not loaded because that may run "
        f"code; {SAVE_STATE.format('network')}"
    )


def _names_in(path: Path) -> list[str] | None:
    """Names of an archive's files; None where it is none that can be read."""
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.namelist()
    except Exception:  # of a damaged one zipfile raises half a dozen kinds
        return None


def _unwrap(path: Path, content: Any) -> dict[str, torch.Tensor]:
    if _is_state(content):
        return dict(content)
    kept = content if isinstance(content, Mapping) else {}
    found = [key for key in WRAPPED_UNDER if isinstance(kept.get(key), Mapping)]
    if len(found) != 1:
        has = f"has state dicts under {' and '.join(map(repr, found))}" if found else "holds no state dict"
        raise ModelError(f"{path}: {has}; expected parameters, plain or under one of {', '.join(WRAPPED_UNDER)}")
    return _unwrap(path, kept[found[0]])


def _is_state(content: Any) -> bool:
    return (
        isinstance(content, Mapping)
        and bool(content)
        and all(isinstance(name, str) and isinstance(value, torch.Tensor) for name, value in content.items())
    )


def read_state_for(path: Path, network: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Parameters of a checkpoint as a network names them, whatever it was wrapped in when they were saved.

    Raises:
        ModelError: As ``read_state``, or they are those of another network.
    """
    try:
        return fit_state(read_state(path), network)
    except UnfitError as error:
        raise ModelError(f"{path}: {error}") from None


def fit_state(state: Mapping[str, torch.Tensor], network: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Parameters as a network names them, whatever it was wrapped in when they were saved.

    Raises:
        UnfitError: They are those of another network, of two of its kind, or not finite.
    """
    own = strip_wrappers(state, network.state_dict().keys())
    check_state(own, network)
    first = next(iter(own))
    if again := [name for name in left_out(state, own) if name.endswith(f".{first}")]:  # such as a running mean
        raise UnfitError(f"holds this network more than once, also at {first_of(again)}; save one of them alone", 0)
    return own


def strip_wrappers(state: Mapping[str, torch.Tensor], names: Collection[str]) -> dict[str, torch.Tensor]:
    """A state without what wrappers put in front of its names, as far as that makes more of them a network's.

    Where one of several names in front has a whole network behind it, the rest is left out: Lightning saves the
    parameters of losses and metrics beside ``net.*``.

    Args:
        state: Parameters by the names in a checkpoint.
        names: The network's own. They may begin with ``model`` themselves, as those of MONAI's UNet do.
    """
    known = set(names)
    # torch.compile wraps parts of a network, too: net._orig_mod.model.0.conv.weight.
    stripped = {".".join(part for part in name.split(".") if part != "_orig_mod"): state[name] for name in state}
    forms = [dict(state), stripped]
    while len(heads := _heads(stripped)) == 1 and heads <= set(WRAPPERS):
        stripped = _under(stripped, *heads)
        forms.append(stripped)
    whole = [head for head in sorted(_heads(stripped)) if _under(stripped, head).keys() == known]
    forms += [_under(stripped, head) for head in whole]
    return max(forms, key=lambda form: len(known & form.keys()))  # of two that are as good the first


def _heads(state: Mapping[str, torch.Tensor]) -> set[str]:
    return {name.partition(".")[0] for name in state}


def _under(state: Mapping[str, torch.Tensor], head: str) -> dict[str, torch.Tensor]:
    return {name.partition(".")[2]: value for name, value in state.items() if name.partition(".")[0] == head}


def left_out(state: Mapping[str, torch.Tensor], kept: Mapping[str, torch.Tensor]) -> list[str]:
    """Names in a checkpoint of what ``fit_state`` did not keep of it: a loss or a metric beside the network."""
    own = {id(value) for value in kept.values()}
    return [name for name, value in state.items() if id(value) not in own]


def save_whole(path: Path, content: Mapping[str, Any]) -> None:
    """Write a checkpoint; the file appears whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # Through memory: of a full disk torch says things like "unexpected pos 64 vs 0", Python says that it is full.
    file = io.BytesIO()
    torch.save(content, file)
    write_whole(path, file.getbuffer())


def check_state(state: Mapping[str, torch.Tensor], network: torch.nn.Module) -> None:
    """Raise ``UnfitError`` unless a state has exactly a network's keys and shapes, and finite values."""
    expected = network.state_dict()
    differences = {
        f"of {len(expected)} are missing": [name for name in expected if name not in state],
        "are unknown": [name for name in state if name not in expected],
        "have another shape": [
            f"{name} {tuple(state[name].shape)} in place of {tuple(value.shape)}"
            for name, value in expected.items()
            if name in state and state[name].shape != value.shape
        ],
    }
    found = [f"{len(names)} {what}: {first_of(names)}" for what, names in differences.items() if names]
    if found:
        raise UnfitError(
            f"these are parameters of another network; {'; '.join(found)}; use the bundle and profile that they were "
            "trained with",
            sum(map(len, differences.values())),
        )
    try:
        check_update(
            {name: value.numpy(force=True) for name, value in state.items()},
            {name: value.numpy(force=True) for name, value in expected.items()},
        )
    except ModelError as error:
        raise UnfitError(str(error), 0) from None


def first_of(names: Sequence[str]) -> str:
    """Some of the names, and how many more there are."""
    rest = f" and {len(names) - SHOWN_NAMES} more" if len(names) > SHOWN_NAMES else ""
    return ", ".join(names[:SHOWN_NAMES]) + rest


class WeightsLoader:
    """Engine handler that loads a checkpoint into the network when the engine starts.

    MONAI's ``CheckpointLoader`` answers weights of another network with a list of every key; this names the file, the
    first names that differ and the mend.

    Args:
        load_path: Checkpoint, as ``read_state_for`` takes it; of an ``Ensemble`` a list of them, one for each member.
        network: Network to load into, wherever it lies.

    Raises:
        ModelError: There are more or fewer checkpoints than networks. When called: a file is missing, is no checkpoint,
            or does not fit its network.
    """

    def __init__(self, load_path: str | Path | Sequence[str | Path], network: torch.nn.Module) -> None:
        paths = [load_path] if isinstance(load_path, (str, Path)) else load_path
        self.load_paths = [Path(path) for path in paths]
        self.networks = [*network.members] if isinstance(network, Ensemble) else [network]
        if len(self.load_paths) != len(self.networks):
            raise ModelError(f"{len(self.networks)} networks want as many checkpoints (got {len(self.load_paths)})")

    def attach(self, engine: Engine) -> None:
        """Called by the engine."""
        engine.add_event_handler(Events.STARTED, self)

    def __call__(self, engine: Engine) -> None:
        """Load."""
        for path, network in zip(self.load_paths, self.networks, strict=True):
            network.load_state_dict(read_state_for(path, network))
