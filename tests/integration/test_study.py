"""A study in FLARE's simulator, by one command: interrupted in its first run, gone on with, done."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
from tests.integration.test_own_study import CASES
from tests.integration.test_own_study import write_study as write_job
from tests.tiny_sites import make_tiny_sites

from brats_fl.round_records import read_records
from brats_fl_tools.acceptance.command import write_acceptance
from brats_fl_tools.runs.folder import SIMULATED_SERVER
from brats_fl_tools.study.comparable import differences, read_basis
from brats_fl_tools.study.record import StudyRecord, read_record

pytestmark = pytest.mark.slow

STUDY = """
name = "one convolution"
profile = "small"
rounds = 6
sites = "sites"
baselines = ["local", "central", "leave-one-out"]
thresholds = "thresholds.toml"

[set]
patch_size = [32, 32, 32]
steps_per_epoch = 2
num_workers = 0

[jobs.own]
job = "jobs/own"
"""


def write_plain_job(root: Path) -> None:
    """The job with a network of one convolution, averaged plainly."""
    file = write_job(root) / "job.json"
    differences = json.loads(file.read_text(encoding="utf-8"))
    file.write_text(json.dumps({**differences, "algorithm": "fedavg", "algorithm_settings": {}}), encoding="utf-8")


def test_study_that_was_interrupted_goes_on_and_its_runs_are_comparable(tmp_path: Path):
    write_plain_job(tmp_path)
    make_tiny_sites(tmp_path / "sites", CASES)
    (tmp_path / "study.toml").write_text(STUDY, encoding="utf-8")
    (tmp_path / "thresholds.toml").write_text("least_mean_dice = 0.9\nabove_local = true\n", encoding="utf-8")
    out, federated = tmp_path / "out", tmp_path / "out" / "runs" / "sites-own-seed0"
    command = [sys.executable, "-W", "ignore", "-m", "brats_fl_tools", "study", str(tmp_path / "study.toml")]
    command += ["--out", str(out)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as study:
        while not any(record["round"] >= 1 for record in read_records(federated / SIMULATED_SERVER / "rounds.jsonl")):
            assert study.poll() is None, study.communicate()
            time.sleep(0.2)
        study.send_signal(signal.SIGINT)
        _, told = study.communicate(timeout=120)
    assert study.returncode == 1
    assert "interrupted: sites-own-seed0 was stopped" in told
    assert [run.state for run in read_record(out).runs] == ["interrupted", *["waiting"] * 3]

    done = subprocess.run(command, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr
    record = read_record(out)
    assert [run.state for run in record.runs] == ["finished"] * 4
    facts = json.loads((federated / "run.json").read_text(encoding="utf-8"))
    assert facts["state"] == "finished"
    assert len(facts["parts"]) == 2
    first, *others = [read_basis(out / run.folder) for run in record.runs]
    assert [differences(first, other) for other in others] == [[], [], []]
    assert all((out / part / "run.json").is_file() for run in record.runs for part in run.parts)
    assert not list((tmp_path / "sites").glob("*/cache"))
    check_acceptance(out, record)


def check_acceptance(out: Path, record: StudyRecord) -> None:
    """The report of the study: its figures are those of the tables, and so few cases decide nothing."""
    write_acceptance(out)

    figures = json.loads((out / "acceptance.json").read_text(encoding="utf-8"))
    (job,) = figures["jobs"]
    tables = {run.kind: pd.read_csv(out / run.table) for run in record.runs}
    for kind, table in tables.items():
        assert job["headlines"][kind]["dice"]["value"] == pytest.approx(table["dice"].mean(), abs=1e-6)
    assert (figures["verdict"], figures["left_out"]) == ("undecided", [])
    assert figures["synthetic_cases"] == 0
    without = pd.read_csv(out / "runs" / "sites-own_net-leave-one-out-seed0" / "without-north" / "evaluation.csv")
    others = [table[table["site"] != "north"]["dice"].mean() for table in (tables["federated"], without)]
    assert job["contributions"]["north"]["value"] == pytest.approx(others[0] - others[1], abs=1e-6)
    assert job["members"][0]["part"] == "trained"
    assert [cost["bytes_up"] is not None for cost in figures["costs"]] == [True, False, False, False]
