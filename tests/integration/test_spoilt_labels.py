"""A study in FLARE's simulator that spoils the labels of one hospital: its report names that hospital, and no other."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.integration.test_study import STUDY, write_plain_job
from tests.tiny_sites import make_tiny_sites

from brats_fl_tools.acceptance.command import write_acceptance
from brats_fl_tools.study.command import run_study

pytestmark = pytest.mark.slow

SPOILT = (
    STUDY.replace('baselines = ["local", "central", "leave-one-out"]\n', "")
    .replace("steps_per_epoch = 2", "steps_per_epoch = 20\nlearning_rate = 0.05")
    .replace("[jobs.own]", '[spoilt.sites]\nsouth = "swapped"\n\n[jobs.own]')
)
CASES = dict.fromkeys(("north", "south", "west"), (3, 5, 5))


def test_hospital_that_trains_on_swapped_labels_is_named_and_the_study_is_no_go(tmp_path: Path):
    write_plain_job(tmp_path)
    make_tiny_sites(tmp_path / "sites", CASES)
    (tmp_path / "study.toml").write_text(SPOILT, encoding="utf-8")
    (tmp_path / "thresholds.toml").write_text("least_mean_dice = 0.01\n", encoding="utf-8")

    run_study(tmp_path / "study.toml", tmp_path / "out")
    write_acceptance(tmp_path / "out", with_gate=False)

    figures = json.loads((tmp_path / "out" / "acceptance.json").read_text(encoding="utf-8"))
    assert figures["labels_spoilt_on_purpose"][0]["named_by"] == ["own"], figures["why"]
    assert (figures["verdict"], figures["named_hospitals"]) == ("no go", ["south"])
