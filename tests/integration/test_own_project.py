"""A federation on this host from a project of one's own: other names, another number of hospitals."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.integration.test_federation import JOB, TINY
from tests.tiny_kits import write_project
from tests.tiny_sites import make_tiny_sites
from typer.testing import CliRunner

from brats_fl.errors import JobError
from brats_fl.round_records import read_records
from brats_fl_tools.cli import app
from brats_fl_tools.jobs.assembly import JobOptions
from brats_fl_tools.runs import host_federation as fed
from brats_fl_tools.runs.poc import Poc, prepare_poc, start_poc, submit_poc
from brats_fl_tools.runs.session import job_seconds
from brats_fl_tools.runs.simulator import POLLING_SECONDS

HOSPITALS = ("Praxis_Nord", "klinikum-2")
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Poc]:
    """Three processes; stopped at the end, whatever the tests did."""
    root = tmp_path_factory.mktemp("own-project")
    sites = make_tiny_sites(root / "sites", dict.fromkeys(HOSPITALS, (1, 1, 0)))
    project = write_project(root / "project.yml", ("server", *HOSPITALS, "lead@consortium.example"))
    poc = prepare_poc(root / "workspace", sites, project)
    try:
        start_poc(poc)
        yield poc
    finally:
        fed.stop(poc.kits)
        assert fed.processes(poc.kits) == []


def test_hospitals_of_the_project_take_part_in_place_of_the_jobs_five(
    own: Poc, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = JobOptions("small", 1, TINY, preinstalled=True, polling_seconds=POLLING_SECONDS)

    submit_poc(own, JOB, tmp_path / "run", options)

    said = capsys.readouterr().out
    assert (
        f"2 hospitals of the project of {own.folder} take part in place of the job's five: Praxis_Nord, klinikum-2\n"
        in said
    )
    facts = json.loads((tmp_path / "run" / "run.json").read_text(encoding="utf-8"))
    assert (facts["mode"], facts["status"], facts["options"]["min_clients"]) == ("poc", "FINISHED:COMPLETED", 1)
    records = read_records(tmp_path / "run" / "rounds.jsonl")
    assert sorted({(r["site"], r["status"]) for r in records}) == [(name, "ok") for name in HOSPITALS]
    with fed.admin_session(own.lead) as session:
        took = job_seconds(session, facts["job_id"])
    assert facts["seconds"] == pytest.approx(took, abs=0.1)


@pytest.mark.parametrize("count", [1, 3, 7])
def test_any_number_of_hospitals_finishes_a_round(count: int, tmp_path: Path) -> None:
    names = tuple(f"clinic-{number}" for number in range(1, count + 1))
    sites = make_tiny_sites(tmp_path / "sites", dict.fromkeys(names, (1, 0, 0)))
    project = write_project(tmp_path / "project.yml", ("server", *names, "lead@consortium.example"))
    poc = prepare_poc(tmp_path / "workspace", sites, project)
    try:
        start_poc(poc)
        submit_poc(poc, JOB, tmp_path / "run", JobOptions("small", 1, TINY, True, polling_seconds=POLLING_SECONDS))
    finally:
        fed.stop(poc.kits)

    records = read_records(tmp_path / "run" / "rounds.jsonl")
    assert sorted((r["site"], r["status"]) for r in records if r["phase"] == "train") == [(n, "ok") for n in names]
    facts = json.loads((tmp_path / "run" / "run.json").read_text(encoding="utf-8"))
    assert facts["options"]["min_clients"] == max(1, count - 1)  # of the job's five, one may be missing
    assert fed.processes(poc.kits) == []


def test_status_names_them(own: Poc) -> None:
    result = CliRunner().invoke(app, ["poc", "status", "--workspace", str(own.folder)])

    assert "connected: Praxis_Nord, klinikum-2\n" in result.output


def test_data_list_of_a_hospital_without_a_kit_is_not_left_out_unasked(own: Poc, tmp_path: Path) -> None:
    assert own.sites is not None
    make_tiny_sites(own.sites, {"praxis-sued": (1, 0, 0)})

    with pytest.raises(JobError, match=r"praxis-sued \(no kit in .*\), which would not take part; add --leave-out"):
        submit_poc(own, JOB, tmp_path / "run", JobOptions("small", 1))

    assert not (tmp_path / "run").exists()
