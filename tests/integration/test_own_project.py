"""A federation on this host from a project of one's own: other names, another number of hospitals."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from nvflare.fuel.f3.cellnet.defs import ReturnCode
from tests.federations import stopped_afterwards
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
    with stopped_afterwards(poc.kits):
        start_poc(poc)
        yield poc


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
    assert {record["status"] for record in records} == {"ok"}
    assert sorted({record["site"] for record in records if record["phase"] != "mean"}) == sorted(HOSPITALS)
    with fed.admin_session(own.lead) as session:
        took = job_seconds(session, facts["job_id"])
    assert facts["seconds"] == pytest.approx(took, abs=0.1)


@pytest.mark.parametrize("count", [1, 3, 7])
def test_any_number_of_hospitals_finishes_a_round(count: int, tmp_path: Path) -> None:
    names = tuple(f"clinic-{number}" for number in range(1, count + 1))
    sites = make_tiny_sites(tmp_path / "sites", dict.fromkeys(names, (1, 0, 0)))
    project = write_project(tmp_path / "project.yml", ("server", *names, "lead@consortium.example"))
    poc = prepare_poc(tmp_path / "workspace", sites, project)
    with stopped_afterwards(poc.kits):
        start_poc(poc)
        submit_poc(poc, JOB, tmp_path / "run", JobOptions("small", 1, TINY, True, polling_seconds=POLLING_SECONDS))

    records = read_records(tmp_path / "run" / "rounds.jsonl")
    assert sorted((r["site"], r["status"]) for r in records if r["phase"] == "train") == [(n, "ok") for n in names]
    facts = json.loads((tmp_path / "run" / "run.json").read_text(encoding="utf-8"))
    assert facts["options"]["min_clients"] == max(1, count - 1)  # of the job's five, one may be missing


ATTACKER = """
import json

from nvflare.apis.event_type import EventType
from nvflare.apis.fl_component import FLComponent
from nvflare.fuel.f3.cellnet.defs import MessageHeaderKey
from nvflare.private.admin_defs import Message
from nvflare.private.defs import CellChannel, new_cell_message

ASKED = {"sys.shell": "head local/resources.json", "sys.report_env": "", "train.get_scopes": ""}
OTHERS = {"Praxis_Nord": "klinikum-2", "klinikum-2": "Praxis_Nord"}


class Attacker(FLComponent):
    def handle_event(self, event_type, fl_ctx):
        if event_type != EventType.START_RUN:
            return
        engine, told = fl_ctx.get_engine(), {}
        for topic, body in ASKED.items():
            request = new_cell_message({}, Message(topic, body))
            reply = engine.get_cell().send_request(
                CellChannel.CLIENT_MAIN, topic, OTHERS[fl_ctx.get_identity_name()], request, 10.0
            )
            told[topic] = [reply.headers.get(MessageHeaderKey.RETURN_CODE), str(getattr(reply.payload, "body", ""))]
        with open(engine.get_workspace().get_run_dir(fl_ctx.get_job_id()) + "/told.json", "w") as file:
            json.dump(told, file)
"""


def test_job_at_one_hospital_reaches_no_other(own: Poc, tmp_path: Path) -> None:
    job = tmp_path / "study" / "jobs" / "nosy"
    (job / "custom").mkdir(parents=True)
    (job / "custom" / "attacker.py").write_text(ATTACKER, encoding="utf-8")
    added = {"client_components": {"attacker": {"path": "attacker.Attacker"}}}
    (job / "job.json").write_text(
        json.dumps({"description": "x", "bundle": "brats_unet", "add": added}), encoding="utf-8"
    )
    (job / "meta.json").write_text(json.dumps({"deploy_map": {"app_client": list(HOSPITALS)}}), encoding="utf-8")

    submit_poc(own, job, tmp_path / "run", JobOptions("small", 1, TINY, polling_seconds=POLLING_SECONDS))

    job_id = json.loads((tmp_path / "run" / "run.json").read_text(encoding="utf-8"))["job_id"]
    for kit in own.kits.clients:
        told = json.loads((kit.folder / job_id / "told.json").read_text(encoding="utf-8"))
        assert {topic: code for topic, (code, _) in told.items()} == dict.fromkeys(told, ReturnCode.UNAUTHENTICATED)
        assert "resource_manager" not in json.dumps(told)
        assert "was refused: it is of another site" in (kit.folder / "log.txt").read_text(encoding="utf-8")


def test_status_names_them(own: Poc) -> None:
    result = CliRunner().invoke(app, ["poc", "status", "--workspace", str(own.folder)])

    assert "connected: Praxis_Nord, klinikum-2\n" in result.output


def test_data_list_of_a_hospital_without_a_kit_is_not_left_out_unasked(own: Poc, tmp_path: Path) -> None:
    assert own.sites is not None
    make_tiny_sites(own.sites, {"praxis-sued": (1, 0, 0)})

    with pytest.raises(JobError, match=r"praxis-sued \(no kit in .*\), which would not take part; add --leave-out"):
        submit_poc(own, JOB, tmp_path / "run", JobOptions("small", 1))

    assert not (tmp_path / "run").exists()
