"""Which hospitals have not agreed to a job that was sent to them, and what the lead does about it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from brats_fl.errors import NotApprovedError
from brats_fl_tools.jobs.built import BuiltJob
from brats_fl_tools.runs.session import deployment

SHOWN_DIGITS = 12
_REFUSAL = re.compile(rf"([\w.-]+): \w+: {NotApprovedError.code} ([0-9a-f]{{64}})")
"""What FLARE keeps of the answer of ``ApprovedJobs``, and no other text: a hospital may answer anything."""


def not_approved(told: Iterable[str]) -> dict[str, str]:
    """Hospital -> hash of what arrived there, of those that refused the job for want of an approval."""
    return {found[1]: found[2] for line in told if (found := _REFUSAL.fullmatch(line))}


def refusal(session: Any, job_id: str, job: BuiltJob) -> str:
    """Who has not approved a job, and the mend; empty where all have, or nobody was asked yet."""
    refused = not_approved(deployment(session, job_id))
    if not refused:
        return ""
    who = ", ".join(f"{site} ({arrived[:SHOWN_DIGITS]})" for site, arrived in sorted(refused.items()))
    return (
        f"{NotApprovedError.code} by {who}: ask there for `brats-fl kit approve KIT JOB_FOLDER`, with {job.folder} as "
        "JOB_FOLDER; if another hash was approved, give the options and hospitals that `job build` had"
    )
