"""``--tracking``: what it adds to a job's server, and that the hospitals are asked for nothing more."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.jobs.test_flare_classes import load, overridden
from tests.jobs.test_jobs import SMALL, components, read_config

from brats_fl.components.tracking import RoundTracker
from brats_fl.errors import JobError
from brats_fl.provenance import hash_files
from brats_fl_tools.jobs import tracking
from brats_fl_tools.jobs.assembly import JobOptions, build_job
from brats_fl_tools.jobs.built import BuiltJob
from brats_fl_tools.jobs.tracking import TRACKERS, trackers_of
from brats_fl_tools.kit.site_files import policy_names, read_policy

JOB = "brats_unet_fedavg"
FLARES = {
    "tensorboard": "nvflare.app_opt.tracking.tb.tb_receiver.TBAnalyticsReceiver",
    "mlflow": "nvflare.app_opt.tracking.mlflow.mlflow_receiver.MLflowReceiver",
}
each_tracker = pytest.mark.parametrize("name", sorted(TRACKERS))


def tracked(name: str, out: Path, **values: Any) -> BuiltJob:
    """The job with a tracker."""
    pytest.importorskip(TRACKERS[name].package, reason=f"not installed: {TRACKERS[name].package}")
    return build_job(JOB, out, JobOptions("small", values=values, tracking=name))


@each_tracker
def test_hospitals_get_the_same_bytes_with_and_without_tracking(name: str, tmp_path: Path) -> None:
    plain, job = build_job(JOB, tmp_path / "plain", SMALL), tracked(name, tmp_path)

    assert hash_files(job.folder / "app_client", ("*",)) == hash_files(plain.folder / "app_client", ("*",))
    assert job.study == plain.study
    assert job.content_hash != plain.content_hash


@each_tracker
def test_server_gets_a_tracker_and_flares_receiver_and_nothing_else(name: str, tmp_path: Path) -> None:
    built = (build_job(JOB, tmp_path / "plain", SMALL), tracked(name, tmp_path))
    plain, job = (read_config(each, "server") for each in built)

    added = [part for part in components(job) if part not in components(plain)]
    assert [part["path"] for part in added] == ["brats_fl.components.tracking.RoundTracker", TRACKERS[name].receiver]
    receiver = load(TRACKERS[name].receiver)
    assert issubclass(receiver, load(FLARES[name]))
    assert overridden(receiver) == {"initialize", "save"}
    assert overridden(RoundTracker) == {"handle_event"}
    assert {key: value for key, value in job.items() if key not in (*plain, *TRACKERS[name].variables)} == {}
    assert trackers_of(plain) == ()
    assert trackers_of(job) == (name,)


@each_tracker
def test_policies_allow_the_trackers(name: str, tmp_path: Path) -> None:
    used = {part["path"] for part in components(read_config(tracked(name, tmp_path), "server"))}

    for policy in policy_names():
        assert used <= set(read_policy(policy)["resources"]["class_allow_list"])


def test_mlflow_s_own_server_is_a_variable_that_leaves_the_study_what_it_is(tmp_path: Path) -> None:
    here, there = (
        tracked("mlflow", tmp_path / "a"),
        tracked("mlflow", tmp_path, tracking_uri="http://mlflow.example:5000"),
    )

    assert read_config(here, "server")["tracking_uri"] == ""
    assert read_config(there, "server")["tracking_uri"] == "http://mlflow.example:5000"
    assert here.study == there.study
    with pytest.raises(JobError, match="unknown key 'tracking_uri'"):
        tracked("tensorboard", tmp_path / "c", tracking_uri="http://mlflow.example:5000")


def test_package_that_is_missing_is_named_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracking.importlib.util, "find_spec", lambda _: None)

    with pytest.raises(JobError, match=r"the package mlflow is not installed here; run `pip install 'brats-fl\[track"):
        build_job(JOB, tmp_path, JobOptions("small", tracking="mlflow"))

    assert list(tmp_path.iterdir()) == []


def test_job_that_trains_nothing_has_no_curves(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="not installed: tensorboard")
    with pytest.raises(JobError, match="--tracking tensorboard: brats_statistics trains nothing and has no curves"):
        build_job("brats_statistics", tmp_path, JobOptions(tracking="tensorboard"))


def test_unknown_tracker_is_an_error_that_names_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(JobError, match="--tracking must be one of tensorboard, mlflow"):
        build_job(JOB, tmp_path, JobOptions("small", tracking="wandb"))


def test_built_job_states_its_tracker_as_plain_json(tmp_path: Path) -> None:
    path = tracked("tensorboard", tmp_path).folder / "app_server" / "config" / "config_fed_server.json"

    written = {part["id"]: part for part in json.loads(path.read_text(encoding="utf-8"))["components"]}
    assert written["tensorboard"] == {"id": "tensorboard", "path": TRACKERS["tensorboard"].receiver, "args": {}}
