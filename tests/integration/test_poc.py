"""A federation of six real processes with TLS on this host: prepared, started, used, stopped."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.federations import stopped_afterwards
from tests.integration.test_federation import CASES, JOB, TINY
from tests.integration.test_flare_commands import NVFLARE
from tests.integration.test_tracking import curves_of_records, tracker_if_installed
from tests.tiny_sites import make_tiny_sites
from tests.tracked_curves import read_store

from brats_fl.cases.datalists import DATALIST_FILE, read_datalist, write_datalist
from brats_fl.constants import SITES
from brats_fl.errors import FolderError, KitError, RunError
from brats_fl.ledger import read_ledger
from brats_fl.machine import describe_machine
from brats_fl.round_records import SERVER, read_records
from brats_fl.sharing.case_features import FEATURES
from brats_fl.sharing.cross_site import CROSS_SITE_FILE, read_cross_site
from brats_fl.sharing.egress import CONTRACT_FILE, LOG_FILE, read_log
from brats_fl.sharing.fingerprints import KEY_FILE
from brats_fl.sharing.site_statistics import MIN_CASES_VARIABLE, RELEASES_FILE, Protection
from brats_fl_tools.jobs.assembly import JobOptions, build_job
from brats_fl_tools.ledger.command import judge
from brats_fl_tools.report.statistics_page import ALL, read_statistics
from brats_fl_tools.reporting import report
from brats_fl_tools.runs import host_federation as fed
from brats_fl_tools.runs.poc import Poc, prepare_poc, read_poc, start_poc, submit_poc
from brats_fl_tools.runs.session import admin_session, connected_clients
from brats_fl_tools.runs.simulator import POLLING_SECONDS
from brats_fl_tools.withdrawal.command import Asked, withdraw_from
from brats_fl_tools.withdrawn import read_withdrawals


@dataclass(frozen=True)
class Running:
    """A federation that runs, and its data."""

    poc: Poc
    sites: Path


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """Six processes; stopped at the end, whatever the tests did."""
    root = tmp_path_factory.mktemp("poc")
    sites = make_tiny_sites(root / "sites", CASES)
    (sites / KEY_FILE).write_bytes(bytes(range(32)))
    poc = prepare_poc(root / "workspace", sites)
    (poc.kits.clients[0].folder / "local" / CONTRACT_FILE).write_text('{"metrics": "rounded"}', encoding="utf-8")
    with stopped_afterwards(poc.kits):
        with pytest.MonkeyPatch.context() as environment:
            environment.setenv("https_proxy", "http://127.0.0.1:9")  # as in many a hospital, and no way to this host
            environment.setenv(MIN_CASES_VARIABLE, "3")  # what the hospitals ask for; hospital-4 has two cases
            start_poc(poc)
        yield Running(poc, sites)


@pytest.fixture(scope="module")
def poc_run(running: Running) -> Path:
    """Run folder of one round, its code installed at the sites and not in the job, with curves for MLflow."""
    folder = running.sites.parent / "run"
    submit_poc(
        running.poc,
        JOB,
        folder,
        JobOptions(
            "small",
            1,
            TINY,
            preinstalled=True,
            polling_seconds=POLLING_SECONDS,
            tracking=tracker_if_installed("mlflow"),
        ),
    )
    return folder


def load(path: Path) -> dict[str, np.ndarray]:
    return {name: value.numpy() for name, value in torch.load(path, weights_only=True)["model"].items()}


def test_every_hospital_is_connected(running: Running) -> None:
    with admin_session(running.poc.lead) as session:
        assert connected_clients(session) == set(SITES)


def test_run_folder_is_like_the_simulators(poc_run: Path) -> None:
    for name in ("global_model.pt", "final_model.pt", "rounds.jsonl", "run.json"):
        assert (poc_run / name).is_file()
    records = read_records(poc_run / "rounds.jsonl")
    assert sorted(r["site"] for r in records if r["phase"] == "train") == sorted(SITES)
    assert sorted(r["site"] for r in records if r["phase"] == "final") == sorted(SITES)
    facts = json.loads((poc_run / "run.json").read_text(encoding="utf-8"))
    assert facts["mode"] == "poc"
    assert facts["status"] == "FINISHED:COMPLETED"
    assert facts["sites"]["hospital-1"] == {"training": 3, "validation": 1, "testing": 1}
    assert facts["machine"]["processor"] == describe_machine()["processor"]  # all on this one; the server told its own


def test_ledger_is_signed_by_every_hospital_and_sealed_by_the_lead(poc_run: Path, running: Running) -> None:
    verdict = judge(poc_run, kits=[kit.folder for kit in running.poc.kits.clients])

    assert verdict.problems == ()
    assert verdict.notes[0] == "1 rounds, 5 updates, 5 of them with a receipt that their site signed"
    assert verdict.notes[-1] == f"sealed by {running.poc.lead.name}"


def test_each_hospital_has_a_log_of_what_left_it(poc_run: Path, running: Running) -> None:
    parameters = json.loads((poc_run / "run.json").read_text(encoding="utf-8"))["parameters"]
    for kit in running.poc.kits.clients:
        update, metrics, *_ = read_log(kit.folder / "local" / LOG_FILE)
        assert (update.name, update.task, update.kind, update.round) == (JOB, "train", "update", 0)
        assert 4 * parameters < update.bytes < 5 * parameters
        assert (metrics.task, metrics.arrays) == ("validate", 0)


def test_hospital_whose_contract_rounds_metrics_tells_two_decimals(poc_run: Path, running: Running) -> None:
    for record in read_records(poc_run / "rounds.jsonl"):
        values = [record[name] for name in ("loss",) if name in record] + list(record.get("metrics", {}).values())
        if record["site"] == running.poc.kits.clients[0].name:
            assert values == [round(value, 2) for value in values]
        elif record["site"] != SERVER and values:
            assert values != [round(value, 2) for value in values]


def test_global_model_is_the_simulators_up_to_float_noise(poc_run: Path, run: Path) -> None:
    simulated, real = load(run / "final_model.pt"), load(poc_run / "final_model.pt")

    assert simulated.keys() == real.keys()
    for name, value in simulated.items():
        np.testing.assert_allclose(real[name], value, rtol=0, atol=1e-5)


@pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning")  # MLflow, with SQLAlchemy 2.1
def test_mlflow_has_the_curves_of_the_records_in_the_run_folder_alone(poc_run: Path) -> None:
    pytest.importorskip("mlflow", reason="not installed: mlflow-skinny")

    assert read_store(poc_run / "tracking" / "mlflow.db") == curves_of_records(poc_run)
    assert not (poc_run / "server" / "tracking").exists()


def test_what_a_site_logs_and_keeps_stays_in_its_own_kit(running: Running, poc_run: Path) -> None:
    case = f"{SITES[0]}-case-001"
    local = running.poc.kits.clients[0].folder

    assert list(local.glob("state/*/local_model.pt"))
    fetched = [path for path in (poc_run / "server").rglob("*") if path.is_file()]
    assert fetched
    assert [path for path in fetched if case.encode() in path.read_bytes()] == []


@pytest.mark.slow  # half a minute at FLARE's own pace
def test_built_job_runs_with_flares_own_submit_command(running: Running, tmp_path: Path) -> None:
    job = build_job(JOB, tmp_path / "job", JobOptions("small", 1, TINY))  # it brings its code

    def nvflare_job(*arguments: str) -> str:
        command = [NVFLARE, "job", *arguments, "--startup-kit", str(running.poc.lead.folder.resolve())]
        environment = {**os.environ, "HOME": str(tmp_path), "PYTHONWARNINGS": "ignore"}
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=300, check=False, env=environment, cwd=tmp_path
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    submitted = re.search(r"job_id: (\S+)", nvflare_job("submit", "-j", str(job.folder)))
    assert submitted is not None
    assert "FINISHED:COMPLETED" in nvflare_job("wait", submitted[1], "--timeout", "280")
    nvflare_job("download", submitted[1], "-o", str(tmp_path / "result"))

    server = tmp_path / "result" / submitted[1] / "workspace"
    assert (server / "app_server" / "FL_global_model.pt").is_file()
    records = read_records(server / "rounds.jsonl")
    assert sorted(r["site"] for r in records if r["phase"] == "train" and r["status"] == "ok") == sorted(SITES)


def without_code() -> JobOptions:
    return JobOptions(preinstalled=True, polling_seconds=POLLING_SECONDS)


def test_statistics_hold_what_the_hospitals_released_and_nothing_of_one_with_too_few_cases(
    running: Running, tmp_path: Path
) -> None:
    submit_poc(running.poc, "brats_statistics", tmp_path / "run", without_code())

    columns = {column.site: column for column in read_statistics(tmp_path / "run" / "statistics.json")}
    assert sorted(columns) == sorted({*SITES, ALL} - {"hospital-4"})
    for site in set(columns) - {ALL}:
        release = json.loads((running.sites / site / RELEASES_FILE).read_text(encoding="utf-8"))[-1]
        assert {name: list(values) for name, values in columns[site].histograms.items()} == release["histograms"]
    assert columns[ALL].cases == sum(column.cases for site, column in columns.items() if site != ALL)
    assert not (running.sites / "hospital-4" / RELEASES_FILE).exists()
    records = read_records(tmp_path / "run" / "rounds.jsonl")
    assert {record["site"] for record in records if record["status"] == "TOO_FEW_CASES"} == {"hospital-4"}
    told = {record["site"]: record["epsilon"] for record in records if record["status"] == "ok"}
    assert told == dict.fromkeys(set(columns) - {ALL}, Protection().epsilon)
    report(tmp_path / "run")
    page = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert "hospital-4 sent nothing: it has fewer cases than its own rule asks for" in page
    assert page.count("<svg") == len(FEATURES)


@pytest.mark.slow  # seven models, one after the other, at FLARE's own pace
def test_each_hospital_scores_each_ones_model_and_needs_as_many_patients_as_its_statistics(
    running: Running, poc_run: Path, tmp_path: Path
) -> None:
    submit_poc(running.poc, "brats_cross_site", tmp_path / "run", replace(without_code(), of_run=poc_run))

    matrix = read_cross_site(tmp_path / "run" / CROSS_SITE_FILE)
    assert [(row.model, row.status) for row in matrix.rows] == [("final", "ok"), *((site, "ok") for site in SITES)]
    # hospital-1's contract lets metrics out rounded, and so no scores; hospital-4 has two patients
    at_each = dict.fromkeys(SITES, "ok") | {"hospital-1": "EGRESS_REFUSED", "hospital-4": "TOO_FEW_CASES"}
    assert all({site: cell.status for site, cell in row.cells.items()} == at_each for row in matrix.rows)


@pytest.mark.slow  # a job more
def test_hospitals_find_the_case_that_two_of_them_have(running: Running, tmp_path: Path) -> None:
    own = read_datalist(running.sites / "hospital-3" / DATALIST_FILE)
    taken = read_datalist(running.sites / "hospital-1" / DATALIST_FILE).training[0]
    renamed = replace(taken, case="somebody", patient="somebody")
    write_datalist(running.sites / "hospital-3" / DATALIST_FILE, replace(own, testing=(*own.testing, renamed)))

    submit_poc(running.poc, "brats_fingerprints", tmp_path / "run", without_code())

    found = json.loads((tmp_path / "run" / "shared_scans.json").read_text(encoding="utf-8"))
    assert found["shared"] == [{"sites": ["hospital-1", "hospital-3"], "scans": 4}]
    assert found["sites"]["hospital-1"] == {"status": "ok", "scans": 20}
    for site, case, other in (("hospital-1", taken.case, "hospital-3"), ("hospital-3", "somebody", "hospital-1")):
        kit = next(kit.folder for kit in running.poc.kits.clients if kit.name == site)
        told = [json.loads(path.read_text(encoding="utf-8")) for path in kit.glob("*/shared_scans.json")]
        assert told == [{case: [other]}]
    for kit in running.poc.kits.clients:
        if kit.name not in ("hospital-1", "hospital-3"):
            (told,) = (json.loads(path.read_text(encoding="utf-8")) for path in kit.folder.glob("*/shared_scans.json"))
            assert told == {}
    everything = b"".join(path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file())
    assert taken.case.encode() not in everything


@pytest.mark.slow  # a job more
def test_hospital_withdraws_from_a_run_of_the_federation(running: Running, poc_run: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(poc_run, tmp_path / "run"))

    withdraw_from(Asked(run, "hospital-5"), tmp_path / "without")

    records = read_records(tmp_path / "without" / "rounds.jsonl")
    assert sorted(r["site"] for r in records if r["phase"] == "train") == sorted(set(SITES) - {"hospital-5"})
    verdict = judge(tmp_path / "without", kits=[kit.folder for kit in running.poc.kits.clients])
    assert verdict.problems == ()
    assert verdict.is_proven
    sealed = read_ledger(tmp_path / "without" / "ledger.jsonl")[-1]
    assert [one["hospital"] for one in sealed.lists["withdrawals"]] == ["hospital-5"]
    assert read_withdrawals(run)[0].run == "without"


def test_second_start_is_refused_while_the_first_runs(running: Running) -> None:
    with pytest.raises(RunError, match="processes of this federation are running; stop them first"):
        start_poc(running.poc)
    with pytest.raises(FolderError, match="it holds a POC workspace; choose another --workspace or add --force"):
        prepare_poc(running.poc.folder, running.sites)
    with pytest.raises(RunError, match="run `brats-fl poc stop` first"):
        prepare_poc(running.poc.folder, running.sites, force=True)


def test_another_federation_on_this_host_does_not_see_this_one(running: Running, tmp_path: Path) -> None:
    other = prepare_poc(tmp_path / "workspace", running.sites)

    assert fed.processes(other.kits) == []
    assert len(fed.processes(running.poc.kits)) >= 6
    assert other.kits.server.port != running.poc.kits.server.port
    fed.stop(other.kits)
    assert len(fed.processes(running.poc.kits)) >= 6
    with pytest.raises(RunError, match="nothing is running; run `brats-fl poc start` first"):
        submit_poc(other, JOB, tmp_path / "run", JobOptions("small", 1))


def test_folder_that_is_no_workspace_is_refused(tmp_path: Path) -> None:
    with pytest.raises(KitError, match="no POC workspace there; make one with `brats-fl poc prepare`"):
        read_poc(tmp_path)
    (tmp_path / "thesis.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(FolderError, match=r"no POC workspace of brats-fl's .*; choose another --workspace"):
        prepare_poc(tmp_path, None, force=True)
    assert (tmp_path / "thesis.txt").is_file()
