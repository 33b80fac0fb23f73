"""Processes that die, at a hospital and at the server; and nothing that is broken."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from brats_fl.best_model import mean_votes
from brats_fl.constants import SITES
from brats_fl_tools.drill.faults.verdicts import SITE, Fault, expect, expect_others_finished, expect_resumed, statuses
from brats_fl_tools.drill.federation import Drill
from brats_fl_tools.drill.waiting import wait_until
from brats_fl_tools.jobs.source import job_names

UNBROKEN: Final = {
    f"nothing-{job.removeprefix('brats_').removesuffix('_fedavg').replace('_', '-')}": job
    for job in job_names()
    if job.endswith("_fedavg")
}
"""Fault that is none -> job that runs without one: averaging, of every bundle that has such a job."""


def unbroken(job: str) -> Callable[[Drill], str]:
    """A job with the patches and windows of its profile, so that ``--sites`` may be real hospitals."""

    def inject(drill: Drill) -> str:
        outcome = drill.run(job, 2, values={"steps_per_epoch": 10}, job=job, tiny=False)
        text = expect_others_finished(drill, outcome, 2)
        expect(statuses(outcome, 2) == "ok, ok", f"{SITE} is {statuses(outcome, 2)}")
        dice = mean_votes(outcome.records).get(("final", 2))
        return f"{text.replace('4 sites', '5 sites')}; val_mean_dice {'none' if dice is None else f'{dice:.3f}'}"

    return inject


def trainer_killed(drill: Drill) -> str:
    """``kill -9`` of a trainer in mid-epoch."""

    def during(run: Path) -> None:
        drill.wait_round(run, 1)
        drill.kill(f"{SITE} trainer")

    outcome = drill.run("trainer-killed", 3, during, {"steps_per_epoch": 40})
    text = expect_others_finished(drill, outcome, 3)
    seen = statuses(outcome, 3)
    expect("TRAINER_DIED" in seen, f"{SITE} is {seen}")
    expect(outcome.status(SITE, 2) == "ok", f"{SITE} did not come back: {seen}")
    return f"{text}; {SITE}: {seen}"


def client_killed(drill: Drill) -> str:
    """``kill -9`` of a hospital's FLARE client."""

    def during(run: Path) -> None:
        drill.wait_round(run, 1)
        drill.kill(f"{SITE} parent")

    outcome = drill.run("client-killed", 3, during, {"steps_per_epoch": 40})
    text = expect_others_finished(drill, outcome, 3)
    seconds = wait_until(lambda: SITE in drill.connected(), f"{SITE} to be back")
    return f"{text}; {SITE}: {statuses(outcome, 3)}; connected again {seconds:.0f} s after the job"


def server_killed(drill: Drill) -> str:
    """``kill -9`` of the server in the middle of a round; it restarts, and the lead resumes the job."""

    def during(run: Path) -> None:
        drill.wait_round(run, 2)
        drill.kill("server parent")
        drill.kill("server job")

    lost = drill.run("server-killed", 4, during, {"steps_per_epoch": 40})
    expect(lost.exit_code == 1, f"submit ended with {lost.exit_code}")
    drill.wait_connected()
    wait_until(lambda: not drill.trainers(), "the sites to let go of the lost job")
    text, outcome = expect_resumed(drill, lost.run, 4, "--server-files", str(drill.copy_server_files(lost.run)))
    lines = sum(record["phase"] == "train" for record in outcome.records)
    expect(lines == 4 * len(SITES), f"the records hold {lines} lines, expected {4 * len(SITES)}")
    return text


FAULTS: Final[Mapping[str, Fault]] = {
    **{name: Fault("five sites finish every round", unbroken(job)) for name, job in UNBROKEN.items()},
    "trainer-killed": Fault("the round goes on with four; the site is back in the next", trainer_killed),
    "client-killed": Fault("the job goes on with four; the site connects again", client_killed),
    "server-killed": Fault("resume loses at most one round; all records are there", server_killed),
}
