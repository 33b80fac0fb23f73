"""What is submitted, by whom, and what was done to it; and a lead who goes away."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from brats_fl.constants import SITES
from brats_fl.round_records import read_records
from brats_fl_tools.drill.broken_sites import ALTERED_AFTER_SIGNING, EDITED_BEFORE_SIGNING, write_fault
from brats_fl_tools.drill.faults.verdicts import Fault, expect, expect_others_finished
from brats_fl_tools.drill.federation import Drill
from brats_fl_tools.drill.outcome import status_of
from brats_fl_tools.drill.waiting import wait_until
from brats_fl_tools.runs.folder import SERVER_FILES

REFUSALS: Final = frozenset({"JOB_ERROR"})
"""Codes by which a site refuses what a job says."""


def member_submits(drill: Drill) -> str:
    """An admin whose role may only look tries to submit a job."""
    run = drill.hosts.files("lead") / "member-run"
    arguments = drill.submission(run, 1)
    arguments[arguments.index("--kit") + 1] = str(drill.kit_folder("member"))
    done = drill.on_lead(*arguments)
    expect(done.returncode == 1, f"submit ended with {done.returncode}")
    expect("not allowed for this admin" in done.stderr, f"submit said {done.stderr.strip()[-200:]!r}")
    return done.stderr.strip().splitlines()[-1][:160]


def job_altered(drill: Drill) -> str:
    """A file of a job is changed after the lead has signed it."""
    run = drill.hosts.files("lead") / "altered"
    fault = write_fault(drill.hosts.files("lead") / "fault", ALTERED_AFTER_SIGNING)
    done = drill.on_lead(*drill.submission(run, 1), fault=fault)
    expect(done.returncode == 1, f"submit ended with {done.returncode}: {done.stdout[-200:]}")
    expect("signature verification" in done.stderr, f"submit said {done.stderr.strip()[-200:]!r}")
    return done.stderr.strip().splitlines()[-1][:200]


def job_with_code(drill: Drill) -> str:
    """A job that brings code meets the policy ``strict``."""
    run = drill.hosts.files("lead") / "with-code"
    arguments = [part for part in drill.submission(run, 1) if part != "--preinstalled"]
    done = drill.on_lead(*arguments)
    expect(done.returncode == 1, f"submit ended with {done.returncode}")
    expect("BYOC not permitted" in done.stderr, f"submit said {done.stderr.strip()[-200:]!r}")
    return done.stderr.strip().splitlines()[-1][:200]


def job_with(what: str) -> Callable[[Drill], str]:
    """A lead edits a job that was built, to have it run something at the sites, and signs it."""

    def inject(drill: Drill) -> str:
        ran = drill.hosts.folder / f"{what}-ran"  # every host may write there
        edits = {
            "expression": {"learning_rate": f"$__import__('pathlib').Path('{ran}').touch()"},
            "path": {"cache_dir": str(ran)},
        }[what]
        run = drill.hosts.files("lead") / f"job-with-{what}"
        fault = write_fault(drill.fault_folder("lead") / what, EDITED_BEFORE_SIGNING.format(edits=edits))
        arguments = drill.submission(run, 1, {"patience_rounds": 1})
        drill.approve_edited(edits)
        done = drill.on_lead(*arguments, fault=fault)
        expect(done.returncode == 1, f"submit ended with {done.returncode}: {done.stdout[-200:]}")
        records = read_records(run / SERVER_FILES / "rounds.jsonl")
        found = {site: status_of(records, site, 0) for site in SITES}
        expect(set(found.values()) <= REFUSALS, f"the sites are {found}")
        expect(not ran.exists(), f"the {what} was carried out: {ran} is there")
        return f"refused at five sites by {', '.join(sorted(set(found.values())))}; nothing of it ran"

    return inject


def submit_interrupted(drill: Drill) -> str:
    """Ctrl-C of ``submit``: the job goes on, and ``collect`` fetches it."""
    run = drill.hosts.files("lead") / "interrupted"
    with drill.submitted(run, drill.submission(run, 2, {"steps_per_epoch": 40})) as process:
        wait_until(lambda: (run / "submission.json").is_file(), "the submission")
        drill.wait_round(run, 1)
        drill.interrupt(process)
        code = process.wait(timeout=30)
    expect(code == 1, f"submit ended with {code}")
    done = drill.on_lead("collect", str(run))
    expect(done.returncode == 0, f"collect failed: {done.stderr.strip()}")
    return expect_others_finished(drill, drill.outcome(run, 0), 2) + "; collected afterwards"


FAULTS: Final[Mapping[str, Fault]] = {
    "member-submits": Fault("refused with a message", member_submits),
    "job-altered": Fault("refused with a message", job_altered),
    "job-with-code": Fault("refused by the policy strict", job_with_code),
    "job-with-expression": Fault("refused at every site by a code; nothing ran", job_with("expression")),
    "job-with-path": Fault("refused at every site by a code; nothing was written", job_with("path")),
    "submit-interrupted": Fault("the job goes on; collect fetches it", submit_interrupted),
}
