"""MONAI's own ``--tracking mlflow``, read back with MLflow's client."""

from __future__ import annotations

import csv
import subprocess
import sys
from pathlib import Path
from statistics import fmean

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run
from tests.monai_command import first_bundle_or_slow, run, tiny_training
from tests.tiny_sites import make_tiny_sites

EXPERIMENT = "monai_experiment"
# MLflow 3.17 asks SQLAlchemy 2.1 for what it has deprecated.
mlflows_own_warning = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy")


def runs_of(client: MlflowClient) -> list[Run]:
    """First run first."""
    experiment = client.get_experiment_by_name(EXPERIMENT)
    assert experiment is not None
    return list(client.search_runs([experiment.experiment_id], order_by=["attributes.start_time"]))


def history(client: MlflowClient, run: Run, metric: str) -> dict[int, float]:
    return {entry.step: entry.value for entry in client.get_metric_history(run.info.run_id, metric)}


def files_of(folder: Path) -> set[Path]:
    return {path for path in folder.rglob("*") if path.is_file()}


@mlflows_own_warning
@first_bundle_or_slow
def test_training_and_evaluation_are_recorded_as_runs_of_their_own(bundle: Path, tmp_path: Path):
    site = make_tiny_sites(tmp_path / "sites", {"hospital-1": (1, 1, 2)}) / "hospital-1"
    settings = tiny_training(site, tmp_path) | {"epochs": 2, "output_dir": tmp_path / "tracked", "tracking": "mlflow"}
    before = files_of(bundle)

    trained = run(bundle, ("train", "small"), **settings)
    evaluated = run(bundle, ("train", "evaluate", "small"), **settings)

    assert trained.returncode == 0, trained.stderr
    assert evaluated.returncode == 0, evaluated.stderr
    client = MlflowClient(f"sqlite:///{tmp_path / 'tracked' / 'mlruns.db'}")
    training, evaluation = runs_of(client)
    assert [training.info.status, evaluation.info.status] == ["FINISHED", "FINISHED"]

    losses = history(client, training, "train_loss")
    assert list(losses) == [1, 2, 3, 4]  # 2 epochs of 2 steps
    assert all(0 < loss < 5 for loss in losses.values())
    assert list(history(client, training, "val_mean_dice")) == [1, 2]

    with (tmp_path / "tracked" / "evaluation.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    metrics = evaluation.data.metrics
    assert metrics["val_mean_dice"] == pytest.approx(fmean(float(row["dice"]) for row in rows), abs=1e-5)
    assert metrics["val_hd95_mm_wt"] == pytest.approx(
        fmean(float(row["hd95_mm"]) for row in rows if row["region"] == "wt"), abs=1e-3
    )
    assert "train_loss" not in metrics

    assert files_of(bundle) == before  # the record lies where it was asked for


def test_mlflow_that_monai_imports_tells_nobody_unless_the_site_wants_it():
    program = "import brats_fl, monai.handlers\nfrom mlflow.telemetry import get_telemetry_client as c\nprint(c())"
    environment = {"PATH": "", "HOME": ""}  # none of the variables that tell MLflow of a test

    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "None"
