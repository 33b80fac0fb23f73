from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from monai.networks.nets import DynUNet
from torch import nn

from brats_fl.bundle import build_network
from brats_fl.network.deep_supervision import DeeplySupervisedDynUNet, StackedDeepSupervisionLoss, own_resolutions
from brats_fl.network.losses import DiceBCELoss
from brats_fl_tools.repository import BUNDLES

ARGUMENTS: dict[str, Any] = {
    "spatial_dims": 3,
    "in_channels": 4,
    "out_channels": 3,
    "kernel_size": [3, 3, 3, 3],
    "strides": [1, 2, 2, 2],
    "upsample_kernel_size": [2, 2, 2],
    "filters": [4, 6, 8, 10],
    "deep_supr_num": 2,
}


def make_both() -> tuple[DynUNet, DeeplySupervisedDynUNet]:
    """MONAI's network and ours, from the same random stream."""
    networks = []
    for make in (lambda: DynUNet(**ARGUMENTS, deep_supervision=True), lambda: DeeplySupervisedDynUNet(**ARGUMENTS)):
        torch.manual_seed(0)
        networks.append(make())
    return networks[0], networks[1]


class Distance(nn.Module):
    """Mean of logits minus target."""

    def forward(self, logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return (logits - target).mean()


@pytest.mark.parametrize(("training", "shape"), [(True, (2, 3, 3, 16, 16, 32)), (False, (2, 3, 16, 16, 32))])
def test_output_is_that_of_monais_network(training, shape):
    theirs, ours = make_both()
    patches = torch.randn(2, 4, 16, 16, 32)

    expected, got = theirs.train(training)(patches), ours.train(training)(patches)

    assert got.shape == shape
    assert torch.equal(got, expected)


def test_every_parameter_has_one_name_and_it_is_monais():
    theirs, ours = make_both()

    names = set(ours.state_dict())
    assert names == {name for name in theirs.state_dict() if not name.startswith("skip_layers.")}
    assert len(theirs.state_dict()) > len(names)
    values = [value.data_ptr() for value in ours.state_dict().values()]
    assert len(set(values)) == len(values)


def test_weights_of_the_heads_are_in_the_state_and_learn_from_a_step():
    _, ours = make_both()
    target = torch.zeros(1, 3, 16, 16, 32)

    StackedDeepSupervisionLoss(DiceBCELoss())(ours.train()(torch.randn(1, 4, 16, 16, 32)), target).backward()

    heads = [name for name in ours.state_dict() if name.startswith("deep_supervision_heads.")]
    assert len(heads) == 2 * 2  # weight and bias of two heads
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in ours.deep_supervision_heads.parameters())


def test_network_can_be_copied_after_a_step_where_monais_cannot():
    theirs, ours = make_both()
    for network in (theirs, ours):
        network.train()(torch.randn(1, 4, 16, 16, 32)).sum().backward()

    copy.deepcopy(ours)
    with pytest.raises(RuntimeError, match="deepcopy"):
        copy.deepcopy(theirs)


def test_heads_get_back_the_resolution_that_they_worked_at():
    coarse = torch.arange(8.0).reshape(1, 1, 2, 2, 2)
    repeated = coarse.repeat_interleave(2, 2).repeat_interleave(2, 3).repeat_interleave(2, 4)

    full, half = own_resolutions(torch.stack([repeated + 100, repeated], dim=1))

    assert torch.equal(full, repeated + 100)
    assert torch.equal(half, coarse)


def test_head_of_half_the_resolution_weighs_half_and_weights_sum_to_one():
    target = torch.zeros(1, 3, 4, 4, 4)
    heads = torch.stack([torch.full_like(target, value) for value in (7.0, 14.0, 28.0)], dim=1)

    loss = StackedDeepSupervisionLoss(Distance())(heads, target)

    assert loss.item() == pytest.approx(4 / 7 * 7 + 2 / 7 * 14 + 1 / 7 * 28)  # 12


def test_target_of_a_head_is_a_voxel_of_each_block():
    target = torch.zeros(1, 1, 4, 4, 4)
    target[..., :2, :, :] = 1.0  # half of the blocks of two voxels
    heads = torch.zeros(1, 2, 1, 4, 4, 4)

    assert StackedDeepSupervisionLoss(Distance())(heads, target).item() == pytest.approx(-0.5)


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.float32])
def test_one_output_is_held_to_the_loss_itself(dtype):
    logits, target = torch.randn(1, 3, 4, 4, 4), torch.ones(1, 3, 4, 4, 4, dtype=dtype)

    loss = StackedDeepSupervisionLoss(DiceBCELoss())(logits, target)

    assert loss.item() == pytest.approx(DiceBCELoss()(logits, target).item())


@pytest.mark.parametrize("shape", [(1, 3, 2, 4, 4), (1, 2, 3, 8, 4, 4), (2, 4, 4)])
def test_shapes_that_do_not_belong_together_are_refused(shape):
    with pytest.raises(ValueError, match=r"logits have shape .*, target has \(1, 3, 4, 4, 4\)"):
        StackedDeepSupervisionLoss(DiceBCELoss())(torch.zeros(shape), torch.zeros(1, 3, 4, 4, 4))


@pytest.mark.parametrize(("profile", "side", "heads"), [("small", 32, [32, 16, 8]), ("full", 64, [64, 32, 16, 8])])
def test_bundle_has_a_head_on_each_level_of_the_decoder_but_the_lowest(profile, side, heads):
    network = build_network(BUNDLES / "brats_dynunet", profile, seed=0).to("meta").train()
    bottom = side // 2 ** (len(network.get_submodule("upsamples")))
    assert bottom == 2  # the smallest patch that the profile takes

    stacked = network(torch.empty(1, 4, side, side, side, device="meta"))

    assert [head.shape[-1] for head in own_resolutions(stacked)] == heads
    assert heads[-1] == 4 * bottom  # the level at 2 x bottom has none
