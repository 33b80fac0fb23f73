"""Another engine than torch gives the same masks, of the same windows, and is refused where it cannot."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from brats_fl.bundle import build_network, bundle_names
from brats_fl.errors import ModelError, TrainingAborted
from brats_fl.network import inference_engines
from brats_fl.network.engine_packages import PACKAGES, check_engine, describe_engine
from brats_fl.network.ensembles import Ensemble, EnsembleInferer
from brats_fl.network.inference_engines import answered_by
from brats_fl.network.inferers import BrainInferer
from brats_fl_tools.repository import BUNDLES

WINDOW = [32, 32, 32]


def engine(name: str) -> Any:
    """A parameter that skips, and says why, where the extra of that name is not installed."""
    try:
        check_engine(name)
    except ModelError as missing:
        return pytest.param(name, marks=pytest.mark.skip(reason=str(missing)))
    return name


ENGINES = [engine("onnx"), engine("openvino")]


def brain(*shape: int) -> Tensor:
    return torch.randn(1, 4, *shape, generator=torch.Generator().manual_seed(3))


def logits(network: nn.Module, image: Tensor, name: str = "torch", **settings: Any) -> Tensor:
    with torch.no_grad():
        return BrainInferer(WINDOW, amp=False, engine=name, **settings)(image, network)


def voxel_network(weight: float = 1.0) -> nn.Conv3d:
    network = nn.Conv3d(4, 3, 1).eval()
    nn.init.constant_(network.weight, weight)
    nn.init.zeros_(network.bias)
    return network


@pytest.mark.parametrize("name", ENGINES)
@pytest.mark.parametrize("bundle", bundle_names(BUNDLES))
def test_masks_of_each_bundle_are_torch_s_but_where_a_logit_is_0(bundle: str, name: str):
    network, image = build_network(BUNDLES / bundle, "small", seed=0).eval(), brain(48, 32, 32)  # 3 windows: 2 and 1

    wanted, got = logits(network, image), logits(network, image, name)

    largest = float(wanted.abs().max())
    assert largest > 1  # or nothing below would be told apart
    assert ((got > 0) == (wanted > 0))[wanted.abs() > 1e-4 * largest].all()
    assert 0 < int((wanted > 0).sum()) < wanted.numel()


@pytest.mark.parametrize("name", ENGINES)
def test_mirrored_windows_are_averaged_as_ever(name: str):
    network, image = nn.Conv3d(4, 3, 3, padding=1).eval(), brain(32, 32, 32)

    got = logits(network, image, name, mirror_axes=[0, 2])

    torch.testing.assert_close(got, logits(network, image, mirror_axes=[0, 2]), atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", ENGINES)
def test_each_network_of_an_ensemble_is_answered_by_the_engine(name: str):
    network, image = Ensemble([voxel_network(1.0), voxel_network(3.0)]), brain(32, 32, 32)
    both = {each: EnsembleInferer([WINDOW] * 2, amp=False, engine=each) for each in ("torch", name)}

    with torch.no_grad():
        wanted, got = (both[each](image, network).sigmoid() for each in ("torch", name))
    torch.testing.assert_close(got, wanted, atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", ENGINES)
def test_weights_that_were_loaded_since_are_those_that_count(name: str):
    network, image = voxel_network(1.0), brain(32, 32, 32)
    before = logits(network, image, name)

    nn.init.constant_(network.weight, 2.0)

    assert not torch.allclose(logits(network, image, name), before)
    torch.testing.assert_close(logits(network, image, name), logits(network, image), atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", ENGINES)
def test_network_is_converted_once_and_what_it_became_goes_with_it(name: str, monkeypatch: pytest.MonkeyPatch):
    made: list[int] = []
    build = inference_engines.as_onnx
    monkeypatch.setattr(inference_engines, "as_onnx", lambda network: made.append(1) or build(network))
    network, image = voxel_network(), brain(32, 32, 32)

    logits(network, image, name)
    logits(network, image, name)
    gone = weakref.ref(network)
    del network
    gc.collect()

    assert made == [1]
    assert gone() is None


@pytest.mark.parametrize("name", ENGINES)
def test_network_stops_at_its_next_window_as_with_torch(name: str):
    network = voxel_network()

    def stop(*_: object) -> None:
        raise TrainingAborted

    with answered_by(name, network):
        network.register_forward_pre_hook(stop)
        with pytest.raises(TrainingAborted):
            network(brain(32, 32, 32))

    assert "forward" not in vars(network)  # the network answers itself again


@pytest.mark.parametrize("name", ENGINES)
def test_engine_that_computes_something_else_is_refused(name: str, monkeypatch: pytest.MonkeyPatch):
    other = inference_engines.as_onnx(voxel_network(1.1))
    monkeypatch.setattr(inference_engines, "as_onnx", lambda network: other)

    with pytest.raises(
        ModelError, match=rf"^engine {name} computes logits that differ by .* leave the engine at torch"
    ):
        logits(voxel_network(1.0), brain(32, 32, 32), name)


class Twisted(nn.Module):
    """What no exporter knows how to write."""

    def forward(self, image: Tensor) -> Tensor:
        return torch.special.airy_ai(image[:, :3])


@pytest.mark.parametrize("name", ENGINES)
def test_network_that_cannot_be_converted_is_told_with_the_mend(name: str):
    with pytest.raises(ModelError, match=rf"^engine {name}: the network could not be converted: .*at torch$"):
        logits(Twisted(), brain(32, 32, 32), name)


def test_engine_that_is_not_installed_is_told_with_its_extra(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(PACKAGES, "openvino", ("onnx", "not_on_this_machine"))

    with pytest.raises(ModelError, match=r"engine openvino: not_on_this_machine not installed; pip install 'brats-fl"):
        BrainInferer(WINDOW, engine="openvino")


def test_unknown_engine_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match=r"engine must be one of torch, onnx, openvino \(got 'tensorrt'\)"):
        BrainInferer(WINDOW, engine="tensorrt")


def test_engine_is_described_by_what_is_installed():
    assert describe_engine("torch").startswith("torch 2.")


@pytest.mark.parametrize("name", ENGINES[1:])
def test_openvino_reports_to_nobody_that_it_is_used(name: str, tmp_path: Path):
    # Its own reports begin with a file below the home folder; they are off where CI is set.
    environment = {key: value for key, value in os.environ.items() if key not in ("CI", "TF_BUILD", "JENKINS_URL")}
    code = (
        "import sys; from brats_fl.network.engine_packages import import_openvino; import_openvino().Core();"
        "assert sys.modules['openvino_telemetry'] is None"
    )

    subprocess.run([sys.executable, "-c", code], env={**environment, "HOME": str(tmp_path)}, check=True)

    assert not (tmp_path / "intel").exists()
