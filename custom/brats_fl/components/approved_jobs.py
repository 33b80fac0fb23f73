"""The hospital's word: a job that it has not approved does not get as far as its workspace, whoever signed it."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nvflare.apis.fl_context import FLContext
from nvflare.apis.workspace import Workspace
from nvflare.fuel.utils.zip_utils import unzip_all_from_bytes
from nvflare.private.fed.utils.app_deployer import AppDeployer

from brats_fl.approval import APPROVED_FILE, approval_hash, check_approved
from brats_fl.errors import BratsFLError, NotApprovedError

logger = logging.getLogger(__name__)


class ApprovedJobs(AppDeployer):
    """Component ``app_deployer`` of a site's ``resources.json``: FLARE gives it what arrived of a job, to put in place.

    FLARE's events are of no use here: those that can refuse a job come before it has arrived
    (``BEFORE_CHECK_RESOURCE_MANAGER``, ``AUTHORIZE_COMMAND_CHECK``), or when nobody tells the lead any more
    (``BEFORE_JOB_LAUNCH``). When a job is started FLARE compares its meta data with those that were deployed.
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
            check_approved(Path(workspace.get_site_config_dir()) / APPROVED_FILE, received)
        except BratsFLError as error:
            logger.warning("job %s (%s) was refused: %s", job_id, job_meta.get("name"), error)
            return f"{NotApprovedError.code} {received}"
        return str(super().deploy(workspace, job_id, job_meta, app_name, app_data, fl_ctx) or "")


def hash_of_received(app_data: bytes, meta: Mapping[str, Any], site: str) -> str:
    """The approval hash of an app as FLARE sends it, a ZIP file."""
    with tempfile.TemporaryDirectory() as folder:
        unzip_all_from_bytes(app_data, folder)
        return approval_hash(Path(folder), meta, site)
