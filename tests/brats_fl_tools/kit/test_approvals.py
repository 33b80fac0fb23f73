"""``brats-fl kit approve``: a hospital reads what a job runs, agrees, lists, and takes back."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.tiny_kits import TinyKits
from typer.testing import CliRunner, Result

from brats_fl.errors import JobError, KitError
from brats_fl_tools.cli import app
from brats_fl_tools.jobs.assembly import JobOptions, build_job
from brats_fl_tools.jobs.built import BuiltJob
from brats_fl_tools.jobs.description import hash_at_site
from brats_fl_tools.kit import checks as kit_checks
from brats_fl_tools.kit import command
from brats_fl_tools.kit.kits import Kit
from brats_fl_tools.kit.machine import stated_job
from brats_fl_tools.kit.results import CheckResult
from brats_fl_tools.kit.site_files import approvals_file, site_files, write_site_files


@pytest.fixture
def job(tmp_path: Path) -> BuiltJob:
    return build_job("brats_unet_fedavg", tmp_path / "jobs", JobOptions("small", preinstalled=True))


def approve(kit: Kit, *arguments: object, answer: str = "") -> Result:
    return CliRunner().invoke(app, ["kit", "approve", str(kit.folder), *map(str, arguments)], input=answer)


def check_approval(kit: Kit, job: BuiltJob) -> CheckResult:
    """The line of ``kit check --job``."""
    return kit_checks.check_approval(kit, kit_checks.read_rules(kit), stated_job(job.folder, kit))


def test_job_is_shown_in_words_and_then_approved(kits: TinyKits, job: BuiltJob) -> None:
    result = approve(kits.hospital, job.folder, "--by", "Dr. Ames", "--yes")

    at_site = hash_at_site(job, "hospital-1")
    assert result.exit_code == 0, result.output
    assert "what runs at hospital-1\n" in result.output
    assert "  spacing_mm = [2.0, 2.0, 2.0] mm\n      voxel size" in result.output
    assert result.output.index(f"approval_hash {at_site}\n") < result.output.index("approved: ")
    (entry,) = json.loads(approvals_file(kits.hospital).read_text(encoding="utf-8"))["approved"]
    assert {**entry, "when": ""} == {"hash": at_site, "job": job.name, "study": job.study, "by": "Dr. Ames", "when": ""}


def test_nothing_is_approved_without_a_terminal_and_without_yes(kits: TinyKits, job: BuiltJob) -> None:
    result = approve(kits.hospital, job.folder, answer="y\n")

    assert isinstance(result.exception, KitError)
    assert "nothing was written; read what the job runs above, then repeat with --yes" in str(result.exception)
    assert not approvals_file(kits.hospital).exists()


@pytest.mark.parametrize("by", ["it\n", "it\x1b[2J", " "])
def test_name_that_could_not_be_read_back_is_refused_before_the_list_is_written(
    by: str, kits: TinyKits, job: BuiltJob
) -> None:
    result = approve(kits.hospital, job.folder, "--by", by, "--yes")

    assert "who agrees must be a name of printable characters" in str(result.exception)
    assert not approvals_file(kits.hospital).exists()


def test_on_a_terminal_the_answer_counts(kits: TinyKits, job: BuiltJob, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = iter([False, True])
    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    monkeypatch.setattr("typer.confirm", lambda question: next(answers))

    with pytest.raises(KitError, match="nothing was written"):
        command.approve(kits.hospital.folder, job.folder)
    assert not approvals_file(kits.hospital).exists()
    command.approve(kits.hospital.folder, job.folder)

    assert approvals_file(kits.hospital).exists()


def test_list_names_what_was_approved_and_withdraw_takes_it_back(kits: TinyKits, job: BuiltJob) -> None:
    empty = approve(kits.hospital, "--list")
    approve(kits.hospital, job.folder, "--by", "it", "--yes")
    at_site = hash_at_site(job, "hospital-1")

    listed = approve(kits.hospital, "--list")
    withdrawn = approve(kits.hospital, "--withdraw", at_site[:8])

    assert empty.output == "no job is approved\n"
    assert listed.output.startswith(f"{at_site}  brats_unet_fedavg  20")
    assert listed.output.endswith("  it\n")
    assert withdrawn.output.startswith(f"brats_unet_fedavg ({at_site[:12]}) is not approved any more")
    assert approve(kits.hospital, "--list").output == empty.output


def test_check_with_a_job_says_what_it_runs_and_whether_it_is_approved(kits: TinyKits, job: BuiltJob) -> None:
    write_site_files(site_files(kits.hospital, "strict"))

    before = check_approval(kits.hospital, job)
    approve(kits.hospital, job.folder, "--by", "it", "--yes")
    after = check_approval(kits.hospital, job)
    approvals_file(kits.hospital).write_text("{", encoding="utf-8")
    damaged = check_approval(kits.hospital, job)
    write_site_files(site_files(kits.hospital, "open"))

    assert (before.state, after.state, damaged.state) == ("warning", "ok", "error")
    assert before.mend.endswith(f"then brats-fl kit approve '{kits.hospital.folder}' '{job.folder}'")
    assert after.found.startswith(f"{hash_at_site(job, 'hospital-1')[:12]}, by it on 20")
    assert damaged.mend == f"rm '{approvals_file(kits.hospital)}', and approve each job again"
    assert check_approval(kits.hospital, job).state == "ok"
    assert stated_job(job.folder, kits.hospital).words
    # one that is built here by its name has not the lead's hospitals, and so another hash
    assert stated_job(Path("brats_unet_fedavg"), kits.hospital).approval == ""


def test_wrong_usage_exits_with_2(kits: TinyKits, job: BuiltJob) -> None:
    for arguments in ((), (job.folder, "--list"), ("--list", "--withdraw", "aa")):
        result = approve(kits.hospital, *arguments)
        assert result.exit_code == 2, result.output


def test_kit_of_a_server_and_a_folder_that_is_no_job_are_refused(kits: TinyKits, job: BuiltJob, tmp_path: Path) -> None:
    of_server = approve(kits.federation.server, job.folder, "--yes")
    no_job = approve(kits.hospital, tmp_path / "none", "--yes")

    assert isinstance(of_server.exception, KitError)
    assert "this is the kit of server; only a hospital approves jobs" in str(of_server.exception)
    assert isinstance(no_job.exception, JobError)
