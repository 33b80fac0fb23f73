"""The methods paragraph: its numbers are the run's, and what the run does not tell is not claimed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from tests.run_folders import ROWS, write_run

from brats_fl.provenance import bundle_digest
from brats_fl_tools.report.bundle_settings import read_settings
from brats_fl_tools.report.facts import list_facts
from brats_fl_tools.report.methods import REFERENCES, number_citations, write_methods
from brats_fl_tools.report.metrics import score
from brats_fl_tools.report.run_folder import read_run

BUNDLES = Path(__file__).parents[3] / "bundles"
JOB = "brats_unet_fedavg"
OPTIONS = {"algorithm": "fedavg", "steps_per_epoch": 7, "num_rounds": 3}
VERSIONS = {"brats_fl": "0.1.0", "monai": "1.6.1", "nvflare": "2.9.0", "torch": "2.13.0", "python": "3.11.7"}
MACHINE = {"processor": "Some CPU @2.0GHz", "cores": 8, "memory_gib": 31.2, "gpus": []}


def run_of(folder: Path, bundle: str = "brats_unet", **info: Any) -> Path:
    """A run of two hospitals whose job brought its bundle."""
    facts: dict[str, Any] = {"bundle": bundle, "profile": "small", "local_epochs": 2, "seed": 5, "parameters": 1234567}
    facts |= {"options": OPTIONS, "versions": VERSIONS, "machine": MACHINE}
    run = write_run(folder / "run", ROWS, **{**facts, **info})
    if (BUNDLES / bundle).is_dir():
        shutil.copytree(BUNDLES / bundle / "configs", run / "job" / JOB / "app_client" / "bundles" / bundle / "configs")
    return run


def text_of(run: Path) -> str:
    folder = read_run(run)
    return write_methods(folder, score(folder)).text


def test_citations_are_numbered_as_they_appear_and_each_once() -> None:
    text, keys = number_citations("FLARE @flare and MONAI @monai, again @flare, on a CPU @2.0GHz")

    assert text == "FLARE [1] and MONAI [2], again [1], on a CPU @2.0GHz"
    assert keys == ("flare", "monai")


def test_settings_are_the_bundles_with_profile_and_options_over_them(tmp_path: Path) -> None:
    settings = read_settings(read_run(run_of(tmp_path)))

    profile = json.loads((BUNDLES / "brats_unet" / "configs" / "small.json").read_text())
    train = json.loads((BUNDLES / "brats_unet" / "configs" / "train.json").read_text())
    assert settings["steps_per_epoch"] == 7  # the option
    assert settings["patch_size"] == profile["patch_size"]  # the profile
    assert settings["network_def"]["channels"] == profile["network_def#channels"]
    assert settings["batch_size"] == train["batch_size"]  # the bundle


@pytest.mark.parametrize(
    ("compression", "said"), [("int8", "travelled as int8 with a scale for each 256 values"), ("none", ""), (8, "")]
)
def test_compression_is_told_where_there_is_one(tmp_path: Path, compression: object, said: str) -> None:
    text = text_of(run_of(tmp_path, options={**OPTIONS, "compression": compression}))

    assert ("Weights travelled" in text) == bool(said)
    assert said in text


@pytest.mark.parametrize(
    ("is_signed", "keys"), [(True, "keys that the hospitals' certificates signed"), (False, "unsigned")]
)
def test_masks_are_told_with_whose_word_the_keys_rest_on(tmp_path: Path, is_signed: bool, keys: str) -> None:
    run = run_of(tmp_path)
    masked = {
        "threshold": 2,
        "took_part": ["hospital-1"],
        "dropped_out": [],
        "false_shares": [],
        "keys_signed": is_signed,
    }
    masked |= {"max_update_ratio_checked_by_sites": 10.0}
    mean = {"phase": "mean", "round": 0, "site": "server", "status": "ok", "secure_aggregation": masked}
    with (run / "rounds.jsonl").open("a") as file:
        file.write(json.dumps(mean) + "\n")

    text = text_of(run)

    assert "Updates left the hospitals masked [" in text
    assert keys in text
    assert "the server learnt the sum alone, of 2 updates or more" in text


def test_paragraph_has_the_runs_numbers(tmp_path: Path) -> None:
    text = text_of(run_of(tmp_path, commit="0123456789abcdef-dirty", mode="simulator", seconds=90.0))

    for part in (
        "2 hospitals trained one model together over 3 rounds.",
        "Together they listed 14 cases: 8 for training, 2 for validation and 4 for testing.",
        "a 3D U-Net [1] with residual units [2] and 16, 32, 64, 128 and 256 channels on its levels, 1,234,567 param",
        "trained for 2 epochs of 7 steps with batches of 2 patches of 64 x 64 x 64 voxels of 2 x 2 x 2 mm",
        "learning rate 0.003 at the start, seed 5",
        "scored on 4 test cases of 2 hospitals (whether it saw them in training was not checked)",
        "Which model was evaluated was not recorded.",
        "Mean Dice over cases and regions: 0.625, standard deviation 0.250.",  # 0.9, 0.7, 0.6, 0.3
        "brats-fl 0.1.0 (commit 0123456789ab with changes), MONAI 1.6.1",
        "The run had Some CPU @2.0GHz, 8 cores, 31.2 GiB of memory, no GPU; it took 1 min 30 s.",
    ):
        assert part in text


def test_model_that_the_run_started_from_is_named_by_its_digest(tmp_path: Path) -> None:
    run = run_of(tmp_path, start_sha256="5ee1")

    assert "Training started from a given model (SHA-256 5ee1), not from random weights. The algorithm" in text_of(run)
    assert ("Started from", "a given model, SHA-256 5ee1") in list_facts(read_run(run), "m", 3)


def test_references_are_those_of_what_was_run(tmp_path: Path) -> None:
    folder = read_run(run_of(tmp_path, "brats_attention_unet"))

    methods = write_methods(folder, score(folder))

    assert "a 3D Attention U-Net [1]" in methods.text
    assert methods.references[0] == REFERENCES["attention"]
    assert REFERENCES["fedavg"] in methods.references
    assert REFERENCES["unet3d"] not in methods.references
    assert [REFERENCES[key] for key in ("bakas2017", "bakas2018")] == list(methods.data_references)


def test_loss_on_several_heads_is_told_with_the_loss_of_each(tmp_path: Path) -> None:
    folder = read_run(run_of(tmp_path, "brats_dynunet"))

    text = write_methods(folder, score(folder)).text

    assert "nnU-Net's [1] 3D U-Net with deep supervision and 8, 16, 32, 64 and 128 channels on its levels" in text
    assert "minimising the sum of Dice loss, over the patches of a batch together [" in text
    assert "binary cross-entropy, on each head of the decoder at its resolution, each of half the weight" in text


def test_network_and_training_that_the_folder_does_not_hold_are_not_described(tmp_path: Path) -> None:
    run = run_of(tmp_path)
    shutil.rmtree(run / "job")

    text = text_of(run)

    assert "The network is that of the bundle brats_unet; its settings are not in the run's folder." in text
    assert "U-Net" not in text
    assert "patches" not in text


@pytest.mark.parametrize(("stated", "known"), [(bundle_digest(BUNDLES / "brats_unet"), True), ("0" * 64, False)])
def test_bundle_of_a_job_without_code_is_the_installed_one_only_if_it_is_what_was_stated(
    tmp_path: Path, stated: str, known: bool
) -> None:
    run = run_of(tmp_path)
    shutil.rmtree(run / "job")
    config = run / "job" / JOB / "app_server" / "config" / "config_fed_server.json"
    config.parent.mkdir(parents=True)
    config.write_text(json.dumps({"required_code": {"bundle_sha256": stated}}))

    assert bool(read_settings(read_run(run))) is known


def test_network_and_loss_that_are_not_known_go_by_the_names_of_their_classes(tmp_path: Path) -> None:
    run = run_of(tmp_path)
    path = run / "job" / JOB / "app_client" / "bundles" / "brats_unet" / "configs" / "train.json"
    content = json.loads(path.read_text())
    content["network_def"] = {"_target_": "scripts.own.Network", "in_channels": 4, "out_channels": 3}
    content["loss"] = {"_target_": "brats_fl.network.losses.DiceBCELoss", "batch": False}
    path.write_text(json.dumps(content))

    text = text_of(run)

    assert "The network is scripts.own.Network" in text
    assert "minimising brats_fl.network.losses.DiceBCELoss with settings of its own" in text
    assert REFERENCES["winner"] not in write_methods(read_run(run), None).references


def test_federation_tells_of_its_servers_machine_and_not_how_long_that_took(tmp_path: Path) -> None:
    text = text_of(run_of(tmp_path, mode="federation", seconds=90.0))

    assert "The server had Some CPU" in text
    assert "1 min 30 s" not in text


def test_hospitals_that_kept_their_tables_are_said_to_have_sent_means_of_validation_cases(tmp_path: Path) -> None:
    text = write_methods(read_run(run_of(tmp_path)), None).text

    assert "evaluated the final model on its own validation cases and sent means alone." in text
    assert "test case" not in text
