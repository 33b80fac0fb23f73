"""A model is named by a bundle, a run folder or a checkpoint; what is not given, run or weights tell."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tests.voxel_bundle import make_voxel_bundle
from torch import Tensor

from brats_fl.bundle import build_network
from brats_fl.errors import ModelError
from brats_fl_tools.model.trained import TrainedModel, find_model
from brats_fl_tools.repository import BUNDLES
from brats_fl_tools.weights import find_weights


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Run folder of the profile ``small``."""
    (tmp_path / "run").mkdir()
    state = build_network(BUNDLES / "brats_attention_unet", "small", seed=0).state_dict()
    torch.save({"model": state}, tmp_path / "run" / "global_model.pt")
    (tmp_path / "run" / "run.json").write_text(json.dumps({"bundle": "brats_attention_unet", "profile": "small"}))
    return tmp_path / "run"


def test_run_folder_tells_bundle_and_profile_of_its_best_model(run: Path):
    expected = TrainedModel(BUNDLES / "brats_attention_unet", run / "global_model.pt", "small")

    assert find_model(run) == expected
    assert find_model(run / "global_model.pt") == expected


def test_run_folder_without_a_best_model_stands_for_its_last(run: Path):
    (run / "global_model.pt").rename(run / "final_model.pt")

    assert find_weights(run) == run / "final_model.pt"


def test_checkpoint_alone_is_of_the_bundle_and_profile_that_it_fits(run: Path, tmp_path: Path):
    alone = tmp_path / "alone.pt"
    shutil.move(run / "global_model.pt", alone)

    assert find_model(alone) == TrainedModel(BUNDLES / "brats_attention_unet", alone, "small")


def test_exported_bundle_is_its_own_whatever_it_is_called(tmp_path: Path):
    bundle = make_voxel_bundle(tmp_path / "mine")

    assert find_model(bundle) == TrainedModel(bundle, bundle / "models" / "model.pt", "full")


def small_unet() -> dict[str, Tensor]:
    return build_network(BUNDLES / "brats_unet", "small", seed=0).state_dict()


def first_as_nan(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {**state, next(iter(state)): torch.full_like(next(iter(state.values())), torch.nan)}


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda state: dict(list(state.items())[1:]), "1 of 97 are missing: model.0.conv.unit0.conv.weight;"),
        (lambda state: {**state, "loss.weight": torch.ones(2)}, "1 are unknown: loss.weight;"),
        (first_as_nan, "model.0.conv.unit0.conv.weight holds NaN or infinite values;"),
    ],
)
def test_checkpoint_that_fits_no_bundle_is_refused_with_what_differs_from_the_nearest(
    tmp_path: Path, spoil: Callable[[dict[str, Tensor]], dict[str, Tensor]], reason: str
):
    torch.save(spoil(small_unet()), tmp_path / "model.pt")

    with pytest.raises(ModelError) as caught:
        find_model(tmp_path / "model.pt")

    nearest = "fits no bundle here, and of 6 the nearest is brats_unet with profile small"
    assert f"model.pt: {nearest}: " in str(caught.value)
    assert reason in str(caught.value)


def test_loss_that_lightning_saved_beside_the_network_is_left_out_and_told(tmp_path: Path, capsys):
    state = {f"net.{name}": value for name, value in small_unet().items()}
    torch.save({"state_dict": {**state, "loss.weight": torch.ones(2)}}, tmp_path / "last.ckpt")

    model = find_model(tmp_path / "last.ckpt")

    assert (model.bundle.name, model.profile) == ("brats_unet", "small")
    assert capsys.readouterr().err == (f"note: {tmp_path / 'last.ckpt'}: left out, beside the network: loss.weight\n")


def test_checkpoint_of_another_profile_than_the_one_given_is_refused(run: Path):
    with pytest.raises(ModelError, match=r"brats_attention_unet with profile full: .* parameters of another network"):
        find_model(run, profile="full")


def test_bundle_without_weights_and_folder_without_a_model_are_refused(tmp_path: Path):
    bundle = make_voxel_bundle(tmp_path / "mine")
    (bundle / "models" / "model.pt").unlink()

    with pytest.raises(ModelError, match="has no weights; put them there with `brats-fl export"):
        find_model(bundle)
    with pytest.raises(ModelError, match="no model there; give a checkpoint, a run folder, or a bundle such as"):
        find_model(tmp_path / "nothing")
