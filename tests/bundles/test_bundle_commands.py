"""The bundles from a shell, as the model card writes it: training, evaluation, inference, bad input."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from scipy import ndimage
from tests.monai_command import OTHERS, every_bundle, first_bundle_or_slow, run, tiny_training
from tests.tiny_sites import make_tiny_sites

from brats_fl.bundle import build_network
from brats_fl.constants import REGIONS
from brats_fl.network.checkpoints import check_state, read_state
from brats_fl.scoring.columns import ALL_COLUMNS

EVALUATE = ("train", "evaluate", "small")
INFERENCE = ("inference", "small")
TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2")


def random_model(bundle: Path, folder: Path) -> Path:
    """``model.pt`` with random weights of the profile ``small``."""
    torch.save(build_network(bundle, "small", seed=0).state_dict(), folder / "model.pt")
    return folder / "model.pt"


def turn(site: Path, case: str) -> None:
    """Write a case's files anew with the first axis the other way round; the patient stays where he is."""
    for path in (site / case).iterdir():
        volume = nib.load(path)
        voxels = np.asanyarray(volume.dataobj)
        flip = np.diag([-1.0, 1, 1, 1])
        flip[0, 3] = voxels.shape[0] - 1
        nib.save(nib.Nifti1Image(voxels[::-1].copy(), volume.affine @ flip), path)


def assert_is_model_of(bundle: Path, model: Path) -> None:
    check_state(read_state(model), build_network(bundle, "small", seed=0))


def assert_has_geometry_of(mask: Path, scan: Path) -> None:
    predicted, original = nib.load(mask), nib.load(scan)
    assert predicted.shape == original.shape
    np.testing.assert_allclose(predicted.affine, original.affine, atol=1e-5)
    assert set(np.unique(np.asanyarray(predicted.dataobj))) <= {0, 1, 2, 4}


@first_bundle_or_slow
def test_training_writes_the_best_model_and_inference_segments_cases_with_it(bundle: Path, tmp_path: Path):
    site = make_tiny_sites(tmp_path / "sites", {"hospital-1": (1, 1, 0)}) / "hospital-1"
    cases = ["hospital-1-case-001", "hospital-1-case-002"]

    trained = run(bundle, ("train", "small"), **tiny_training(site, tmp_path))

    assert trained.returncode == 0, trained.stderr
    assert "train_loss" in trained.stdout
    assert "Got new best metric of val_mean_dice" in trained.stdout
    assert_is_model_of(bundle, tmp_path / "models" / "model.pt")

    (site / cases[0] / f"{cases[0]}_seg.nii.gz").unlink()  # inference needs no label
    inferred = run(bundle, INFERENCE, dataset_dir=site, ckpt_dir=tmp_path / "models", output_dir=tmp_path / "masks")

    assert inferred.returncode == 0, inferred.stderr
    assert sorted(path.name for path in (tmp_path / "masks").glob("*.nii.gz")) == [f"{c}_seg.nii.gz" for c in cases]
    for case in cases:
        assert_has_geometry_of(tmp_path / "masks" / f"{case}_seg.nii.gz", site / case / f"{case}_flair.nii.gz")


@first_bundle_or_slow
def test_evaluation_puts_masks_where_the_label_is_in_scans_that_lie_either_way(bundle: Path, tmp_path: Path):
    site = make_tiny_sites(tmp_path / "sites", {"hospital-1": (1, 0, 2)}) / "hospital-1"
    first, second = "hospital-1-case-002", "hospital-1-case-003"
    turn(site, second)
    # A network of one voxel that knows how the tiny tumours look: z > 1 in t1c is their enhancing rim, taken for ET and
    # for all of the core; z > 1 in t2f is oedema and rim.
    weight = torch.zeros(3, 4, 1, 1, 1)
    weight[0, 0] = weight[2, 0] = weight[1, 3] = 10.0
    torch.save({"weight": weight, "bias": torch.full((3,), -10.0)}, tmp_path / "model.pt")
    network = {"_target_": "torch.nn.Conv3d", "in_channels": 4, "out_channels": 3, "kernel_size": 1}

    done = run(
        bundle,
        ("train", "evaluate"),
        network_def=json.dumps(network),
        spacing_mm=[2.0, 2.0, 2.0],
        data_list_file_path=site / "datalist.json",
        checkpoint=tmp_path / "model.pt",
        output_dir=tmp_path / "out",
        save_masks=True,
    )

    assert done.returncode == 0, done.stderr
    with (tmp_path / "out" / "evaluation.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == ALL_COLUMNS
    assert [(row["case"], row["region"]) for row in rows] == [(c, r) for c in (first, second) for r in REGIONS]
    assert {(row["site"], row["split"]) for row in rows} == {("hospital-1", "testing")}
    assert all(float(row["dice"]) > 0.9 for row in rows if row["region"] == "et")
    for case in (first, second):
        mask = tmp_path / "out" / "masks" / f"{case}_seg.nii.gz"
        assert_has_geometry_of(mask, site / case / f"{case}_t1ce.nii.gz")
        rim = np.asanyarray(nib.load(mask).dataobj) == 4
        truth = np.asanyarray(nib.load(site / case / f"{case}_seg.nii.gz").dataobj) == 4
        assert 2 * (rim & truth).sum() / (rim.sum() + truth.sum()) > 0.9
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["cases"] == 2
    assert set(summary["regions"]) == set(REGIONS)
    # Calibration is over the brain within 10 mm of the whole tumour, on the scans' own grid.
    assert all(0 <= float(row["ece"]) < 0.1 and 0 < float(row["entropy_bits"]) < 0.5 for row in rows)
    near = sum(count_near_tumour(site / case / case) for case in (first, second))
    for region in REGIONS:
        assert sum(row["voxels"] for row in summary["reliability"][region]) == near


def count_near_tumour(stem: Path) -> int:
    """Voxels of the brain within 10 mm of the tumour, at 2 mm."""
    scan, label = (np.asanyarray(nib.load(f"{stem}_{name}.nii.gz").dataobj) for name in ("flair", "seg"))
    return int(((ndimage.distance_transform_edt(label == 0) * 2 <= 10) & (scan != 0)).sum())


@pytest.mark.parametrize("bundle", OTHERS, ids=lambda path: path.name)
def test_every_bundle_is_evaluated_by_the_same_command(bundle: Path, shared_sites: Path, tmp_path: Path):
    done = run(
        bundle,
        EVALUATE,
        data_list_file_path=shared_sites / "hospital-1" / "datalist.json",
        checkpoint=random_model(bundle, tmp_path),
        output_dir=tmp_path / "out",
    )

    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out" / "evaluation.csv").is_file()
    assert not (tmp_path / "out" / "masks").exists()  # they were not asked for


@first_bundle_or_slow
def test_weights_of_another_architecture_are_refused_with_the_file_and_the_mend(
    bundle: Path, shared_sites: Path, tmp_path: Path
):
    model = tmp_path / "model.pt"
    torch.save(torch.nn.Conv3d(4, 3, 1).state_dict(), model)

    done = run(
        bundle,
        EVALUATE,
        data_list_file_path=shared_sites / "hospital-1" / "datalist.json",
        checkpoint=model,
        output_dir=tmp_path / "out",
    )

    assert done.returncode != 0
    assert f"brats_fl.errors.ModelError: {model}: these are parameters of another network" in done.stderr
    assert "use the bundle and profile that they were trained with" in done.stderr
    assert done.stderr.splitlines()[-1].startswith(f"error: {model}: these are parameters")  # the reason comes last
    assert not (tmp_path / "out").exists()


@first_bundle_or_slow
def test_corrupt_scan_costs_no_other_case_its_mask_and_is_the_last_that_inference_says(bundle: Path, tmp_path: Path):
    site = make_tiny_sites(tmp_path / "sites", {"hospital-1": (2, 0, 0)}) / "hospital-1"
    damaged = site / "hospital-1-case-001" / "hospital-1-case-001_t2.nii.gz"
    damaged.write_bytes(damaged.read_bytes()[:5000])  # a download that broke off
    random_model(bundle, tmp_path)

    done = run(bundle, INFERENCE, dataset_dir=site, ckpt_dir=tmp_path, output_dir=tmp_path / "masks")

    assert done.returncode == 1
    last = done.stderr.splitlines()[-2:]
    assert last[0] == "error: 1 of 2 cases were not segmented"
    assert last[1].startswith(f"hospital-1-case-001: reading: t2w: {damaged} is cut short")
    assert [path.name for path in (tmp_path / "masks").glob("*.nii.gz")] == ["hospital-1-case-002_seg.nii.gz"]


@pytest.mark.slow
@every_bundle
def test_two_processes_train_together_and_write_one_model(bundle: Path, tmp_path: Path):
    site = make_tiny_sites(tmp_path / "sites", {"hospital-1": (3, 3, 0)}) / "hospital-1"

    done = run(bundle, ("train", "multi_gpu_train", "small"), *TORCHRUN, **tiny_training(site, tmp_path), batch_size=1)

    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Epoch[1] Metrics") == 1  # one process reports
    assert_is_model_of(bundle, tmp_path / "models" / "model.pt")


@first_bundle_or_slow
def test_two_processes_train_a_sites_part_of_a_federation(bundle: Path, tmp_path: Path):
    site = make_tiny_sites(tmp_path / "sites", {"hospital-1": (3, 2, 0)}) / "hospital-1"
    # What each process has before and after the study, and the learning rate of its last step.
    has = "(@network.module.state_dict(), @optimizer.param_groups[0]['lr'])"
    before, after = (f"$torch.save({has}, @kept_in + '/{when}-' + os.environ['RANK'])" for when in ("start", "end"))
    run_and_keep = [before, "$@train#trainer.run()", after]
    (tmp_path / "keep.json").write_text(json.dumps({"kept_in": str(tmp_path), "run": run_and_keep}))
    settings = tiny_training(site, tmp_path) | {"rounds": 2, "local_epochs": 1, "batch_size": 1}
    del settings["epochs"]  # they follow from the rounds

    configs = ("train", "small", "federated", "multi_gpu_train", str(tmp_path / "keep.json"))
    done = run(bundle, configs, *TORCHRUN, **settings)

    assert done.returncode == 0, done.stderr
    (start, _), (first, rate), (second, _) = (
        torch.load(tmp_path / name, weights_only=True) for name in ("start-0", "end-0", "end-1")
    )
    assert all(torch.equal(first[name], second[name]) for name in start)
    assert not any(torch.equal(first[name], start[name]) for name in start)
    assert rate == pytest.approx(0.003 * (1 - 3 / 4) ** 0.9)  # the last of 2 rounds of 2 steps
    assert "Metrics" not in done.stdout  # no validation
    assert not (tmp_path / "models").exists()  # no checkpoint


@pytest.mark.slow
@every_bundle
def test_bundle_is_verified_and_exported_by_monais_commands(bundle: Path, tmp_path: Path):
    torch.save(build_network(bundle, "full", seed=0).state_dict(), tmp_path / "model.pt")
    files = ["--meta_file", "configs/metadata.json", "--config_file", "configs/inference.json"]
    weights = ["--ckpt_file", str(tmp_path / "model.pt")]
    for arguments in (
        ["verify_net_in_out", "network_def", *files],
        ["ckpt_export", "network_def", "--filepath", str(tmp_path / "model.ts"), *weights, *files],
        ["onnx_export", "network_def", "--filepath", str(tmp_path / "model.onnx"), *weights, *files],
    ):
        command = [sys.executable, "-m", "monai.bundle", *arguments]
        done = subprocess.run(command, cwd=bundle, capture_output=True, text=True, timeout=600, check=False)
        assert done.returncode == 0, done.stderr

    assert (tmp_path / "model.ts").stat().st_size > 1e6
    assert (tmp_path / "model.onnx").stat().st_size > 1e6
