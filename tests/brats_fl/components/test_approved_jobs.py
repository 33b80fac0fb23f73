"""A hospital's own word on a job as FLARE delivers it; that FLARE asks for it is tested with real processes."""

from __future__ import annotations

import inspect
import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from nvflare.apis.event_type import EventType
from nvflare.apis.fl_component import FLComponent
from nvflare.apis.fl_constant import FLContextKey, SystemComponents
from nvflare.apis.fl_context import FLContext, FLContextManager
from nvflare.apis.job_launcher_spec import JobLauncherSpec, add_launcher
from nvflare.apis.workspace import Workspace
from nvflare.fuel.utils.zip_utils import zip_directory_to_bytes
from nvflare.lighter.tool_consts import NVFLARE_SIG_FILE, NVFLARE_SUBMITTER_CRT_FILE
from nvflare.lighter.utils import load_private_key_file, sign_folders
from nvflare.private.event import fire_event
from nvflare.private.fed.utils.app_deployer import AppDeployer
from nvflare.private.fed.utils.fed_utils import get_job_launcher
from tests.flare import JOB
from tests.tiny_kits import make_tiny_kits

from brats_fl.approval import ADDED_BY_FLARE, Approval, add_approval, approval_hash, withdraw_approval
from brats_fl.components.approved_jobs import ApprovedJobs, hash_of_received, list_of
from brats_fl.errors import NotApprovedError
from brats_fl_tools.jobs.assembly import JobOptions, build_job
from brats_fl_tools.jobs.built import BuiltJob
from brats_fl_tools.kit.site_files import APPROVED_JOBS

SITE = "hospital-1"


@pytest.fixture
def job(tmp_path: Path) -> BuiltJob:
    return build_job("brats_unet_fedavg", tmp_path / "jobs", JobOptions("small", preinstalled=True))


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    for folder in ("startup", "local"):
        (tmp_path / "kit" / folder).mkdir(parents=True)
    return Workspace(str(tmp_path / "kit"), SITE)


def deliver(workspace: Workspace, app: Path, meta: dict[str, Any]) -> str:
    """What the site answers to an app that FLARE delivers."""
    data = zip_directory_to_bytes(str(app), "")
    return ApprovedJobs().deploy(workspace, JOB, meta, "app_client", data, FLContext())


def meta_of(job: BuiltJob) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((job.folder / "meta.json").read_text(encoding="utf-8"))
    return content


def approve(workspace: Workspace, hash_of_job: str) -> None:
    add_approval(list_of(workspace), Approval(hash_of_job, "study", "", "it", "2026-11-29T08:00:00+00:00"))


def test_job_that_is_not_approved_is_answered_by_a_code_and_nothing_of_it_is_kept(
    workspace: Workspace, job: BuiltJob, caplog: pytest.LogCaptureFixture
) -> None:
    app = job.folder / "app_client"
    approve(workspace, "0" * 64)

    answer = deliver(workspace, app, meta_of(job))

    assert answer == f"NOT_APPROVED {approval_hash(app, meta_of(job), SITE)}"
    assert not Path(workspace.get_run_dir(JOB)).exists()
    assert f"job {JOB} (brats_unet_fedavg) was refused" in caplog.text


def test_approved_job_is_put_in_place_and_one_in_which_a_setting_differs_is_not(
    workspace: Workspace, job: BuiltJob, tmp_path: Path
) -> None:
    app, changed = job.folder / "app_client", tmp_path / "changed"
    shutil.copytree(app, changed)
    path = changed / "config" / "config_fed_client.json"
    path.write_text(
        path.read_text(encoding="utf-8").replace('"local_epochs": 1', '"local_epochs": 2'), encoding="utf-8"
    )
    approve(workspace, approval_hash(app, meta_of(job), SITE))

    first, second = deliver(workspace, app, meta_of(job)), deliver(workspace, changed, meta_of(job))
    with_image = {**meta_of(job), "launcher_spec": {"default": {"docker": {"image": "another"}}}}

    assert first == ""
    assert second.startswith("NOT_APPROVED ")
    assert deliver(workspace, app, with_image).startswith("NOT_APPROVED ")
    assert (Path(workspace.get_app_dir(JOB)) / "config" / "config_fed_client.json").read_bytes() == (
        app / "config" / "config_fed_client.json"
    ).read_bytes()


def test_damaged_list_lets_nothing_in(workspace: Workspace, job: BuiltJob) -> None:
    list_of(workspace).write_text("{", encoding="utf-8")

    assert deliver(workspace, job.folder / "app_client", meta_of(job)).startswith("NOT_APPROVED ")


def test_signatures_that_flare_adds_do_not_change_what_was_approved(job: BuiltJob, tmp_path: Path) -> None:
    lead = make_tiny_kits(tmp_path / "kits").federation.admins[0]
    before = approval_hash(job.folder / "app_client", meta_of(job), SITE)

    sign_folders(str(job.folder), load_private_key_file(str(lead.private_key)), str(lead.certificate))

    sent = zip_directory_to_bytes(str(job.folder / "app_client"), "")
    assert (job.folder / "app_client" / "config" / NVFLARE_SIG_FILE).is_file()
    assert hash_of_received(sent, meta_of(job), SITE) == before
    assert {NVFLARE_SIG_FILE, NVFLARE_SUBMITTER_CRT_FILE} == ADDED_BY_FLARE


class OwnLauncher(JobLauncherSpec):
    """Stands for the site's own."""

    def handle_event(self, event_type: str, fl_ctx: FLContext) -> None:
        if event_type == EventType.BEFORE_JOB_LAUNCH:
            add_launcher(self, fl_ctx)

    def launch_job(self, job_meta: dict[str, Any], fl_ctx: FLContext) -> Any:
        """Not called here."""


def start(workspace: Workspace, meta: dict[str, Any], *components: FLComponent) -> JobLauncherSpec:
    """The launcher that FLARE would start a job with, which lies in place."""
    engine = SimpleNamespace(fire_event=lambda event, fl_ctx: fire_event(event, [*components], fl_ctx))
    contexts = FLContextManager(engine, SITE, private_stickers={FLContextKey.WORKSPACE_ROOT: workspace.get_root_dir()})
    engine.new_context = contexts.new_context
    return get_job_launcher({**meta, "job_id": JOB}, contexts.new_context())


def test_job_in_place_is_started_as_long_as_it_is_approved(workspace: Workspace, job: BuiltJob) -> None:
    at_site, own = approval_hash(job.folder / "app_client", meta_of(job), SITE), OwnLauncher()
    approve(workspace, at_site)
    deliver(workspace, job.folder / "app_client", meta_of(job))

    assert start(workspace, meta_of(job), own, ApprovedJobs()) is own
    withdraw_approval(list_of(workspace), at_site)
    for components in ((own, ApprovedJobs()), (ApprovedJobs(), own)):
        with pytest.raises(RuntimeError, match=r"Exactly one job launcher .* found 2"):
            start(workspace, meta_of(job), *components)
    alone = start(workspace, meta_of(job), ApprovedJobs())
    with pytest.raises(NotApprovedError, match=f"job {JOB} is not approved here"):
        alone.launch_job({"job_id": JOB}, FLContext())


def test_job_that_was_changed_where_it_lies_or_that_is_not_there_is_not_started(
    workspace: Workspace, job: BuiltJob
) -> None:
    approve(workspace, approval_hash(job.folder / "app_client", meta_of(job), SITE))
    with pytest.raises(RuntimeError, match="found 2"):
        start(workspace, meta_of(job), OwnLauncher(), ApprovedJobs())
    deliver(workspace, job.folder / "app_client", meta_of(job))
    (Path(workspace.get_app_dir(JOB)) / "custom").mkdir()
    (Path(workspace.get_app_dir(JOB)) / "custom" / "brats_fl.py").write_text("", encoding="utf-8")

    with pytest.raises(RuntimeError, match="found 2"):
        start(workspace, meta_of(job), OwnLauncher(), ApprovedJobs())


def test_flare_asks_the_component_as_it_would_ask_its_own() -> None:
    own, theirs = (inspect.signature(cls.deploy).parameters for cls in (ApprovedJobs, AppDeployer))

    assert list(own) == list(theirs)
    assert APPROVED_JOBS["id"] == SystemComponents.APP_DEPLOYER
    assert APPROVED_JOBS["path"] == f"{ApprovedJobs.__module__}.{ApprovedJobs.__name__}"
