"""``--start-from``: checked before anything starts, carried with the job, and named by its digest."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tests.tiny_kits import TinyKits

from brats_fl.bundle import build_network
from brats_fl.errors import FolderError, JobError, ModelError
from brats_fl_tools.jobs.assembly import JobOptions, build_job, configure, refuse_within
from brats_fl_tools.jobs.built import BuiltJob
from brats_fl_tools.jobs.description import describe_built, hash_at_site
from brats_fl_tools.jobs.options import JobFlags
from brats_fl_tools.jobs.source import read_source
from brats_fl_tools.kit import checks
from brats_fl_tools.kit.approvals import approve_job
from brats_fl_tools.kit.machine import stated_job
from brats_fl_tools.kit.site_files import site_files, write_site_files
from brats_fl_tools.own_folders import claim
from brats_fl_tools.repository import BUNDLES
from brats_fl_tools.runs.folder import begin_run_folder

JOB = "brats_unet_fedavg"


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Run folder of another federation of the same bundle."""
    (tmp_path / "earlier").mkdir()
    state = build_network(BUNDLES / "brats_unet", "small", seed=1).state_dict()
    torch.save({"model": state, "rounds_done": 9}, tmp_path / "earlier" / "global_model.pt")
    return tmp_path / "earlier"


def options_from(model: Path, job: str = JOB, profile: str = "small") -> JobOptions:
    return replace(JobFlags(profile, start_from=model).options(read_source(job)), preinstalled=True)


def job_from(model: Path, folder: Path) -> BuiltJob:
    return build_job(JOB, folder, options_from(model))


def sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def test_run_folder_stands_for_its_best_model_which_goes_into_the_job_as_it_is(run: Path, tmp_path: Path):
    job = job_from(run, tmp_path / "out")

    assert job.start_sha256 == sha256(run / "global_model.pt") == sha256(job.folder / "app_server" / "start_from.pt")


def test_model_of_another_network_is_refused_with_the_first_parameters_that_differ(run: Path):
    with pytest.raises(ModelError) as caught:
        options_from(run, profile="full")

    assert str(caught.value).startswith(f"--start-from: brats_unet with profile full: {run / 'global_model.pt'}: these")
    assert "have another shape: model.0.conv.unit0.conv.weight (16, 4, 3, 3, 3) in place of (32, 4, 3, 3, 3)" in str(
        caught.value
    )


def test_checkpoint_with_other_objects_is_not_loaded(tmp_path: Path):
    torch.save({"model": {}, "trainer": Path("here")}, tmp_path / "model.pt")

    with pytest.raises(ModelError, match="which are not loaded because that may run code"):
        options_from(tmp_path / "model.pt")


def test_job_that_trains_nothing_starts_from_no_model(run: Path):
    with pytest.raises(JobError, match="brats_statistics: trains nothing, and starts from no model"):
        options_from(run, job="brats_statistics")


def test_start_in_the_folder_that_is_replaced_is_refused_and_stays(run: Path):
    claim(run, "run")

    with pytest.raises(
        FolderError, match=r"global_model\.pt lies in .*earlier, which is replaced; choose another --out"
    ):
        begin_run_folder(run, read_source(JOB).folder, options_from(run), force=True)

    assert (run / "global_model.pt").is_file()
    refuse_within(run.with_name("earlier-2"), options_from(run))


def test_run_that_is_evaluated_in_the_folder_that_is_replaced_is_refused_and_stays(run: Path):
    claim(run, "run")

    with pytest.raises(FolderError, match=r"--of .*earlier lies in .*earlier, which is replaced"):
        begin_run_folder(run, read_source("brats_cross_site").folder, JobOptions(of_run=run), force=True)

    assert (run / "global_model.pt").is_file()


@pytest.mark.parametrize("values", [{"learning_rate": -1}, {"nonsense": 1}, {"min_clients": 9}])
def test_job_that_cannot_be_built_costs_no_earlier_run(values: dict[str, int], run: Path):
    claim(run, "run")

    with pytest.raises(JobError, match=next(iter(values))):
        begin_run_folder(run, read_source(JOB).folder, JobOptions("small", values=values), force=True)

    assert (run / "global_model.pt").is_file()
    assert [path.name for path in run.parent.iterdir()] == ["earlier"], "nothing else is left"


def test_run_folder_that_is_replaced_holds_the_new_job_alone(run: Path):
    claim(run, "run")

    job = begin_run_folder(run, read_source(JOB).folder, JobOptions("small"), force=True)

    assert job.folder == run / "job" / JOB
    assert sorted(path.name for path in run.iterdir()) == [".brats-fl", "job"]
    assert [path.name for path in run.parent.iterdir()] == ["earlier"]


def test_profile_beside_the_run_that_is_evaluated_is_refused(run: Path):
    with pytest.raises(JobError, match="--profile was decided when the models were trained; leave it out"):
        JobFlags("small", of_run=run).options(read_source("brats_cross_site"))


def test_another_start_is_another_study_and_going_on_from_the_run_s_own_model_is_the_same(run: Path, tmp_path: Path):
    started = options_from(run)
    plain = replace(started, checkpoint=None, start_sha256="")
    goes_on = replace(started, checkpoint=tmp_path / "last_model.pt", rounds=98, values={"start_round": 2})

    studies = [configure(read_source(JOB), options).study for options in (started, goes_on, plain)]

    assert studies[0] == studies[1] != studies[2]


def test_hospital_reads_the_digest_of_the_start_and_approves_it_with_the_job(run: Path, tmp_path: Path):
    job = job_from(run, tmp_path / "out")

    words = describe_built(job, "hospital-1")

    digest = sha256(run / "global_model.pt")
    (line,) = (line for line in words if digest in line)
    assert line.startswith("  the global model starts from the weights, and not from random ones, in app_server/start")
    torch.save(build_network(BUNDLES / "brats_unet", "small", seed=2).state_dict(), tmp_path / "other.pt")
    assert hash_at_site(job_from(tmp_path / "other.pt", tmp_path / "other"), "hospital-1") != hash_at_site(
        job, "hospital-1"
    )


def test_job_that_goes_on_keeps_its_own_model_names_the_start_and_needs_no_new_approval(run: Path, tmp_path: Path):
    job = job_from(run, tmp_path / "out")
    torch.save({"model": {"w": torch.ones(1)}, "rounds_done": 2}, tmp_path / "last_model.pt")
    options = replace(options_from(run), checkpoint=tmp_path / "last_model.pt", rounds=98, values={"start_round": 2})

    later = build_job(JOB, tmp_path / "later", options)

    words = "\n".join(describe_built(later, "hospital-1"))
    assert f"goes on with the model in app_server/start_from.pt, SHA-256 {sha256(tmp_path / 'last_model.pt')}" in words
    assert f"round 0 started from weights with SHA-256 {job.start_sha256}" in words
    assert later.start_sha256 == job.start_sha256
    assert hash_at_site(later, "hospital-1") == hash_at_site(job, "hospital-1")


@pytest.mark.parametrize(
    ("harm", "said"), [("changed", "has SHA-256 .*, and the job says "), ("gone", "not there, and")]
)
def test_start_that_is_not_the_one_the_job_names_is_told_before_anybody_approves(
    run: Path, tmp_path: Path, harm: str, said: str
):
    job = job_from(run, tmp_path / "out")
    file = job.folder / "app_server" / "start_from.pt"
    file.unlink() if harm == "gone" else file.write_bytes(b"other weights")

    with pytest.raises(JobError, match=rf"start_from\.pt: {said}"):
        describe_built(job, "hospital-1")


def test_hospital_under_strict_runs_such_a_job_once_it_is_approved(kits: TinyKits, run: Path, tmp_path: Path):
    kit, job = kits.hospital, job_from(run, tmp_path / "out")
    (tmp_path / "datalist.json").write_text(json.dumps({"site": kit.name}), encoding="utf-8")
    write_site_files(site_files(kit, "strict", tmp_path / "datalist.json"))
    stated = stated_job(job.folder, kit)

    before = checks.check_approval(kit, checks.read_rules(kit), stated)
    approve_job(kit, job, stated.approval, "it")
    after = checks.check_approval(kit, checks.read_rules(kit), stated)

    assert (before.state, after.state) == ("warning", "ok")
    assert [r.found for r in checks.check_kit(kit, stated) if r.check in ("job", "policy") and r.state == "error"] == []
