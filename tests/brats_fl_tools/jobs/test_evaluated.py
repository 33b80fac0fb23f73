"""A job that evaluates the models of a run: it is told what the run's training was told, and brings the models."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from brats_fl.errors import JobError
from brats_fl_tools.cli import app
from brats_fl_tools.jobs.assembly import JobOptions, build_job
from brats_fl_tools.jobs.evaluated import TOLD, read_trained
from brats_fl_tools.jobs.source import CLIENT_CONFIG, SERVER_CONFIG

JOB = "brats_cross_site"


def write_trained(run: Path, name: str = "brats_attention_unet_fedavg", best: bytes = b"final") -> Path:
    """A run folder as a training leaves it; of its models only the bytes count here."""
    options = JobOptions("small", rounds=3, values={"learning_rate": 0.5}, sites=("hospital-1", "hospital-2"))
    build_job(name, run / "job", options)
    (run / "run.json").write_text(json.dumps({"job": name}))
    (run / "final_model.pt").write_bytes(b"final")
    (run / "global_model.pt").write_bytes(best)
    return run


def read(folder: Path, config: Path) -> dict[str, Any]:
    return json.loads((folder / config).read_text(encoding="utf-8"))


def test_sites_are_told_what_they_were_told_in_training(tmp_path: Path) -> None:
    run = write_trained(tmp_path / "run")

    built = build_job(JOB, tmp_path / "jobs", JobOptions(of_run=run))

    trained, client = (
        read(run / "job" / "brats_attention_unet_fedavg", CLIENT_CONFIG),
        read(built.folder, CLIENT_CONFIG),
    )
    assert {key: client[key] for key in TOLD} == {key: trained[key] for key in TOLD}
    assert client["overrides"] == {"learning_rate": 0.5}
    assert client["profile"] == read(built.folder, SERVER_CONFIG)["profile"] == "small"
    assert built.bundle == client["bundle"] == "brats_attention_unet"
    assert built.study == trained["study"] != ""
    assert (built.folder / "app_server" / "bundles" / "brats_attention_unet").is_dir()


@pytest.mark.parametrize(("best", "files"), [(b"final", ["final"]), (b"other", ["best", "final"])])
def test_job_brings_the_final_model_and_the_best_where_that_is_another(
    best: bytes, files: list[str], tmp_path: Path
) -> None:
    built = build_job(JOB, tmp_path / "jobs", JobOptions(of_run=write_trained(tmp_path / "run", best=best)))

    assert sorted(read(built.folder, SERVER_CONFIG)["models"]) == files
    assert sorted(path.stem for path in (built.folder / "app_server").glob("*.pt")) == files
    assert not list((built.folder / "app_client").glob("*.pt")), "a site gets models from the server, as typed arrays"


def test_job_that_evaluates_nothing_takes_no_run(tmp_path: Path) -> None:
    with pytest.raises(JobError, match="brats_unet_fedavg evaluates no models of a run"):
        build_job("brats_unet_fedavg", tmp_path / "jobs", JobOptions("small", of_run=write_trained(tmp_path / "run")))


@pytest.mark.parametrize(("name", "value"), [("learning_rate", 0.1), ("local_epochs", 2), ("seed", 1)])
def test_what_was_decided_in_training_is_not_set_anew(name: str, value: Any, tmp_path: Path) -> None:
    asked = JobOptions(values={name: value}, of_run=write_trained(tmp_path / "run"))

    with pytest.raises(JobError, match=f"{name} was decided when the models were trained"):
        build_job(JOB, tmp_path / "jobs", asked)


def test_command_without_a_run_writes_nothing(tmp_path: Path) -> None:
    typed = CliRunner().invoke(app, ["job", "build", JOB, "--out", str(tmp_path / "jobs")])

    assert "name its folder with --of RUN" in str(typed.exception)
    assert not (tmp_path / "jobs").exists()


def test_folder_without_a_model_or_without_a_job_is_no_training(tmp_path: Path) -> None:
    run = write_trained(tmp_path / "run")
    (run / "final_model.pt").unlink()

    with pytest.raises(JobError, match=r"final_model.pt: is not there; give the run folder of a training"):
        read_trained(run)
    with pytest.raises(JobError, match=r"run.json: no such file; give the run folder of a training"):
        read_trained(tmp_path)
