from __future__ import annotations

import pytest
import torch

from brats_fl.bundle import build_network
from brats_fl.network import precision
from brats_fl.network.inferers import PatchInferer
from brats_fl_tools.repository import BUNDLES

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("capability", "bf16", "has"),
    [("AVX512", True, True), ("AVX512", False, False), ("AVX2", True, False), ("DEFAULT", True, False)],
)
def test_processor_has_bfloat16_by_its_instructions_and_however_busy_it_is(monkeypatch, capability, bf16, has):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: bf16)

    assert precision.cpu_has_bfloat16() is has


def dtype_inside(amp: bool) -> torch.dtype:
    with precision.autocast(CPU, amp):
        return torch.nn.Conv3d(1, 1, 1)(torch.ones(1, 1, 2, 2, 2)).dtype


@pytest.mark.parametrize(
    ("amp", "has", "dtype"),
    [(True, True, torch.bfloat16), (True, False, torch.float32), (False, True, torch.float32)],
)
def test_forward_pass_is_bfloat16_only_where_it_is_wanted_and_there(monkeypatch, amp, has, dtype):
    monkeypatch.setattr(precision, "cpu_has_bfloat16", lambda: has)

    assert dtype_inside(amp) == dtype


def weight_gradients(network: torch.nn.Module, patches: torch.Tensor, amp: bool) -> torch.Tensor:
    network.zero_grad()
    PatchInferer(amp)(patches, network).square().mean().backward()
    weights = [p.grad.flatten() for n, p in network.named_parameters() if n.endswith("conv.weight")]
    return torch.cat(weights)


@pytest.mark.parametrize("side", [32, 64])
def test_gradient_in_mixed_precision_is_that_of_float32_on_this_processor(side):
    """On AVX512_BF16 oneDNN gives garbage for the smallest feature maps: see SMALLEST_CPU_MAP."""
    network = build_network(BUNDLES / "brats_unet", "small", seed=0)
    patches = torch.rand(1, 4, side, side, side, generator=torch.Generator().manual_seed(0))

    mixed, exact = (weight_gradients(network, patches, amp) for amp in (True, False))

    assert float((mixed - exact).norm() / exact.norm()) < 0.05


@pytest.mark.parametrize(
    ("bundle", "profile", "reduction"),
    [
        ("brats_unet", "full", 16),
        ("brats_attention_unet", "small", 16),
        ("brats_dynunet", "small", 16),
        ("brats_dynunet", "full", 32),
    ],
)
def test_network_tells_how_much_smaller_its_lowest_feature_map_is(bundle, profile, reduction):
    with torch.device("meta"):
        network = build_network(BUNDLES / bundle, profile, seed=0)

    assert precision.reduction_of(network) == reduction


def test_stride_of_each_axis_counts_and_a_wrapped_network_is_seen():
    class Network(torch.nn.Module):
        strides = ((1, 1, 1), (1, 2, 2), 2)

    assert precision.reduction_of(Network()) == 4
    assert precision.reduction_of(torch.nn.DataParallel(Network())) == 4


@pytest.mark.parametrize(
    ("side", "reduction", "mixed"), [(64, 16, True), (48, 16, False), (64, 32, False), (128, 32, True)]
)
def test_patch_that_leaves_under_four_voxels_at_the_bottom_is_trained_on_in_float32(side, reduction, mixed):
    assert precision.trains_in_bfloat16(torch.empty(2, 4, side, side, side, device="cpu"), True, reduction) is mixed
