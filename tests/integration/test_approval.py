"""A strict hospital runs what it has approved, and nothing else, whoever signed it: real processes with TLS."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.federations import stopped_afterwards
from tests.integration.test_federation import JOB, TINY
from tests.tiny_kits import write_project
from tests.tiny_sites import make_tiny_sites
from typer.testing import CliRunner, Result

from brats_fl.round_records import read_records
from brats_fl_tools.cli import app
from brats_fl_tools.kit.kits import Kit
from brats_fl_tools.runs.poc import Poc, prepare_poc, start_poc
from brats_fl_tools.runs.simulator import POLLING_SECONDS

HOSPITALS = ("hospital-1", "hospital-2")
pytestmark = pytest.mark.slow

SETTINGS = {**TINY, "default_task_fetch_interval": POLLING_SECONDS, "task_check_period": POLLING_SECONDS}
OPTIONS = ["--preinstalled", "--profile", "small", "--rounds", "1", "--sites-only", ",".join(HOSPITALS)]
OPTIONS += [part for key, value in SETTINGS.items() for part in ("--set", f"{key}={json.dumps(value)}")]


def run_command(*arguments: object) -> Result:
    return CliRunner().invoke(app, [*map(str, arguments)])


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Poc]:
    """A server and two strict hospitals; stopped at the end."""
    root = tmp_path_factory.mktemp("strict")
    sites = make_tiny_sites(root / "sites", dict.fromkeys(HOSPITALS, (1, 1, 0)))
    project = write_project(root / "project.yml")
    poc = prepare_poc(root / "workspace", sites, project, policy="strict")
    with stopped_afterwards(poc.kits):
        start_poc(poc)
        yield poc


def submit(poc: Poc, run: Path) -> tuple[Result, str]:
    """The lead's command, and the id of the job that it sent."""
    result = run_command("submit", JOB, "--kit", poc.lead.folder, "--out", run, *OPTIONS)
    return result, str(json.loads((run / "submission.json").read_text(encoding="utf-8"))["job_id"])


def came_to(kit: Kit, job_id: str) -> bool:
    """Whether anything of a job was put in place at a hospital, without which no process of it can start."""
    return (kit.folder / job_id).exists()


def test_job_runs_where_it_was_approved_and_nothing_of_it_elsewhere(strict: Poc, tmp_path: Path) -> None:
    first, second = strict.kits.clients
    built = run_command("job", "build", JOB, "--out", tmp_path / "sent", *OPTIONS)
    job = tmp_path / "sent" / JOB
    approval = built.output.split("approval_hash ")[1].split(",")[0]

    nowhere, refused = submit(strict, tmp_path / "nowhere")
    approved = run_command("kit", "approve", first.folder, job, "--yes")
    at_one, ran = submit(strict, tmp_path / "at-one")

    assert nowhere.exit_code == 1
    assert f"NOT_APPROVED by hospital-1 ({approval[:12]}), hospital-2 ({approval[:12]})" in str(nowhere.exception)
    assert f"with {tmp_path / 'nowhere' / 'job' / JOB} as JOB_FOLDER" in str(nowhere.exception)
    assert [came_to(kit, refused) for kit in (first, second)] == [False, False]
    assert f"approval_hash {approval}\n" in approved.output
    assert at_one.exit_code == 0, at_one.output
    assert f"going on without some: NOT_APPROVED by hospital-2 ({approval[:12]})" in at_one.output
    assert [came_to(kit, ran) for kit in (first, second)] == [True, False]
    records = read_records(tmp_path / "at-one" / "rounds.jsonl")
    assert {(r["site"], r["status"]) for r in records if r["phase"] == "train"} == {("hospital-1", "ok")}
    assert "was refused" in (second.folder / "log.txt").read_text(encoding="utf-8")
