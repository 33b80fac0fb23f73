"""Weights of synthetic cases alone: what is refused, and what is said of them where they go out."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import pytest
import torch
from tests.conftest import TinySites
from tests.run_folders import write_run
from typer.testing import CliRunner

from brats_fl.bundle import build_network
from brats_fl.errors import BratsFLError, DataListError
from brats_fl_tools.baseline.pretrain import WHAT, count_cases, write_weights
from brats_fl_tools.cli import app
from brats_fl_tools.jobs.options import JobFlags
from brats_fl_tools.jobs.source import read_source
from brats_fl_tools.repository import BUNDLES
from brats_fl_tools.runs.lists import find_seen, write_seen

JOB = "brats_unet_fedavg"


def refusal(out: Path, *options: str) -> str:
    result = CliRunner().invoke(app, ["pretrain", "--out", str(out), "--profile", "small", *options])
    assert isinstance(result.exception, BratsFLError), result.output
    return str(result.exception)


@pytest.fixture
def out(tmp_path: Path, tiny_sites: TinySites) -> Path:
    """A folder in which the sample's run has just finished."""
    sites = tiny_sites({"hospital-1": (1, 0, 1)})
    facts = {"profile": "small", "seed": 3, "parameters": 4812512, "sites_dir": "/home/lead/sites"}
    run = write_run(tmp_path / "out" / "central" / "pooled", **facts)
    state = build_network(BUNDLES / "brats_unet", "small", seed=1).state_dict()
    torch.save({"model": state, "rounds_done": 3, "train_conf": {}}, run / "global_model.pt")
    write_seen(run, sites, ["hospital-1"])
    return tmp_path / "out"


def test_card_says_what_the_weights_are_and_names_neither_places_nor_machines(out: Path):
    write_weights(out, {"what": WHAT, "sample": {"seed": 0}, "steps": 120})

    text = (out / "model.json").read_text(encoding="utf-8")
    card = json.loads(text)
    assert card["what"] == WHAT
    assert card["model_sha256"] == hashlib.sha256((out / "model.pt").read_bytes()).hexdigest()
    assert (card["job"], card["bundle"], card["profile"], card["seed"], card["steps"]) == (
        *(JOB, "brats_unet", "small", 3, 120),
    )
    assert card["dice_on_synthetic_test_cases"]["tc"] == 0.64  # of .9 .7 .5 .1 1.0
    assert "torch" in card["versions"]
    assert [told for told in ("/home/lead", "machine", str(out)) if told in text] == []


def test_weights_are_plain_and_a_job_starts_from_the_folder(out: Path):
    write_weights(out, {})

    assert set(torch.load(out / "model.pt", weights_only=True)) == set(
        build_network(BUNDLES / "brats_unet", "small", seed=0).state_dict()
    )
    options = JobFlags("small", start_from=out).options(read_source(JOB))
    assert options.start_sha256 == json.loads((out / "model.json").read_text())["model_sha256"]
    assert find_seen(out / "model.pt", out.parent / "sites", ["hospital-1"], "training") == [
        "hospital-1/hospital-1-case-001"
    ]


def test_case_of_a_patient_in_the_sample_is_refused(tiny_sites: TinySites):
    with pytest.raises(DataListError, match="training holds hospital-1-case-001, which bears no mark of a synthetic"):
        count_cases(tiny_sites({"hospital-1": (1, 0, 1)}) / "hospital-1" / "datalist.json")


def test_given_model_a_job_that_trains_nothing_and_a_folder_of_others_are_refused(tmp_path: Path):
    assert "nobody could say what such a model had seen" in refusal(tmp_path / "out", "--start-from", "m.pt")
    assert "trains nothing" in refusal(tmp_path / "out", "--job", "brats_statistics")
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "thesis.txt").write_text("mine")
    assert "is not empty and no pretraining of brats-fl's" in refusal(tmp_path / "theirs", "--force")


def test_weights_that_are_there_are_replaced_with_force_only(out: Path):
    write_weights(out, {})
    (out / ".brats-fl").write_text("pretraining\n")
    shutil.rmtree(out / "central")

    assert "model.pt exists; choose another --out or add --force" in refusal(out)
