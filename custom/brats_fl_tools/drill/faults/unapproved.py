"""A job that hospitals have not approved meets the policy ``strict``."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from brats_fl.approval import read_approvals
from brats_fl.constants import SITES
from brats_fl_tools.drill.faults.verdicts import SITE, Fault, expect, expect_others_finished, statuses
from brats_fl_tools.drill.federation import Drill
from brats_fl_tools.drill.houses import LEAD
from brats_fl_tools.kit.site_files import approvals_file


def job_not_approved(drill: Drill) -> str:
    """Nobody has approved a job; then all but one hospital have."""
    nowhere, partly = (drill.hosts.files(LEAD) / name for name in ("approved-nowhere", "approved-partly"))
    arguments = drill.submission(nowhere, 1)
    withdraw(drill, SITES)
    done = drill.on_lead(*arguments)
    expect(done.returncode == 1, f"submit ended with {done.returncode}: {done.stdout[-200:]}")
    for site in SITES:
        expect(f"{site} (" in done.stderr.rpartition("NOT_APPROVED by ")[2], f"submit said {done.stderr[-300:]!r}")
        expect_nothing_of(drill, nowhere, site)
    arguments = drill.submission(partly, 1)
    withdraw(drill, (SITE,))
    with drill.submitted(partly, arguments) as process:
        process.wait(timeout=600)
    outcome = drill.outcome(partly, process.returncode)
    expect(f"NOT_APPROVED by {SITE} (" in outcome.output, f"submit said {outcome.output[-300:]!r}")
    expect_nothing_of(drill, partly, SITE)
    return (
        f"{done.stderr.strip()[:120]}; then {expect_others_finished(drill, outcome, 1)}; {SITE}: {statuses(outcome, 1)}"
    )


def withdraw(drill: Drill, sites: Sequence[str]) -> None:
    """Have hospitals take back what they approved last, on their own hosts."""
    for site in sites:
        kit = drill.kit_of(site)
        last = read_approvals(approvals_file(kit))[-1]
        brats_fl = str(Path(sys.executable).with_name("brats-fl"))
        command = [brats_fl, "kit", "approve", str(kit.folder), "--withdraw", last.hash]
        done = subprocess.run(drill.hosts.command(site, command), capture_output=True, text=True, check=False)
        expect(done.returncode == 0, f"{site} could not withdraw: {done.stderr.strip()[-200:]}")


def expect_nothing_of(drill: Drill, run: Path, site: str) -> None:
    """Nothing of a run's job was put in place at a hospital, and no process of a job is there."""
    expect(not (drill.kit_folder(site) / drill.job_id(run)).exists(), f"{site} has files of the job")
    expect(not drill.processes(f"{site} job"), f"a process of a job runs at {site}")


FAULTS: Final[Mapping[str, Fault]] = {
    "job-not-approved": Fault("refused before anything of it runs; those that approve it go on", job_not_approved),
}
