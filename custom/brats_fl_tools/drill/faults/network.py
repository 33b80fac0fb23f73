"""A network that is cut or slow."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from brats_fl_tools.drill.faults.verdicts import SITE, Fault, Skipped, expect, expect_others_finished, statuses
from brats_fl_tools.drill.federation import Drill
from brats_fl_tools.drill.hosts import why_no_netem
from brats_fl_tools.drill.waiting import wait_until

SLOW_LINK_KILOBITS_PER_S: Final = 1000
LOSS_PERCENT, DELAY_MS = 3, 80
"""Of a bad line: TCP gets some 2 Mbit/s through, and the model of 19 MB takes a minute and a half each way."""


def cut_for_30_seconds(drill: Drill) -> str:
    """A hospital's link is down for 30 s."""

    def during(run: Path) -> None:
        drill.wait_round(run, 1)
        drill.hosts.cut(SITE)
        time.sleep(30)
        drill.hosts.join(SITE)

    outcome = drill.run("cut-30s", 6, during, {"steps_per_epoch": 40})
    text = expect_others_finished(drill, outcome, 6)
    expect(outcome.status(SITE, 5) == "ok", f"{SITE} did not come back: {statuses(outcome, 6)}")
    return f"{text}; {SITE}: {statuses(outcome, 6)}"


def cut_for_good(drill: Drill) -> str:
    """A hospital's link is down until the job has ended."""

    def during(run: Path) -> None:
        drill.wait_round(run, 1)
        drill.hosts.cut(SITE)

    try:
        outcome = drill.run("cut", 3, during, {"steps_per_epoch": 40})
    finally:
        drill.hosts.join(SITE)
    text = expect_others_finished(drill, outcome, 3)
    seconds = wait_until(lambda: SITE in drill.connected(), f"{SITE} to be back")
    return f"{text}; {SITE}: {statuses(outcome, 3)}; connected again {seconds:.0f} s after the link"


def slow_link(drill: Drill) -> str:
    """A hospital's link carries 1 Mbit/s: the model, 19 MB, takes two and a half minutes each way."""

    def during(run: Path) -> None:
        drill.wait_round(run, 1)
        expect(SITE in drill.connected(), f"{SITE} lost its connection")

    with drill.hosts.throttled(SITE, SLOW_LINK_KILOBITS_PER_S):
        outcome = drill.run("slow-link", 2, during)
    text = expect_others_finished(drill, outcome, 2)
    expect(statuses(outcome, 2) == "missing, missing", f"{SITE} is {statuses(outcome, 2)}")
    return f"{text}; {SITE}: {statuses(outcome, 2)}, connected all the time"


def lossy_link(drill: Drill) -> str:
    """A hospital's link loses and delays packets."""
    if reason := why_no_netem():
        raise Skipped(reason)
    with drill.hosts.lossy(SITE, LOSS_PERCENT, DELAY_MS):
        outcome = drill.run("lossy-link", 3, values={"wait_time_after_min_received": 120})
    text = expect_others_finished(drill, outcome, 3)
    expect(statuses(outcome, 3) == "ok, ok, ok", f"{SITE} is {statuses(outcome, 3)}")
    return f"{text.replace('4 sites', '5 sites')}; {SITE} loses {LOSS_PERCENT} % of its packets"


FAULTS: Final[Mapping[str, Fault]] = {
    "cut-30s": Fault("rounds go on with four; the site is back afterwards", cut_for_30_seconds),
    "cut": Fault("the job goes on with four", cut_for_good),
    "lossy-link": Fault("five sites finish every round", lossy_link),
    "slow-link": Fault("rounds do not wait for it beyond the set time; the site stays connected", slow_link),
}
