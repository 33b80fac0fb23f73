"""Several models used as one, by ``segment``, ``evaluate`` and ``export`` alike.

The networks of these tests find a voxel where 10 z + bias > 0. With biases of -10 and -20 the probabilities add up to 1
where z = 1.5, so that their mean makes the mask of one network with a bias of -15.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import monai.bundle
import nibabel as nib
import numpy as np
import pytest
import torch
import typer
from monai.bundle import ConfigParser
from tests.tiny_sites import make_tiny_sites
from tests.voxel_bundle import make_voxel_bundle
from typer.testing import CliRunner

from brats_fl.errors import ModelError
from brats_fl.provenance import hash_file
from brats_fl_tools.model.engine import engine_settings
from brats_fl_tools.model.ensemble import digests_of, find_models, post_processing
from brats_fl_tools.model.evaluate import evaluation_settings, name_models
from brats_fl_tools.model.export import export, export_ensemble
from brats_fl_tools.model.exported import EXPORTS_FILE
from brats_fl_tools.model.segment import segment
from brats_fl_tools.model.trained import find_model
from brats_fl_tools.repository import BUNDLES

app = typer.Typer()
app.command()(segment)


def set_value(bundle: Path, **values: object) -> None:
    """Change variables of a bundle's configurations."""
    for name in ("train", "inference"):
        path = bundle / "configs" / f"{name}.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | values))


@pytest.fixture
def bundles(tmp_path: Path) -> dict[int, Path]:
    """By the bias; that of -20 has another window."""
    made = {bias: make_voxel_bundle(tmp_path / f"bias{bias}", float(bias)) for bias in (-10, -15, -20)}
    set_value(made[-20], patch_size=[48, 48, 48])
    return made


@pytest.fixture
def sites(tmp_path: Path) -> Path:
    return make_tiny_sites(tmp_path / "sites", {"hospital-1": (0, 0, 1)})


def checkpoint(bundle: Path) -> Path:
    return bundle / "models" / "model.pt"


def run_segment(*arguments: object) -> list[str]:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output.splitlines()


def mask_of(folder: Path) -> np.ndarray:
    (file,) = folder.rglob("*_seg.nii.gz")
    return np.asanyarray(nib.load(file).dataobj)


def test_mask_is_of_the_mean_probability_and_names_every_model(bundles: dict[int, Path], sites: Path, tmp_path: Path):
    exact = ("--set", "amp=false")  # to the voxel, where bfloat16 would round the logits of each model on its own
    lines = run_segment(
        checkpoint(bundles[-10]), sites / "hospital-1", "--model", bundles[-20], "--out", tmp_path / "both", *exact
    )
    for bias in (-10, -15):
        run_segment(bundles[bias], sites / "hospital-1", "--out", tmp_path / f"mask{bias}", *exact)

    assert any("mean of 2 models, bias-" in line for line in lines)
    np.testing.assert_array_equal(mask_of(tmp_path / "both"), mask_of(tmp_path / "mask-15"))
    assert (mask_of(tmp_path / "both") != mask_of(tmp_path / "mask-10")).any()
    (record,) = (tmp_path / "both").glob("*_seg.json")
    assert len(set(json.loads(record.read_text())["maker"]["members_sha256"])) == 2
    page = (tmp_path / "both" / "segment.html").read_text(encoding="utf-8")
    for bias in (-10, -20):
        assert f"bias{bias}/model.pt, SHA-256 {hash_file(bundles[bias] / 'models' / 'model.pt')[:12]}" in page


def test_order_of_the_models_makes_no_other_mask(bundles: dict[int, Path], sites: Path, tmp_path: Path):
    run_segment(checkpoint(bundles[-10]), sites / "hospital-1", "--model", bundles[-20], "--out", tmp_path / "out")

    lines = run_segment(
        checkpoint(bundles[-20]), sites / "hospital-1", "--model", bundles[-10], "--out", tmp_path / "out"
    )

    assert any(line.startswith("1/1 case=hospital-1-case-001 done") for line in lines)


@pytest.mark.filterwarnings("ignore:parsing config_file")
def test_evaluation_scores_the_mask_that_is_delivered(bundles: dict[int, Path], sites: Path, tmp_path: Path):
    for bundle in bundles.values():
        shutil.copy(BUNDLES / "brats_unet" / "configs" / "evaluate.json", bundle / "configs")
    models = find_models([bundles[-10], bundles[-20]])
    run_segment(checkpoint(bundles[-10]), sites / "hospital-1", "--model", bundles[-20], "--out", tmp_path / "masks")
    out = tmp_path / "scratch" / "hospital-1"
    out.mkdir(parents=True)

    settings = evaluation_settings(models, sites / "hospital-1" / "datalist.json", out, "testing", True, {})
    config = {**settings, "config_file": json.loads(settings["config_file"]), "save_masks": True}
    monai.bundle.run(**config)

    np.testing.assert_array_equal(mask_of(out), mask_of(tmp_path / "masks"))
    assert "hospital-1-case-001,hospital-1,testing,et" in (out / "evaluation.csv").read_text()


@pytest.mark.parametrize("count", [1, 2])
def test_evaluation_is_by_the_engine_that_is_asked_for_and_on_the_cpu(
    bundles: dict[int, Path], tmp_path: Path, count: int
):
    for bundle in bundles.values():
        shutil.copy(BUNDLES / "brats_unet" / "configs" / "evaluate.json", bundle / "configs")
    models = find_models([bundles[-10], bundles[-20]][:count])
    (tmp_path / "out").mkdir()

    settings = evaluation_settings(models, tmp_path / "datalist.json", tmp_path / "out" / "site", "testing", False, {})
    settings |= engine_settings("onnx", "validate#inferer")

    parser = ConfigParser()
    parser.read_config(json.loads(settings.pop("config_file")))
    parser.update(settings)
    assert parser.get_parsed_content("validate#inferer").engine == "onnx"
    assert parser.get_parsed_content("device") == torch.device("cpu")


def test_evaluation_names_every_model_with_its_digest(bundles: dict[int, Path]):
    models = find_models([bundles[-10], bundles[-20]])

    facts = name_models(models)

    assert facts["model"] == "mean of 2 models"
    assert facts["models_sha256"] == {
        f"bias{bias}/model.pt": hash_file(bundles[bias] / "models" / "model.pt") for bias in (-10, -20)
    }
    assert set(facts["bundle"].split(" and ")) == {"bias-10", "bias-20"}
    assert len(digests_of([*models, *models])) == 4  # of one name, and told apart all the same


def test_export_makes_the_mask_of_segment_by_the_bundle_s_own_inference(
    bundles: dict[int, Path], sites: Path, tmp_path: Path
):
    run_segment(checkpoint(bundles[-10]), sites / "hospital-1", "--model", bundles[-20], "--out", tmp_path / "masks")
    weights = [bundles[bias] / "models" / "model.pt" for bias in (-10, -20)]
    bundle = make_voxel_bundle(tmp_path / "exported")
    (bundle / "models" / "model.pt").unlink()

    written = export_ensemble(weights, bundle)

    names = ["ensemble.json", "model-1.pt", "model-2.pt"]
    assert [path.name for path in written] == [*names[1:], names[0], "README.md"]
    assert {path.name for path in (bundle / "models").iterdir()} == {*names, EXPORTS_FILE}
    card = (bundle / "docs" / "README.md").read_text(encoding="utf-8")
    assert all(f"  - SHA-256 {hash_file(path)}\n" in card for path in weights)
    assert "The models were not tested as one." in card
    shutil.rmtree(bundles[-10])
    shutil.rmtree(bundles[-20])
    parser = ConfigParser()
    parser.read_config([str(bundle / "configs" / "inference.json"), str(bundle / "models" / "ensemble.json")])
    parser.update({"bundle_root": str(bundle), "dataset_dir": str(sites), "output_dir": str(tmp_path / "by-monai")})
    evaluator = parser.get_parsed_content("evaluator")
    parser.get_parsed_content("checkpointloader")(evaluator)
    evaluator.run()
    np.testing.assert_array_equal(mask_of(tmp_path / "by-monai"), mask_of(tmp_path / "masks"))
    (one,), (other,) = ((tmp_path / name).glob("*_seg.json") for name in ("by-monai", "masks"))
    assert json.loads(one.read_text())["maker"] == json.loads(other.read_text())["maker"]


@pytest.mark.filterwarnings("ignore:parsing config_file")
def test_bundle_into_which_several_models_were_exported_is_them_for_segment_and_evaluate(
    bundles: dict[int, Path], sites: Path, tmp_path: Path
):
    run_segment(checkpoint(bundles[-10]), sites / "hospital-1", "--model", bundles[-20], "--out", tmp_path / "masks")
    bundle = make_voxel_bundle(tmp_path / "exported")
    (bundle / "models" / "model.pt").unlink()
    export_ensemble([checkpoint(bundles[bias]) for bias in (-10, -20)], bundle)
    shutil.rmtree(bundles[-10])
    shutil.rmtree(bundles[-20])

    lines = run_segment(bundle, sites / "hospital-1", "--out", tmp_path / "again")

    assert any("mean of 2 models, exported, profile full" in line for line in lines)
    np.testing.assert_array_equal(mask_of(tmp_path / "again"), mask_of(tmp_path / "masks"))
    models = find_models([bundle], [bundle])
    assert sorted(model.own["patch_size"][0] for model in models) == [32, 48]
    out = tmp_path / "scratch" / "hospital-1"
    out.mkdir(parents=True)
    settings = evaluation_settings(models, sites / "hospital-1" / "datalist.json", out, "testing", True, {})
    monai.bundle.run(**{**settings, "config_file": json.loads(settings["config_file"]), "save_masks": True})
    np.testing.assert_array_equal(mask_of(out), mask_of(tmp_path / "masks"))


def test_bundle_of_an_ensemble_is_refused_where_one_model_is_asked_for_or_it_was_changed(
    bundles: dict[int, Path], tmp_path: Path
):
    bundle = make_voxel_bundle(tmp_path / "exported")
    (bundle / "models" / "model.pt").unlink()
    export_ensemble([checkpoint(bundles[bias]) for bias in (-10, -20)], bundle)
    with pytest.raises(ModelError, match="exported holds several models, used as one; give one of their"):
        find_model(bundle)
    with pytest.raises(ModelError, match="exported holds several models with networks of their own; give it as the"):
        find_models([bundle], [bundles[-10]])

    set_value(bundle, spacing_mm=[1.0, 1.0, 1.0])
    with pytest.raises(ModelError, match=r"ensemble\.json: has voxels of \[2\.0, 2\.0, 2\.0\] mm, and profiles of exp"):
        find_models([bundle])


def test_first_bundle_is_the_bundle_of_the_models_and_its_own_weights_are_not_used(
    bundles: dict[int, Path], sites: Path, tmp_path: Path
):
    alone = shutil.copy(checkpoint(bundles[-15]), tmp_path / "pulled.pt")

    lines = run_segment(bundles[-10], "--model", alone, sites / "hospital-1", "--out", tmp_path / "masks")

    assert f"note: {alone} is used, not what lies in {bundles[-10] / 'models'}" in lines
    assert f"{alone}: bias-10, profile full; 1 cases" in lines
    run_segment(bundles[-15], sites / "hospital-1", "--out", tmp_path / "wanted")
    np.testing.assert_array_equal(mask_of(tmp_path / "masks"), mask_of(tmp_path / "wanted"))


def test_bundle_takes_several_models_and_is_given_once(bundles: dict[int, Path], sites: Path, tmp_path: Path):
    pulled = [shutil.copy(checkpoint(bundles[bias]), tmp_path / f"{bias}.pt") for bias in (-10, -20)]
    both = [part for path in pulled for part in ("--model", path)]

    run_segment(bundles[-15], *both, sites / "hospital-1", "--out", tmp_path / "masks")

    run_segment(bundles[-15], sites / "hospital-1", "--out", tmp_path / "wanted")
    np.testing.assert_array_equal(mask_of(tmp_path / "masks"), mask_of(tmp_path / "wanted"))
    with pytest.raises(ModelError, match="are two bundles for one set of models; leave --bundle out"):
        run_segment(bundles[-15], *both, "--bundle", bundles[-10], sites / "hospital-1", "--out", tmp_path / "other")


def test_export_of_several_models_is_no_graph_and_replaces_with_force_only(bundles: dict[int, Path], tmp_path: Path):
    weights = [bundles[bias] / "models" / "model.pt" for bias in (-10, -20)]
    bundle = make_voxel_bundle(tmp_path / "exported")

    with pytest.raises(ModelError, match="sees one window at a time, and the mean is taken over whole brains"):
        export(weights[0], bundle, others=weights[1:], onnx=True)
    with pytest.raises(ModelError, match=r"models/model\.pt exists; add --force"):
        export_ensemble(weights, bundle)

    assert [path.name for path in (bundle / "models").iterdir()] == ["model.pt"]


def test_models_of_another_input_and_the_same_weights_twice_are_refused(bundles: dict[int, Path], tmp_path: Path):
    with pytest.raises(ModelError, match=r"bias-10/models/model\.pt .* are the same weights, which would count twice"):
        find_models([bundles[-10], bundles[-10]])

    set_value(bundles[-20], spacing_mm=[1.0, 1.0, 1.0])
    with pytest.raises(ModelError, match=r"cannot be put together: spacing_mm is .*\[1\.0, 1\.0, 1\.0\]"):
        find_models([bundles[-10], bundles[-20]])

    with pytest.raises(ModelError, match=r"give one bundle, or one for each of the 3 models \(got 2\)"):
        find_models([bundles[-10]] * 3, [bundles[-10]] * 2)


def test_window_of_several_models_cannot_be_set(bundles: dict[int, Path], sites: Path, tmp_path: Path):
    with pytest.raises(ModelError, match=r"--set patch_size: bias-.* has no such variable"):
        run_segment(
            *(checkpoint(bundles[-10]), sites / "hospital-1", "--model", bundles[-20]),
            *("--set", "patch_size=[32,32,32]", "--out", tmp_path / "out"),
        )


def test_what_was_tuned_for_one_model_is_not_taken_for_the_mean_and_that_is_said(
    bundles: dict[int, Path], capsys: pytest.CaptureFixture[str]
):
    (bundles[-10] / "models" / "postprocessing.json").write_text("{}")

    assert post_processing(find_models([bundles[-10], bundles[-20]])) == {}

    said = capsys.readouterr().err
    assert said.startswith("note: ")
    assert "bias-10/models/postprocessing.json is for one model alone" in said
