from __future__ import annotations

from pathlib import Path

import pytest
import torch
from monai.bundle import ConfigParser
from monai.networks.nets import AttentionUnet, UNet
from torch import nn

from brats_fl.network.deep_supervision import DeeplySupervisedDynUNet
from brats_fl.network.networks import InstanceNormAttentionUnet

ARGUMENTS = {
    "spatial_dims": 3,
    "in_channels": 4,
    "out_channels": 3,
    "channels": [4, 8, 16],
    "strides": [2, 2],
}


def make_attention_unet() -> nn.Module:
    torch.manual_seed(0)
    return InstanceNormAttentionUnet(**ARGUMENTS)


def make_unet() -> nn.Module:
    torch.manual_seed(0)
    return UNet(**ARGUMENTS, num_res_units=2, norm=("INSTANCE", {"affine": True}))


def make_dynunet() -> nn.Module:
    torch.manual_seed(0)
    return DeeplySupervisedDynUNet(
        spatial_dims=3,
        in_channels=4,
        out_channels=3,
        kernel_size=[3, 3, 3],
        strides=[1, 2, 2],
        upsample_kernel_size=[2, 2],
        filters=[4, 8, 16],
    )


each_network = pytest.mark.parametrize("make_network", [make_attention_unet, make_unet, make_dynunet])


def test_all_26_batch_norms_of_five_levels_are_replaced():
    five_levels = {**ARGUMENTS, "channels": [2, 4, 8, 16, 32], "strides": [2, 2, 2, 2]}
    original, ours = AttentionUnet(**five_levels), InstanceNormAttentionUnet(**five_levels)

    assert sum(isinstance(module, nn.BatchNorm3d) for module in original.modules()) == 26
    assert not any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in ours.modules())


def test_parameters_have_the_names_and_shapes_of_monais_network():
    original, ours = AttentionUnet(**ARGUMENTS), make_attention_unet()

    assert {name: value.shape for name, value in ours.named_parameters()} == {
        name: value.shape for name, value in original.named_parameters()
    }


@each_network
def test_state_holds_floating_parameters_and_nothing_else(make_network):
    network = make_network()
    network(torch.randn(1, 4, 16, 16, 16))

    assert set(network.state_dict()) == {name for name, _ in network.named_parameters()}
    assert all(value.is_floating_point() for value in network.state_dict().values())


@each_network
def test_a_case_gives_the_same_output_alone_and_in_a_batch_while_training(make_network):
    network = make_network().train()
    cases = torch.randn(2, 4, 16, 16, 16)

    with torch.no_grad():
        torch.testing.assert_close(network(cases)[:1], network(cases[:1]), atol=1e-5, rtol=1e-5)


@each_network
def test_every_parameter_learns_from_a_batch_of_one(make_network):
    network = make_network().train()

    network(torch.randn(1, 4, 16, 16, 16)).square().sum().backward()

    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in network.parameters())


@each_network
def test_smallest_input_leaves_two_voxels_at_the_bottom(make_network):
    network = make_network().eval()

    assert network(torch.randn(1, 4, 8, 4, 4)).shape == (1, 3, 8, 4, 4)  # 2 x 1 x 1 after two strides of 2
    with pytest.raises(ValueError, match="more than 1 spatial element"):
        network(torch.randn(1, 4, 4, 4, 4))
    with pytest.raises(RuntimeError, match=r"[Ss]izes? of tensor"):
        network(torch.randn(1, 4, 10, 8, 8))  # 10 is no multiple of 4


def test_network_is_made_from_a_bundle_config():
    target = {"_target_": "brats_fl.network.networks.InstanceNormAttentionUnet", **ARGUMENTS}

    network = ConfigParser({"network_def": target}).get_parsed_content("network_def")

    assert isinstance(network, InstanceNormAttentionUnet)


def test_two_dimensional_network_has_two_dimensional_norms():
    network = InstanceNormAttentionUnet(**{**ARGUMENTS, "spatial_dims": 2})

    assert network(torch.randn(1, 4, 16, 16)).shape == (1, 3, 16, 16)


@pytest.mark.filterwarnings("ignore:`torch.jit.*` is deprecated:DeprecationWarning")
@each_network
def test_torchscript_gives_the_same_output_at_another_size(make_network, tmp_path: Path):
    network = make_network().eval()

    torch.jit.save(torch.jit.script(network), tmp_path / "model.ts")

    scripted = torch.jit.load(tmp_path / "model.ts")
    image = torch.randn(1, 4, 24, 16, 16)
    torch.testing.assert_close(scripted(image), network(image), atol=1e-5, rtol=1e-5)
