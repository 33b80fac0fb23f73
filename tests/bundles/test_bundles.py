"""What must hold of the bundles' files: complete, in step with each other, by MONAI's rules, and documented."""

from __future__ import annotations

import importlib
import json
import pydoc
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from monai.bundle import ComponentLocator, ConfigComponent, ConfigParser, ConfigWorkflow, verify_net_in_out
from tests.shared_data import METADATA_SCHEMA

import brats_fl
from brats_fl.bundle import bundle_names
from brats_fl.constants import KEY_METRIC, MODALITIES, REGIONS
from brats_fl_tools.repository import BUNDLES
from brats_fl_tools.sync_bundles import SOURCE, expected_files, other_bundles

NAMES = bundle_names(BUNDLES)
FILES = {
    "LICENSE",
    "docs/README.md",
    "docs/data_license.txt",
    "models/README.md",  # git keeps no empty folder
    *(f"configs/{name}.json" for name in ("metadata", "train", "evaluate", "inference", "multi_gpu_train")),
    *("configs/federated.json", "configs/small.json", "configs/logging.conf"),
}
COMPLETE = ("train", "inference")
OVERLAYS = sorted(
    path.stem for path in (BUNDLES / SOURCE / "configs").glob("*.json") if path.stem not in (*COMPLETE, "metadata")
)
CONFIGS = (*COMPLETE, *OVERLAYS)
# Not part of this repository: the schema that MONAI downloads, equivalent, for checks without a network.

each_bundle = pytest.mark.parametrize("name", NAMES)


def read(name: str, config: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((BUNDLES / name / "configs" / f"{config}.json").read_text(encoding="utf-8"))
    return content


def config_paths(name: str, *configs: str) -> list[str]:
    return [str(BUNDLES / name / "configs" / f"{config}.json") for config in configs]


def values(content: Any, key: str) -> Iterator[Any]:
    """Every value of ``key``, however deep."""
    if isinstance(content, dict):
        if key in content:
            yield content[key]
        content = list(content.values())
    if isinstance(content, list):
        for value in content:
            yield from values(value, key)


def variables(config: dict[str, Any]) -> dict[str, Any]:
    """Root keys that a user sets: neither components nor what MONAI's convention reserves."""
    reserved = ("imports", "+imports", "initialize", "run", "finalize", "network")
    return {
        key: value
        for key, value in config.items()
        if key not in reserved
        and "#" not in key
        and not isinstance(value, dict)
        and not (isinstance(value, list) and any(isinstance(entry, dict) for entry in value))
    }


@pytest.mark.parametrize("name", other_bundles())
def test_what_the_bundles_share_is_the_same(name: str):
    for path, text in expected_files(name).items():
        assert (BUNDLES / name / path).read_text(encoding="utf-8") == text, f"{path} differs: run `make bundles`"


@each_bundle
def test_bundle_has_the_files_of_the_model_zoo_and_no_links(name: str):
    root = BUNDLES / name

    assert {path for path in FILES if (root / path).is_file()} == FILES
    assert [path for path in root.rglob("*") if path.is_symlink()] == []


@each_bundle
def test_metadata_fits_the_schema_it_names(name: str):
    metadata = read(name, "metadata")
    assert metadata["schema"].endswith(f"/{METADATA_SCHEMA.name}")
    if not METADATA_SCHEMA.is_file():
        pytest.skip(f"not on this machine: {METADATA_SCHEMA}")

    jsonschema.validate(metadata, json.loads(METADATA_SCHEMA.read_text(encoding="utf-8")))


@each_bundle
def test_metadata_names_the_versions_this_release_was_tested_with(name: str):
    constraints = (BUNDLES.parent / "constraints.txt").read_text(encoding="utf-8")
    pinned = dict(re.findall(r"^([\w-]+)==([\w.]+)$", constraints, flags=re.MULTILINE))
    metadata = read(name, "metadata")

    assert metadata["monai_version"] == pinned["monai"]
    assert metadata["pytorch_version"] == pinned["torch"]
    assert metadata["numpy_version"] == pinned["numpy"]
    required = metadata["required_packages_version"]
    assert {package: required[package] for package in required if package in pinned} == {
        package: version for package, version in pinned.items() if package in required
    }
    assert required["brats-fl"] == brats_fl.__version__
    assert metadata["version"] in metadata["changelog"]


@each_bundle
def test_metadata_names_the_channels_in_the_order_of_the_library(name: str):
    formats = read(name, "metadata")["network_data_format"]

    assert tuple(formats["inputs"]["image"]["channel_def"].values()) == MODALITIES
    initials = [
        words.split()[0][0] + words.split()[1][0] for words in formats["outputs"]["pred"]["channel_def"].values()
    ]
    assert [pair.lower() for pair in initials] == list(REGIONS)  # "Tumor core" -> tc


@pytest.mark.parametrize(
    ("kind", "configs"),
    [
        ("train", ("train",)),
        ("train", ("train", "federated", "small")),
        ("train", ("train", "evaluate")),
        ("inference", ("inference",)),
    ],
)
@each_bundle
def test_workflow_has_every_property_that_monai_asks_for(
    name: str, kind: str, configs: tuple[str, ...], shared_sites: Path
):
    site = shared_sites / "hospital-1"
    inference = {"load_pretrain": False, "dataset_dir": str(site)}
    workflow = ConfigWorkflow(
        workflow_type=kind,
        config_file=config_paths(name, *configs),
        meta_file=str(BUNDLES / name / "configs" / "metadata.json"),
        logging_file=False,
        data_list_file_path=str(site / "datalist.json"),
        **(inference if kind == "inference" else {"num_workers": 0}),
    )
    workflow.initialize()

    assert workflow.check_properties() == []


@pytest.mark.parametrize("profile", [(), ("small",)])
@each_bundle
def test_network_gives_the_shapes_that_the_metadata_promises(name: str, profile: tuple[str, ...]):
    verify_net_in_out(
        "network_def",
        meta_file=str(BUNDLES / name / "configs" / "metadata.json"),
        config_file=config_paths(name, "inference", *profile),
        device="cpu",
    )


@each_bundle
def test_training_evaluation_and_inference_build_one_network(name: str):
    assert read(name, "train")["network_def"] == read(name, "inference")["network_def"]


@each_bundle
def test_an_image_is_prepared_in_one_way_for_training_evaluation_and_inference(name: str):
    inference = read(name, "inference")["preprocessing"]["transforms"]

    assert read(name, "evaluate")["image_transforms"] == inference
    for training, other in zip(read(name, "train")["train"]["preprocessing_transforms"], inference, strict=False):
        for key, value in other.items():
            if key not in ("keys", "mode"):  # the label goes along, with a mode of its own
                assert training[key] == value


@pytest.mark.parametrize("config", OVERLAYS)
@each_bundle
def test_overlay_holds_differences_only(name: str, config: str):
    base = ConfigParser(read(name, "train"))

    same = [key for key, value in read(name, config).items() if key in base and base[key] == value]

    assert same == []


@pytest.mark.parametrize("config", sorted({*OVERLAYS} - {"evaluate"}))
@each_bundle
def test_overlay_of_training_names_its_handlers_and_defines_none_again(name: str, config: str):
    train, overlay = read(name, "train"), read(name, config)
    listed = [*train["train"]["handlers"], *train["validate"]["handlers"]]
    listed += overlay.get("train#handlers", []) + overlay.get("validate#handlers", [])

    # "%", a copy of the definition, and not "@": MONAI's check of a bundle looks for the validator in the list itself.
    assert {handler[0] for handler in listed} == {"%"}
    defined = {train[handler[1:]]["_target_"] for handler in listed}
    assert defined & set(values(overlay, "_target_")) == set()


@pytest.mark.parametrize("config", CONFIGS)
@each_bundle
def test_every_class_that_a_configuration_names_can_be_imported(name: str, config: str):
    content = read(name, config)
    locator = ComponentLocator()

    for target in values(content, "_target_"):
        component = ConfigComponent({"_target_": target}, id="", locator=locator)
        assert pydoc.locate(str(component.resolve_module_name())) is not None, target
    for statement in content.get("imports", []) + content.get("+imports", []):
        importlib.import_module(statement.removeprefix("$import ").split(" as ")[0])


@each_bundle
def test_best_model_is_chosen_by_the_key_metric_of_the_library(name: str):
    assert list(read(name, "train")["validate"]["key_metric"]) == [KEY_METRIC]


@pytest.mark.parametrize("config", CONFIGS)
@each_bundle
def test_model_card_has_a_row_with_the_default_of_every_variable(name: str, config: str):
    card = (BUNDLES / name / "docs" / "README.md").read_text(encoding="utf-8")
    section = card.partition(f"### {config}.json\n")[2].partition("\n#")[0]
    rows = re.findall(r"^\| `(\w+)` \| `([^|]*)` \| ([^|]*) \| ([^|]+) \|$", section, flags=re.MULTILINE)

    defaults = {
        key: value if isinstance(value, str) else json.dumps(value)
        for key, value in variables(read(name, config)).items()
    }
    assert {variable: default for variable, default, _, _ in rows} == defaults
    assert all(meaning.strip() for *_, meaning in rows)


@each_bundle
def test_model_card_gives_the_number_of_parameters(name: str):
    card = (BUNDLES / name / "docs" / "README.md").read_text(encoding="utf-8")
    row = re.search(r"^\| parameters \| ([\d,]+) \(.*\) \| ([\d,]+) \(", card, flags=re.MULTILINE)
    assert row is not None

    for profile, written in zip(((), ("small",)), row.groups(), strict=True):
        parser = ConfigParser()
        parser.read_config(config_paths(name, "train", *profile))
        network = parser.get_parsed_content("network_def")
        assert f"{sum(parameter.numel() for parameter in network.parameters()):,}" == written
