"""Which parameters of a network are shared."""

from __future__ import annotations

import numpy as np
import torch

from brats_fl.exchange import load_shared, shared_keys, shared_weights


def test_all_parameters_are_shared_in_the_order_of_the_network():
    network = torch.nn.Linear(2, 1)

    assert shared_keys(network) == ("weight", "bias")
    assert {name: value.shape for name, value in shared_weights(network).items()} == {"weight": (1, 2), "bias": (1,)}


def test_loaded_weights_are_copies_and_what_is_not_loaded_stays():
    network = torch.nn.Linear(2, 1)
    before = network.bias.item()
    weights = {"weight": np.ones((1, 2), np.float32)}

    load_shared(network, weights)
    weights["weight"][:] = 9

    assert network.weight.tolist() == [[1.0, 1.0]]
    assert network.bias.item() == before
