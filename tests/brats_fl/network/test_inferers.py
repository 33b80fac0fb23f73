from __future__ import annotations

from typing import Any

import pytest
import torch
from monai.data import MetaTensor
from torch import Tensor

from brats_fl.network.inferers import BrainInferer, PatchInferer, combinations


class Network:
    """Three channels from four, position-dependent so that mirroring matters; notes the windows it was given."""

    def __init__(self) -> None:
        self.windows: list[tuple[int, ...]] = []

    def __call__(self, window: Tensor) -> Tensor:
        assert type(window) is Tensor  # MONAI's metadata would slow every operation down
        self.windows.append(tuple(window.shape[2:]))
        ramp = torch.arange(window.shape[2], dtype=window.dtype).reshape(1, 1, -1, 1, 1)
        return window[:, :3] * ramp + window[:, 3:]


def brain(*shape: int) -> Tensor:
    return torch.randn(1, 4, *shape, generator=torch.Generator().manual_seed(0))


def test_brain_of_the_patch_size_is_one_pass_and_gives_what_the_network_gives():
    network, image = Network(), brain(32, 48, 32)

    logits = BrainInferer([32, 48, 32], amp=False)(image, network)

    assert network.windows == [(32, 48, 32)]
    torch.testing.assert_close(logits, Network()(image))


@pytest.mark.parametrize("shape", [(33, 48, 20), (100, 16, 65), (64, 64, 64), (10, 10, 10)])
def test_every_window_is_a_training_patch_whatever_the_brain(shape: Any):
    network = Network()

    logits = BrainInferer([64, 64, 64], amp=False)(brain(*shape), network)

    assert set(network.windows) == {(64, 64, 64)}
    assert logits.shape == (1, 3, *shape)


def test_smaller_brain_is_padded_with_the_background_as_a_training_patch_is():
    image = brain(20, 32, 32)
    padded = torch.nn.functional.pad(image, (0, 0, 0, 0, 6, 6))  # 6 on both sides: 32

    logits = BrainInferer([32, 32, 32], amp=False)(image, Network())

    torch.testing.assert_close(logits, Network()(padded)[:, :, 6:26])


def test_logits_of_a_voxel_lie_between_those_of_the_training_patches_that_hold_it():
    """Of a network whose instance norm makes a voxel's logits depend on the window that it is seen in."""
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Conv3d(4, 3, 1), torch.nn.InstanceNorm3d(3))
    image = brain(48, 32, 32) * torch.linspace(0.2, 3, 48).reshape(-1, 1, 1)

    with torch.no_grad():
        logits = BrainInferer([32, 32, 32], overlap=0.5, amp=False)(image, network)
        first, second = (network(image[:, :, start : start + 32]) for start in (0, 16))
        whole = network(image)
    torch.testing.assert_close(logits[:, :, :16], first[:, :, :16])  # one window holds them
    shared, low = logits[:, :, 16:32], torch.minimum(first[:, :, 16:], second[:, :, :16])
    high = torch.maximum(first[:, :, 16:], second[:, :, :16])
    assert bool(((shared >= low - 1e-5) & (shared <= high + 1e-5)).all())
    assert float((whole[:, :, :16] - logits[:, :, :16]).abs().max()) > 0.1, "a larger window would give others"


def test_large_brain_is_covered_by_overlapping_windows():
    network = Network()

    BrainInferer([32, 32, 32], overlap=0.5, amp=False)(brain(64, 32, 32), network)

    assert network.windows == [(32, 32, 32)] * 2  # from 0, 16 and 32, two at once


def test_mirroring_averages_over_all_combinations_of_axes():
    image = brain(16, 16, 16)
    network = Network()

    logits = BrainInferer([16, 16, 16], mirror_axes=[0, 1], amp=False)(image, network)

    by_hand = [
        Network()(image),
        Network()(image.flip(2)).flip(2),
        Network()(image.flip(3)).flip(3),
        Network()(image.flip([2, 3])).flip([2, 3]),
    ]
    assert len(network.windows) == 4
    torch.testing.assert_close(logits, sum(by_hand) / 4)
    # Along the first axis the ramp 0..15 meets its mirror 15..0: every voxel gets 7.5.
    torch.testing.assert_close(logits, image[:, :3] * 7.5 + image[:, 3:])


def test_three_axes_have_seven_mirrored_images():
    assert combinations([0, 1, 2]) == [(0,), (1,), (0, 1), (2,), (0, 2), (1, 2), (0, 1, 2)]
    assert combinations([]) == []


@pytest.mark.parametrize("inferer", [PatchInferer(), BrainInferer([16, 16, 16])])
def test_logits_are_plain_float32_whatever_comes_in(inferer: Any):
    image = MetaTensor(brain(16, 16, 16))

    logits = inferer(image, torch.nn.Conv3d(4, 3, 1))

    assert logits.dtype == torch.float32
    assert logits.shape == (1, 3, 16, 16, 16)


def test_patches_go_through_the_network_as_they_are():
    patches = torch.cat([brain(16, 16, 16), brain(16, 16, 16) + 1])

    assert torch.equal(PatchInferer(amp=False)(patches, Network()), Network()(patches))
