"""What was chosen on validation cases lies beside the model and is used wherever it is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.tiny_sites import make_tiny_sites
from typer.testing import CliRunner

from brats_fl.bundle import build_network
from brats_fl.errors import ModelError
from brats_fl.provenance import hash_file
from brats_fl_tools.cli import app
from brats_fl_tools.model.export import export_model
from brats_fl_tools.model.trained import tuned_settings
from brats_fl_tools.repository import BUNDLES

BUNDLE = BUNDLES / "brats_unet"
CHOSEN = {"thresholds": [0.6, 0.5, 0.7], "smallest_wt_share": 0.1, "smallest_et_ml": 0.05}


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """Random weights of profile ``small``, alone in a folder."""
    path = tmp_path / "run" / "global_model.pt"
    path.parent.mkdir()
    torch.save({"model": build_network(BUNDLE, "small", seed=0).state_dict()}, path)
    (path.parent / "run.json").write_text(
        '{"job": "brats_unet_fedavg", "bundle": "brats_unet", "profile": "small"}', encoding="utf-8"
    )
    return path


def write_chosen(model: Path, **changes: Any) -> Path:
    file = model.with_name("postprocessing.json")
    content = {**CHOSEN, "tuned": {"model_sha256": hash_file(model)}, **changes}
    file.write_text(json.dumps(content), encoding="utf-8")
    return file


def test_model_without_a_choice_has_the_bundles_own_post_processing(model: Path):
    assert tuned_settings(model) == {}


def test_choice_is_that_of_the_file_beside_the_model(model: Path):
    write_chosen(model)

    assert tuned_settings(model) == CHOSEN


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"tuned": {"model_sha256": "0" * 64}},
            "was chosen for other weights; remove it, or run `brats-fl tune` again",
        ),
        ({"tuned": None}, "remove it, or run `brats-fl tune` again"),
        ({"thresholds": ["$print(1)", 0.5, 0.5]}, "remove it, or run `brats-fl tune` again"),
        ({"thresholds": [0.5, 0.5]}, "remove it, or run `brats-fl tune` again"),
        ({"smallest_wt_share": 2}, "remove it, or run `brats-fl tune` again"),
    ],
)
def test_choice_that_is_none_or_of_another_model_is_an_error(model: Path, changes: dict[str, Any], message: str):
    file = write_chosen(model, **changes)

    with pytest.raises(ModelError, match=message) as refused:
        tuned_settings(model)

    assert str(refused.value).startswith(str(file))


def test_export_carries_the_choice_for_the_exported_weights(model: Path, tmp_path: Path):
    bundle = tmp_path / "bundle"
    (bundle / "configs").mkdir(parents=True)
    for name in ("train", "small"):
        (bundle / "configs" / f"{name}.json").write_bytes((BUNDLE / "configs" / f"{name}.json").read_bytes())
    write_chosen(model)

    written = export_model(model, bundle)

    assert [path.name for path in written] == ["model.pt", "postprocessing.json", "README.md"]
    assert tuned_settings(bundle / "models" / "model.pt") == CHOSEN
    model.with_name("postprocessing.json").unlink()
    export_model(model, bundle, force=True)
    assert tuned_settings(bundle / "models" / "model.pt") == {}  # none that would be taken for the new one's


def test_choice_is_made_on_validation_cases_and_said_with_its_worth(model: Path, tmp_path: Path):
    sites = make_tiny_sites(
        tmp_path / "sites", {"hospital-1": (1, 3, 1), "hospital-2": (1, 2, 1), "hospital-3": (1, 0, 1)}
    )

    done = CliRunner().invoke(app, ["tune", str(model.parent), "--sites", str(sites)])

    assert done.exit_code == 0, done.output
    assert "hospital-3: no case for validation, left out" in done.output
    assert "mean Dice of 5 validation cases: default 0." in done.output
    content = json.loads(model.with_name("postprocessing.json").read_text(encoding="utf-8"))
    assert content["tuned"]["sites"] == ["hospital-1", "hospital-2"]
    assert content["tuned"]["mean_dice"] >= content["tuned"]["mean_dice_default"]
    assert tuned_settings(model) == {name: content[name] for name in CHOSEN}
    again = CliRunner().invoke(app, ["tune", str(model.parent), "--sites", str(sites)])
    assert isinstance(again.exception, Exception)
    assert "exists; add --force to replace it" in str(again.exception)


def test_too_few_cases_are_told_before_any_is_segmented(model: Path, tmp_path: Path):
    sites = make_tiny_sites(tmp_path / "sites", {"hospital-1": (1, 2, 1)})

    done = CliRunner().invoke(app, ["tune", str(model.parent), "--sites", str(sites)])

    assert "2 cases are too few to choose thresholds on; 5 are the fewest" in str(done.exception)
    assert "segmenting" not in done.output
