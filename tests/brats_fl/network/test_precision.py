from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
import torch

from brats_fl.bundle import build_network, bundle_names
from brats_fl.network import precision
from brats_fl.network.inferers import PatchInferer
from brats_fl_tools.repository import BUNDLES

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def forget_what_was_measured() -> Iterator[None]:
    measure = precision.cpu_bfloat16_pays
    measure.cache_clear()
    yield
    measure.cache_clear()


def pretend(monkeypatch: pytest.MonkeyPatch, capability: str, bf16: bool, seconds: dict[bool, float]) -> None:
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: bf16)
    monkeypatch.setattr(precision, "_step_seconds", lambda bfloat16: seconds[bfloat16])


@pytest.mark.parametrize(("capability", "bf16"), [("AVX2", True), ("DEFAULT", True), ("AVX512", False)])
def test_processor_without_bfloat16_instructions_is_not_even_timed(monkeypatch, capability, bf16):
    pretend(monkeypatch, capability, bf16, seconds={})  # timing would raise KeyError

    assert precision.cpu_bfloat16_pays() is False


@pytest.mark.parametrize(("seconds", "pays"), [(0.5, True), (0.79, True), (0.81, False), (2.0, False)])
def test_bfloat16_pays_when_it_takes_less_than_four_fifths_of_the_time(monkeypatch, seconds, pays):
    pretend(monkeypatch, "AVX512", True, seconds={True: seconds, False: 1.0})

    assert precision.cpu_bfloat16_pays() is pays


@pytest.mark.parametrize("bundle", bundle_names(BUNDLES))
def test_step_that_is_timed_has_the_batch_that_the_bundles_train_with(bundle):
    recipe = json.loads((BUNDLES / bundle / "configs" / "train.json").read_text(encoding="utf-8"))

    assert recipe["batch_size"] == precision.TRAINING_BATCH


@pytest.mark.parametrize("bfloat16", [False, True])
@pytest.mark.parametrize("mode", [torch.enable_grad, torch.no_grad, torch.inference_mode])
def test_step_that_is_timed_is_forward_and_backward_also_when_an_evaluation_asks_first(monkeypatch, mode, bfloat16):
    convolutions, gradients = [], []

    def convolve(features: torch.Tensor, kernel: torch.Tensor, padding: int) -> torch.Tensor:
        features.register_hook(lambda gradient: gradients.append(tuple(gradient.shape)))
        kernel.register_hook(lambda gradient: gradients.append(tuple(gradient.shape)))
        result = torch.conv3d(features[:, :, ::8, ::8, ::8], kernel, padding=padding)  # the time is of no interest here
        convolutions.append((tuple(features.shape), result.dtype))
        return result

    monkeypatch.setattr(torch.nn.functional, "conv3d", convolve)
    with mode():
        seconds = precision._step_seconds(bfloat16)

    shape = (precision.TRAINING_BATCH, 16, 32, 32, 32)
    assert seconds > 0
    assert set(convolutions) == {(shape, torch.bfloat16 if bfloat16 else torch.float32)}
    assert {shape, (16, 16, 3, 3, 3)} == set(gradients)


def dtype_inside(amp: bool) -> torch.dtype:
    with precision.autocast(CPU, amp):
        return torch.nn.Conv3d(1, 1, 1)(torch.ones(1, 1, 2, 2, 2)).dtype


@pytest.mark.parametrize(
    ("amp", "pays", "dtype"),
    [(True, True, torch.bfloat16), (True, False, torch.float32), (False, True, torch.float32)],
)
def test_forward_pass_is_bfloat16_only_where_it_is_wanted_and_pays(monkeypatch, amp, pays, dtype):
    monkeypatch.setattr(precision, "cpu_bfloat16_pays", lambda: pays)

    assert dtype_inside(amp) == dtype


def test_measuring_draws_no_random_number():
    torch.manual_seed(0)
    before = torch.get_rng_state()

    precision.cpu_bfloat16_pays()
    precision._step_seconds(False)

    assert torch.equal(torch.get_rng_state(), before)


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
