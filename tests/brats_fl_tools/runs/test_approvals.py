"""What the lead hears of hospitals that have not approved a job; who refuses it is tested with real processes."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tests.tiny_kits import TinyKits, copy_tiny_kits, make_tiny_kits

from brats_fl.approval import read_approvals
from brats_fl_tools.jobs.assembly import JobOptions, build_job
from brats_fl_tools.jobs.built import BuiltJob
from brats_fl_tools.jobs.description import hash_at_site
from brats_fl_tools.kit.site_files import approvals_file, site_files, write_site_files
from brats_fl_tools.runs.approvals import not_approved, refusal
from brats_fl_tools.runs.poc import Poc, approve_here

HASH = "0123456789abcdef" * 4
JOB = BuiltJob(Path("/runs/a/job/unet"), "unet", "brats_unet", ("north",), {}, "0123")


def session(*told: str) -> Any:
    """A session whose server tells this of the deployment of every job."""
    return SimpleNamespace(get_job_meta=lambda _: {"status": "RUNNING", "job_deploy_detail": list(told)})


def test_lead_is_told_who_refused_what_and_what_to_ask_for() -> None:
    told = refusal(session("server: OK", f"north: NVFLARE_ERROR: NOT_APPROVED {HASH}", "south: OK"), "0f7a", JOB)

    assert told == (
        "NOT_APPROVED by north (0123456789ab): ask there for `brats-fl kit approve KIT JOB_FOLDER`, with "
        "/runs/a/job/unet as JOB_FOLDER; if another hash was approved, give the options and hospitals that `job build` "
        "had"
    )


def test_job_that_everybody_took_or_that_was_refused_for_another_reason_says_nothing() -> None:
    assert refusal(session("server: OK", "north: OK"), "0f7a", JOB) == ""
    assert refusal(session("server: BYOC not permitted"), "0f7a", JOB) == ""


@pytest.mark.parametrize(
    "answer",
    [
        f"north: NVFLARE_ERROR: NOT_APPROVED {HASH}\nsouth: NVFLARE_ERROR: NOT_APPROVED {HASH}",
        f"north: NVFLARE_ERROR: NOT_APPROVED {HASH} \x1b[2J",
        f"north: NVFLARE_ERROR: NOT_APPROVED {HASH[:-1]}",
        "north: NVFLARE_ERROR: NOT_APPROVED /data/patient-7391",
    ],
)
def test_whatever_else_a_hospital_answers_is_not_shown(answer: str) -> None:
    assert not_approved([answer]) == {}


@pytest.fixture(scope="module")
def provisioned(tmp_path_factory: pytest.TempPathFactory) -> TinyKits:
    return make_tiny_kits(tmp_path_factory.mktemp("kits") / "out")


@pytest.mark.parametrize("policy", ["strict", "open"])
def test_on_ones_own_machine_the_lead_approves_for_the_hospitals_that_ask_for_it(
    policy: str, provisioned: TinyKits, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kits = copy_tiny_kits(provisioned, tmp_path / "kits").federation
    for kit in kits.clients:
        write_site_files(site_files(kit, policy))
    options = JobOptions("small", preinstalled=True, sites=("hospital-1",))
    job = build_job("brats_unet_fedavg", tmp_path / "jobs", options)

    approve_here(Poc(tmp_path, None, kits), job)

    approved = [[one.hash for one in read_approvals(approvals_file(kit))] for kit in kits.clients]
    said = capsys.readouterr().out
    if policy == "strict":  # hospital-2 does not take part
        assert approved == [[hash_at_site(job, "hospital-1")], []]
        assert said == "approved for hospital-1, whose policy asks for it\n"
    else:
        assert (approved, said) == ([[], []], "")
