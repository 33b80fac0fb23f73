"""Checkpoints as others save them: wrapped, prefixed, of another network, or no weights at all."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from brats_fl.errors import ModelError
from brats_fl.network.checkpoints import fit_state, left_out, read_state, read_state_for, strip_wrappers

State = Mapping[str, Tensor]


class Net(nn.Module):
    """Names begin with ``model``, as those of MONAI's UNet do."""

    def __init__(self, width: int = 2) -> None:
        super().__init__()
        self.model = nn.Sequential(nn.Linear(1, width), nn.Linear(width, 1))


class Lightning(nn.Module):
    """Keeps a network as a Lightning module does."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.net = network


def with_prefix(prefix: str) -> Callable[[nn.Module], Any]:
    return lambda network: {f"{prefix}{name}": value for name, value in network.state_dict().items()}


@pytest.fixture
def network() -> Net:
    torch.manual_seed(0)
    return Net()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "model.pt"


SAVED: dict[str, Callable[[nn.Module], Any]] = {
    "plain": nn.Module.state_dict,
    "DataParallel": lambda network: nn.DataParallel(network).state_dict(),
    "compiled": lambda network: torch.compile(network).state_dict(),
    "in a Lightning module": lambda network: {"state_dict": Lightning(network).state_dict(), "epoch": 3},
    "compiled in a Lightning module": lambda network: {"state_dict": Lightning(torch.compile(network)).state_dict()},
    "compiled, then parallel": lambda network: nn.DataParallel(torch.compile(network)).state_dict(),
    "model.": with_prefix("model."),
    "network.": with_prefix("network."),
    "module.model.": with_prefix("module.model."),
    "by FLARE": lambda network: {"model": network.state_dict(), "train_conf": {"train": {"model": "x"}}},
    "by FLARE, parallel": lambda network: {"model": nn.DataParallel(network).state_dict()},
    "with an optimiser": lambda network: {
        "model_state_dict": network.state_dict(),
        "optimizer_state_dict": torch.optim.AdamW(network.parameters()).state_dict(),
    },
    "twice wrapped": lambda network: {"state_dict": {"model": network.state_dict()}},
    "under a name of the user's": with_prefix("unet."),
    "in a Lightning module beside a loss": lambda network: {
        "state_dict": {**Lightning(network).state_dict(), "loss.weight": torch.ones(2)}
    },
    "parallel, in a module beside a metric": lambda network: {
        **nn.DataParallel(Lightning(network)).state_dict(),
        "module.metric.total": torch.zeros(1),
    },
    "by nnU-Net": lambda network: {"network_weights": network.state_dict(), "current_epoch": 7},
}


@pytest.mark.parametrize("saved", SAVED)
def test_weights_are_found_whatever_they_were_wrapped_in(network: Net, file: Path, saved: str):
    torch.save(SAVED[saved](network), file)

    state = read_state_for(file, Net())

    assert state.keys() == network.state_dict().keys()
    assert all(torch.equal(value, network.state_dict()[name]) for name, value in state.items())


def test_what_is_left_out_beside_the_network_can_be_told(network: Net):
    state = {**Lightning(network).state_dict(), "loss.weight": torch.ones(2)}

    assert left_out(state, fit_state(state, Net())) == ["loss.weight"]


def test_network_that_is_there_twice_is_refused_as_none_of_the_two_is_said_to_be_meant(network: Net, file: Path):
    torch.save({**with_prefix("student.")(network), **with_prefix("teacher.")(Net())}, file)

    with pytest.raises(ModelError, match=r"more than once, also at teacher\.model\.0\.weight; save one of them alone"):
        read_state_for(file, Net())


def test_names_that_are_the_networks_own_are_not_stripped(network: Net):
    assert strip_wrappers(network.state_dict(), network.state_dict().keys()).keys() == network.state_dict().keys()


def test_weights_of_another_network_are_refused_with_the_first_names_that_differ(network: Net, file: Path):
    state = dict(network.state_dict())
    del state["model.1.bias"]
    torch.save({**state, "model.7.weight": torch.zeros(1)}, file)

    with pytest.raises(ModelError) as caught:
        read_state_for(file, network)

    assert str(caught.value) == (
        f"{file}: these are parameters of another network; 1 of 4 are missing: model.1.bias; "
        "1 are unknown: model.7.weight; use the bundle and profile that they were trained with"
    )


def test_prefixed_weights_of_another_size_are_refused_by_their_shapes_and_not_by_their_names(file: Path):
    torch.save(nn.DataParallel(Net(width=3)).state_dict(), file)

    with pytest.raises(ModelError, match=r"3 have another shape: model\.0\.weight \(3, 1\) in place of \(2, 1\)"):
        read_state_for(file, Net(width=2))


def test_of_many_names_three_are_shown(file: Path):
    torch.save({f"part.{number}": torch.zeros(1) for number in range(9)}, file)

    with pytest.raises(ModelError, match=r"9 are unknown: part\.0, part\.1, part\.2 and 6 more"):
        read_state_for(file, Net())


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ({}, "holds no state dict"),
        ({"model": {}}, "holds no state dict"),
        ({"epoch": 3}, "holds no state dict; expected parameters, plain or under one of model, state_dict, "),
        ([torch.zeros(1)], "holds no state dict"),
        ({"model": {"a": torch.zeros(1)}, "net": {"a": torch.ones(1)}}, "has state dicts under 'model' and 'net'"),
        (
            {"model": {"a": Fraction(1, 2)}},
            "holds other Python objects, too, which are not loaded because",
        ),
        (Net(), "holds other Python objects, too, .* save the state dict alone"),
    ],
)
def test_file_without_one_state_dict_is_refused(file: Path, content: Any, problem: str):
    torch.save(content, file)

    with pytest.raises(ModelError, match=problem):
        read_state(file)


def write_text(file: Path) -> None:
    file.write_bytes(b"<html>please log in</html>")


def write_half(file: Path) -> None:
    torch.save(Net().state_dict(), file)
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def write_program(file: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.save(torch.jit.script(nn.Linear(1, 1)), file)


def write_arrays(file: Path) -> None:
    with file.open("wb") as place:
        np.savez(place, weight=np.zeros(1))


@pytest.mark.parametrize(
    ("write", "problem"),
    [
        (write_text, "is no checkpoint of weights, or holds other Python objects"),
        (Path.touch, "is empty, 0 bytes; copy the checkpoint again"),
        (write_half, "is cut short or damaged; copy the checkpoint again"),
        (write_program, "is a TorchScript program, .*; save the state dict alone"),
        (write_arrays, "is an archive of other things, .*; save the state dict alone"),
    ],
)
def test_file_that_is_no_checkpoint_is_refused_for_what_it_is_and_without_a_warning_of_torch(
    file: Path, write: Callable[[Path], None], problem: str
):
    write(file)

    with pytest.raises(ModelError, match=rf"model\.pt: {problem}"):
        read_state(file)
