"""The hospital's word: a job that it has not approved does not get as far as its workspace, whoever signed it.

It is asked twice. When a job arrives, before anything of it is put in place: there the answer reaches the lead. And
when one that is in place is to be started, which a server may ask for at any time: an approval may have been withdrawn.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nvflare.apis.event_type import EventType
from nvflare.apis.fl_component import FLComponent
from nvflare.apis.fl_constant import FLContextKey
from nvflare.apis.fl_context import FLContext
from nvflare.apis.job_launcher_spec import JobHandleSpec, JobLauncherSpec, add_launcher
from nvflare.apis.workspace import Workspace
from nvflare.fuel.utils.zip_utils import unzip_all_from_bytes
from nvflare.private.fed.utils.app_deployer import AppDeployer

from brats_fl.approval import APPROVED_FILE, approval_hash, check_approved
from brats_fl.errors import BratsFLError, NotApprovedError

logger = logging.getLogger(__name__)


class NoLauncher(JobLauncherSpec):
    """Starts nothing; with it beside a site's own launcher FLARE starts nothing either, for it wants exactly one."""

    def launch_job(self, job_meta: dict[str, Any], fl_ctx: FLContext) -> JobHandleSpec:
        """Raise: this is where FLARE gets to where a site has no other launcher."""
        raise NotApprovedError(f"job {job_meta.get('job_id')} is not approved here")


class ApprovedJobs(AppDeployer, FLComponent):
    """Component ``app_deployer`` of a site's ``resources.json``: FLARE gives it what arrived of a job, to put in place.

    FLARE's events that can refuse a job so that the lead hears of it (``BEFORE_CHECK_RESOURCE_MANAGER``,
    ``AUTHORIZE_COMMAND_CHECK``) come before it has arrived.
    """

    def deploy(
        self,
        workspace: Workspace,
        job_id: str,
        job_meta: dict[str, Any],
        app_name: str,
        app_data: bytes,
        fl_ctx: FLContext,
    ) -> str:
        """Put the job in place if it is approved; else the code and the hash of what arrived."""
        received = hash_of_received(app_data, job_meta, workspace.site_name)
        try:
            check_approved(list_of(workspace), received)
        except BratsFLError as error:
            logger.warning("job %s (%s) was refused: %s", job_id, job_meta.get("name"), error)
            return f"{NotApprovedError.code} {received}"
        return str(super().deploy(workspace, job_id, job_meta, app_name, app_data, fl_ctx) or "")

    def handle_event(self, event_type: str, fl_ctx: FLContext) -> None:
        """Let nothing be started that is not approved as it lies here."""
        if event_type != EventType.BEFORE_JOB_LAUNCH:
            return
        try:
            workspace = Workspace(fl_ctx.get_prop(FLContextKey.WORKSPACE_ROOT), fl_ctx.get_identity_name())
            meta = fl_ctx.get_prop(FLContextKey.JOB_META)
            app = Path(workspace.get_app_dir(meta["job_id"]))
            check_approved(list_of(workspace), approval_hash(app, meta, workspace.site_name))
        except Exception as error:  # FLARE goes on with the start, whatever an event's handler raises
            logger.warning("a job was not started: %s", error)
            add_launcher(NoLauncher(), fl_ctx)


def list_of(workspace: Workspace) -> Path:
    """The site's list of approved jobs."""
    return Path(workspace.get_site_config_dir()) / APPROVED_FILE


def hash_of_received(app_data: bytes, meta: Mapping[str, Any], site: str) -> str:
    """The approval hash of an app as FLARE sends it, a ZIP file."""
    with tempfile.TemporaryDirectory() as folder:
        unzip_all_from_bytes(app_data, folder)
        return approval_hash(Path(folder), meta, site)
