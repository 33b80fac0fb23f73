"""A bundle is added by its own files alone: a network, what it is, and what to say of it."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from monai.networks.nets import UNet
from tests.monai_command import run, tiny_training
from tests.own_bundle import NETWORK, make_own_bundle
from tests.tiny_sites import make_tiny_sites

from brats_fl.bundle import bundle_names
from brats_fl.constants import REGIONS
from brats_fl.network.checkpoints import check_state, read_state
from brats_fl_tools.repository import BUNDLES
from brats_fl_tools.sync_bundles import SOURCE, expected_files, other_bundles, write_shared_files


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return make_own_bundle(tmp_path / "bundles")


def config(bundle: Path, name: str) -> dict[str, object]:
    content: dict[str, object] = json.loads((bundle / "configs" / f"{name}.json").read_text(encoding="utf-8"))
    return content


def test_folder_with_a_training_configuration_is_a_bundle_and_another_is_not(bundle: Path):
    (bundle.parent / "notes").mkdir()
    (bundle.parent / "README.md").touch()

    assert bundle_names(bundle.parent) == [SOURCE, "two_levels"]
    assert other_bundles(bundle.parent) == ["two_levels"]


def test_bundle_gets_the_shared_recipe_and_keeps_its_network(bundle: Path):
    files = {path.relative_to(bundle) for path in bundle.rglob("*") if path.is_file()}
    shared = {path.relative_to(BUNDLES / SOURCE) for path in (BUNDLES / SOURCE).rglob("*") if path.suffix != ".pt"}

    assert {path for path in shared if (BUNDLES / SOURCE / path).is_file() and "eval" not in path.parts} <= files
    assert config(bundle, "inference")["network_def"] == config(bundle, "train")["network_def"]
    assert config(bundle, "train")["network_def"]["channels"] == [8, 16]
    assert config(bundle, "small")["network_def#channels"] == [4, 8]
    assert config(bundle, "train")["train"] == config(BUNDLES / SOURCE, "train")["train"]
    card = (bundle / "docs" / "README.md").read_text(encoding="utf-8")
    assert card.startswith("# BraTS UNet of two levels\n\n## Data\n")
    assert write_shared_files(bundle.parent) == []  # all is in step


def test_setting_of_the_network_that_only_one_bundle_has_is_kept(bundle: Path):
    own = {"network_def#dropout": 0.1, "epochs": 7}
    (bundle / "configs" / "small.json").write_text(json.dumps(own))

    written = json.loads(expected_files("two_levels", bundle.parent)["configs/small.json"])

    shared = config(BUNDLES / SOURCE, "small")
    del shared["network_def#channels"]
    assert written == shared | {"network_def#dropout": 0.1}  # epochs are shared


def test_loss_and_patch_rule_of_its_own_are_kept_and_nothing_else_of_these_files(bundle: Path):
    loss = {"_target_": "torch.nn.BCEWithLogitsLoss"}
    rule = {"meaning": "patch", "minimum": 64, "multiple_of": 64, "length": 3}
    own = {"network_def": NETWORK, "loss": loss, "patch_size": [64, 64, 64]}
    (bundle / "configs" / "train.json").write_text(json.dumps(own))
    (bundle / "configs" / "settings.json").write_text(json.dumps({"patch_size": rule, "epochs": {"meaning": "long"}}))

    files = expected_files("two_levels", bundle.parent)

    train, settings = (json.loads(files[f"configs/{name}.json"]) for name in ("train", "settings"))
    assert train == config(BUNDLES / SOURCE, "train") | {"network_def": NETWORK, "loss": loss}  # the patch is shared
    assert settings == config(BUNDLES / SOURCE, "settings") | {"patch_size": rule}


def test_own_network_is_trained_and_evaluated_by_monais_commands(bundle: Path, tmp_path: Path):
    site = make_tiny_sites(tmp_path / "sites", {"hospital-1": (1, 1, 1)}) / "hospital-1"
    settings = tiny_training(site, tmp_path)

    trained = run(bundle, ("train", "small"), **settings)
    evaluated = run(bundle, ("train", "evaluate", "small"), **settings, output_dir=tmp_path / "out")

    assert trained.returncode == 0, trained.stderr
    assert trained.stdout.count("train_loss") == 2  # a line for each step
    assert evaluated.returncode == 0, evaluated.stderr
    state = read_state(tmp_path / "models" / "model.pt")
    check_state(state, UNet(3, 4, 3, channels=[4, 8], strides=[2], norm="INSTANCE"))
    with (tmp_path / "out" / "evaluation.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["case"], row["region"]) for row in rows] == [("hospital-1-case-003", region) for region in REGIONS]
