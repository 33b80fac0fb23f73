from __future__ import annotations

from pathlib import Path

import pytest
import torch

from brats_fl.bundle import build_network, config_files, network_definition
from brats_fl.errors import ModelError

BUNDLE = Path(__file__).parents[2] / "bundles" / "brats_unet"


def test_profile_is_the_same_recipe_with_its_differences():
    full, small = network_definition(BUNDLE, "full"), network_definition(BUNDLE, "small")

    assert full["channels"] == [32, 64, 128, 256, 512]
    assert small["channels"] == [16, 32, 64, 128, 256]
    assert {key: full[key] for key in full if key != "channels"} == {
        key: small[key] for key in small if key != "channels"
    }


def test_network_of_a_seed_is_always_the_same_and_leaves_the_random_stream_alone():
    torch.manual_seed(5)
    state = torch.get_rng_state()

    first, again, other = (build_network(BUNDLE, "small", seed).state_dict() for seed in (3, 3, 4))

    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("profile", ["evaluate", "federated", "train", "metadata", "settings"])
def test_configuration_that_is_more_than_numbers_is_no_profile(profile):
    with pytest.raises(ModelError, match=rf"{profile}\.json: is no profile.*profiles are full, small"):
        config_files(BUNDLE, profile)


@pytest.mark.parametrize("profile", ["../../other/configs/small", "/tmp/small", "", "Small", "small.json"])
def test_profile_is_a_name_and_no_path(profile):
    with pytest.raises(ModelError, match="profile must be a plain name"):
        config_files(BUNDLE, profile)


def test_unknown_profile_is_refused_with_the_ones_there_are():
    with pytest.raises(ModelError, match=r"brats_unet has no tiny\.json; profiles are full, small"):
        config_files(BUNDLE, "tiny", ["federated"])


def test_profile_applies_after_the_recipe_and_overlays_last():
    names = [Path(path).name for path in config_files(BUNDLE, "small", ["federated"])]

    assert names == ["train.json", "small.json", "federated.json"]  # small's own epochs must not beat the rounds
