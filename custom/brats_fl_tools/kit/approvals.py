"""What a hospital agrees to run: approve a job, list what was approved, and take it back."""

from __future__ import annotations

import getpass
import os
from datetime import datetime, timezone

from brats_fl.approval import Approval, add_approval, read_approvals, withdraw_approval
from brats_fl.errors import KitError
from brats_fl.typed import shorten
from brats_fl_tools.jobs.built import BuiltJob
from brats_fl_tools.kit.kits import Kit
from brats_fl_tools.kit.site_files import approvals_file


def refuse_other_kit(kit: Kit) -> None:
    """Raise ``KitError`` where a kit is no hospital's: nobody else runs what is approved."""
    if kit.kind != "client":
        raise KitError(f"{kit.folder}: this is the kit of {kit.name}; only a hospital approves jobs")


def approve_job(kit: Kit, job: BuiltJob, approval_hash: str, by: str) -> None:
    """Put a job on the hospital's list; it counts from now on, whether the site runs or not.

    Args:
        kit: The hospital's.
        job: What it agrees to.
        approval_hash: Of the job at this site, as it was shown.
        by: Who agrees.

    Raises:
        KitError: The kit is no hospital's, its list is damaged, or nobody agrees whose name could be read back.
    """
    refuse_other_kit(kit)
    if not by.strip() or not by.isprintable():
        raise KitError(f"{kit.folder}: who agrees must be a name of printable characters (got {shorten(by)}), see --by")
    when = datetime.now(timezone.utc).isoformat(timespec="seconds")
    add_approval(approvals_file(kit), Approval(approval_hash, job.name, job.study, by, when))


def withdraw_job(kit: Kit, start: str) -> str:
    """Take a job off the hospital's list, by its hash or the beginning of it; the line that says so.

    Raises:
        KitError: No approved job has this hash.
    """
    gone = withdraw_approval(approvals_file(kit), start)
    return f"{gone.job} ({gone.hash[:12]}) is not approved any more; a job that runs now goes on until it ends"


def list_approved(kit: Kit) -> list[str]:
    """A line for each approved job.

    Raises:
        KitError: The list is damaged.
    """
    approvals = read_approvals(approvals_file(kit))
    return [f"{one.hash}  {one.job}  {one.when[:10]}  {one.by}" for one in approvals] or ["no job is approved"]


def user_name() -> str:
    """Who runs the command; their number where the system has no name for them, as in many containers."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())
