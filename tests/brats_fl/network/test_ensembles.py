"""Several networks as one: the mean of their probabilities, each with its own window, and one sum in memory."""

from __future__ import annotations

import math
import weakref
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from brats_fl.errors import ModelError
from brats_fl.network.checkpoints import WeightsLoader
from brats_fl.network.ensembles import Ensemble, EnsembleInferer, mean_logits


class Constant(nn.Module):
    """The same logit everywhere; remembers the windows that it was shown."""

    def __init__(self, logit: float) -> None:
        super().__init__()
        self.logit = nn.Parameter(torch.tensor(logit))
        self.windows: set[tuple[int, ...]] = set()

    def forward(self, image: Tensor) -> Tensor:
        self.windows.add(tuple(image.shape[2:]))
        return self.logit.expand(len(image), 3, *image.shape[2:])


def test_mean_is_of_probabilities_and_not_of_logits():
    network = Ensemble([Constant(0.0), Constant(math.log(3))])  # probabilities 1/2 and 3/4: mean 5/8

    logits = EnsembleInferer([[32, 32, 32], [32, 32, 32]], amp=False)(torch.zeros(1, 4, 32, 32, 32), network)

    assert logits.shape == (1, 3, 32, 32, 32)
    torch.testing.assert_close(logits.sigmoid(), torch.full((1, 3, 32, 32, 32), 0.625))


def test_probabilities_of_0_and_1_stay_finite_as_logits():
    sure = mean_logits(2, (torch.full((2,), sign * 90.0) for sign in (1, 1)))

    assert torch.isfinite(sure).all()
    assert (sure.sigmoid() > 0.99999).all()


def test_each_network_is_shown_windows_of_its_own_training_patch():
    first, second = Constant(0.0), Constant(0.0)

    EnsembleInferer([[32, 32, 32], [48, 48, 48]], amp=False)(torch.zeros(1, 4, 64, 64, 64), Ensemble([first, second]))

    assert (first.windows, second.windows) == ({(32, 32, 32)}, {(48, 48, 48)})


def test_output_of_a_network_is_gone_before_the_next_one_is_made():
    alive: list[int] = []
    made: list[weakref.ref[Tensor]] = []

    def outputs() -> Iterator[Tensor]:
        for _ in range(4):
            alive.append(sum(output() is not None for output in made))
            logits = torch.zeros(8)
            made.append(weakref.ref(logits))
            yield logits
            del logits

    mean_logits(4, outputs())

    assert max(alive) <= 1  # the one that the loop still names


def test_weights_are_loaded_into_the_networks_in_their_order(tmp_path):
    for number in (1, 2):
        torch.save({"logit": torch.tensor(float(number))}, tmp_path / f"{number}.pt")
    network = Ensemble([Constant(0.0), Constant(0.0)])

    WeightsLoader([tmp_path / "1.pt", tmp_path / "2.pt"], network)(None)

    assert [member.logit.item() for member in network.members] == [1.0, 2.0]
    with pytest.raises(ModelError, match=r"2 networks want as many checkpoints \(got 1\)"):
        WeightsLoader(tmp_path / "1.pt", network)
