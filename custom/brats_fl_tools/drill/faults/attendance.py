"""Hospitals that come late, or leave and return."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from brats_fl_tools.drill.faults.verdicts import HONEST, SITE, Fault, expect, expect_others_finished, statuses
from brats_fl_tools.drill.federation import Drill
from brats_fl_tools.drill.waiting import wait_until
from brats_fl_tools.runs.host_federation import CONSOLE_LOG

STOP_SECONDS: Final = 60


def next_job(drill: Drill, name: str) -> str:
    """The hospital takes part in a job that is submitted now."""
    outcome = drill.run(name, 1)
    expect_others_finished(drill, outcome, 1)
    expect(outcome.status(SITE, 0) == "ok", f"{SITE} is {outcome.status(SITE, 0)} in the next job")
    return "in the next job from its first round"


def joins_late(drill: Drill) -> str:
    """A hospital is started when the job is in its second round."""
    drill.end(SITE)
    drill.restart_server(HONEST)  # a server that knows the hospital misses it after ten minutes only
    expect(SITE not in drill.connected(), f"{SITE} is there")

    def during(run: Path) -> None:
        drill.wait_round(run, 1)
        start_again(drill)

    outcome = drill.run("late", 3, during, {"steps_per_epoch": 20})
    text = expect_others_finished(drill, outcome, 3)
    return f"{text}; {SITE}: {statuses(outcome, 3)}, connected meanwhile, {next_job(drill, 'late-next')}"


def leaves_and_returns(drill: Drill) -> str:
    """A hospital's IT stops the kit with its own script in the second round, and starts it again two rounds later."""

    def during(run: Path) -> None:
        drill.wait_round(run, 1)
        stop(drill)
        drill.wait_round(run, 3)
        start_again(drill)

    outcome = drill.run("leaves", 5, during, {"steps_per_epoch": 20})
    text = expect_others_finished(drill, outcome, 5)
    expect(outcome.status(SITE, 0) == "ok", f"{SITE} is {outcome.status(SITE, 0)} before it left")
    expect(outcome.status(SITE, 2) != "ok", f"{SITE} was not away")
    return f"{text}; {SITE}: {statuses(outcome, 5)}, connected again, {next_job(drill, 'leaves-next')}"


def start_again(drill: Drill) -> None:
    """Start the hospital; returns when its own log says that the server has let it in."""

    def times() -> int:
        log = drill.kit_folder(SITE) / CONSOLE_LOG
        return log.read_text(encoding="utf-8", errors="replace").count("Successfully registered client")

    before = times()
    drill.start([SITE])
    wait_until(lambda: times() > before, f"{SITE} to be let in")


def stop(drill: Drill) -> None:
    """Stop the hospital's kit as its IT does."""
    command = drill.hosts.command(SITE, ["bash", str(drill.kit_folder(SITE) / "startup" / "stop_fl.sh")])
    subprocess.run(command, input="y\n", text=True, capture_output=True, timeout=STOP_SECONDS, check=False)
    kinds = ("parent", "job", "trainer", "other")  # the watchdog goes last
    wait_until(lambda: not any(drill.processes(f"{SITE} {kind}") for kind in kinds), f"the end of {SITE}")


FAULTS: Final[Mapping[str, Fault]] = {
    "site-joins-late": Fault("the job goes on with four; the site is in the next job", joins_late),
    "site-leaves": Fault("the job goes on with four; the site is in the next job", leaves_and_returns),
}
