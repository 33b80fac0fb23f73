"""What is checked before an evaluation starts, and what is said when it fails."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import typer
from tests.tiny_sites import corrupt, make_tiny_sites

from brats_fl.bundle import build_network
from brats_fl.cases.datalists import DataList, read_datalist, write_datalist
from brats_fl.errors import DataListError, ModelError, RunError
from brats_fl.scoring.calibration import reliability
from brats_fl_tools.model.evaluate import evaluate, evaluate_sites, read_bins, reason
from brats_fl_tools.model.evaluation_folder import sites_with_cases
from brats_fl_tools.model.trained import check_model, profile_of, resolve_bundle
from brats_fl_tools.repository import BUNDLES

BUNDLE = BUNDLES / "brats_attention_unet"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """Random weights of the profile ``small``, as FLARE's persistor writes them."""
    path = tmp_path / "global_model.pt"
    torch.save({"model": build_network(BUNDLE, "small", seed=0).state_dict(), "train_conf": {}}, path)
    return path


def test_model_of_the_bundle_and_profile_passes(model: Path):
    check_model(BUNDLE, model, "small")


def test_model_of_another_profile_is_refused_with_both_shapes(model: Path):
    with pytest.raises(ModelError) as caught:
        check_model(BUNDLE, model, "full")

    message = str(caught.value)
    assert message.startswith(
        f"brats_attention_unet with profile full: {model}: these are parameters of another network"
    )
    assert "; 101 have another shape: " in message
    assert " (8, 4, 3, 3, 3) in place of (16, 4, 3, 3, 3), " in message
    assert message.endswith("use the bundle and profile that they were trained with")


def test_model_of_another_bundle_is_refused(model: Path):
    with pytest.raises(ModelError, match=r"brats_unet with profile small: .* 97 of 97 are missing: .* are unknown: "):
        check_model(BUNDLES / "brats_unet", model, "small")


def test_model_with_a_value_that_is_not_finite_is_refused(tmp_path: Path):
    state = build_network(BUNDLE, "small", seed=0).state_dict()
    name = next(iter(state))
    state[name][0] = float("nan")
    torch.save(state, tmp_path / "model.pt")

    with pytest.raises(ModelError, match="holds NaN or infinite values"):
        check_model(BUNDLE, tmp_path / "model.pt", "small")


def test_file_that_is_missing_or_no_checkpoint_is_refused(tmp_path: Path):
    with pytest.raises(ModelError, match="no such checkpoint"):
        check_model(BUNDLE, tmp_path / "none.pt", "small")

    (tmp_path / "text.pt").write_text("not weights")
    with pytest.raises(ModelError, match=r"text\.pt: is no checkpoint of weights"):
        check_model(BUNDLE, tmp_path / "text.pt", "small")

    torch.save({"epoch": 3}, tmp_path / "epoch.pt")
    with pytest.raises(ModelError, match=r"epoch\.pt: holds no state dict"):
        check_model(BUNDLE, tmp_path / "epoch.pt", "small")


def test_sites_are_counted_and_one_without_cases_is_left_out(shared_sites: Path, capsys: pytest.CaptureFixture[str]):
    assert sites_with_cases(shared_sites, "testing") == {"hospital-1": 1}
    assert "hospital-2: no case for testing, left out" in capsys.readouterr().out
    assert sites_with_cases(shared_sites, "training") == {"hospital-1": 3, "hospital-2": 1}


def test_split_that_no_site_has_is_refused(tmp_path: Path):
    write_datalist(tmp_path / "hospital-1" / "datalist.json", DataList("hospital-1"))

    with pytest.raises(DataListError, match="no site has a case for testing; make data lists with"):
        sites_with_cases(tmp_path, "testing")


def test_case_without_a_label_is_named(shared_sites: Path, tmp_path: Path):
    datalist = read_datalist(shared_sites / "hospital-1" / "datalist.json")
    case = replace(datalist.testing[0], label=None)
    write_datalist(tmp_path / "hospital-1" / "datalist.json", replace(datalist, testing=(case,)))

    with pytest.raises(DataListError, match=f"testing holds {case.case} without a label"):
        sites_with_cases(tmp_path, "testing")


@pytest.mark.parametrize("result", ["evaluation.csv", "masks"])
def test_results_of_an_earlier_evaluation_are_kept_without_force(
    result: str, model: Path, shared_sites: Path, tmp_path: Path
):
    (tmp_path / "out" / result).mkdir(parents=True)

    with pytest.raises(RunError, match=f"{result} exists; choose another --out or add --force"):
        evaluate_sites(BUNDLE, model, shared_sites, tmp_path / "out", "small")


def test_bundle_is_found_by_path_or_by_name(tmp_path: Path):
    assert resolve_bundle(BUNDLE) == BUNDLE
    assert resolve_bundle(Path("brats_attention_unet")) == BUNDLE
    with pytest.raises(ModelError, match="no bundle there; give a folder"):
        resolve_bundle(tmp_path)


def test_profile_is_that_of_the_run_folder_else_full(tmp_path: Path):
    assert profile_of(tmp_path / "model.pt") == "full"
    (tmp_path / "run.json").write_text(json.dumps({"profile": "small"}))
    assert profile_of(tmp_path / "model.pt") == "small"


def test_reason_of_a_failure_is_what_was_told_last_else_an_error_of_ours_in_the_log(tmp_path: Path):
    log = tmp_path / "evaluate.log"
    log.write_text("brats_fl.errors.CaseError: x\nRuntimeError\nerror: 1 of 2 cases\ncase-7: reading: cut short\n")
    assert reason(log) == "1 of 2 cases\ncase-7: reading: cut short"

    log.write_text("Traceback\nbrats_fl.errors.CaseError: case-7: t2w is missing\nRuntimeError: applying transform\n")
    assert reason(log) == "case-7: t2w is missing"

    log.write_text("Traceback\nMemoryError\n")
    assert reason(log) == "MemoryError"


def test_bins_of_a_hospital_are_kept_as_the_bundles_command_left_them(tmp_path: Path):
    found = reliability(np.array([0.25, 0.75, 0.78]), np.array([True, False, True]))
    summary = {"site": "hospital-1", "reliability": {"wt": found.as_table()}}
    (tmp_path / "summary.json").write_text(json.dumps(summary))

    bins = read_bins(tmp_path)["wt"]

    assert bins[2] == {"voxels": 1, "mean_probability": 0.25, "share": 1.0}
    assert bins[7] == {"voxels": 2, "mean_probability": pytest.approx(0.765), "share": 0.5}
    assert bins[0] == {"voxels": 0, "mean_probability": None, "share": None}


def test_unknown_split_is_wrong_usage(tmp_path: Path):
    with pytest.raises(typer.BadParameter, match="must be one of training, validation, testing"):
        evaluate(tmp_path, tmp_path, [BUNDLE], model=[tmp_path], split="test")


@pytest.mark.slow
def test_evaluation_that_fails_names_hospital_case_step_and_file(tmp_path: Path):
    sites = make_tiny_sites(tmp_path / "sites", {"hospital-1": (0, 0, 2)})
    scan = sites / "hospital-1" / "hospital-1-case-002" / "hospital-1-case-002_t2.nii.gz"
    corrupt(scan)
    torch.save(build_network(BUNDLE, "small", seed=0).state_dict(), tmp_path / "model.pt")

    with pytest.raises(RunError) as caught:
        evaluate_sites(BUNDLE, tmp_path / "model.pt", sites, tmp_path / "out", "small")

    assert str(caught.value).startswith(f"hospital-1: hospital-1-case-002: t2w: {scan} cannot be read as NIfTI (")
