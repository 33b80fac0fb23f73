"""What a hospital's own files hold back: its privacy budget, and its contract on what leaves."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from brats_fl.constants import SITES
from brats_fl.errors import EgressError, PrivacyBudgetError
from brats_fl.privacy.accounting import NoisedSteps, epsilon_of
from brats_fl.privacy.budget import BUDGET_FILE, SPENT_FILE, Budget, read_spent
from brats_fl.sharing.egress import CONTRACT_FILE, LOG_FILE, Sent, read_log
from brats_fl_tools.drill.faults.verdicts import SITE, Fault, expect, expect_others_finished, statuses
from brats_fl_tools.drill.federation import JOB_VALUES, Drill
from brats_fl_tools.kit.site_files import PRIVACY_FILE
from brats_fl_tools.privacy.budgets import write_budgets

CHOSEN: Final = {"noise_multiplier": 2.0, "clipping_norm": 1.0, "sampling_rate": 1.0, "delta": 1e-3}
"""Of the private job; what it learns is of no interest here."""


def left(drill: Drill, site: str, job: str) -> list[Sent]:
    """What a hospital's own log has as sent for a job, other than codes of failures."""
    log = read_log(drill.kit_folder(site) / "local" / LOG_FILE)
    return [one for one in log if (one.job, one.status) == (job, "sent") and one.kind != "code"]


def updates_left(drill: Drill, site: str, job: str) -> list[int]:
    """Rounds of which a hospital's own log has an update as sent."""
    return [one.round for one in left(drill, site, job) if one.kind == "update"]


def budget_passed(drill: Drill) -> str:
    """A hospital's privacy budget is enough for one round of a private job, and the job has three."""
    after = [NoisedSteps(2.0, 1.0, JOB_VALUES["steps_per_epoch"] * rounds) for rounds in (1, 2, 3)]
    cost = [epsilon_of([noise], CHOSEN["delta"]) for noise in after]
    with budgets(drill, {site: cost[0] + 0.01 if site == SITE else 2 * cost[2] for site in SITES}):
        outcome = drill.run("budget-passed", 3, values=CHOSEN, job="brats_unet_dp")
        text = expect_others_finished(drill, outcome, 3)
        seen, code = statuses(outcome, 3), PrivacyBudgetError.code
        expect(seen == f"ok, {code}, {code}", f"{SITE} is {seen}")
        spent = read_spent(drill.kit_folder(SITE) / "local" / SPENT_FILE)
        expect([one.round for one in spent] == [0], f"{SITE} has spent in rounds {[one.round for one in spent]}")
        sent = updates_left(drill, SITE, drill.job_id(outcome.run))
        expect(sent == [0], f"the log of {SITE} has updates of rounds {sent}")
    told = next(r["epsilon"] for r in outcome.records if r["phase"] == "train" and r["site"] == SITE and "epsilon" in r)
    return f"{text}; {SITE}: {seen}; epsilon {told:.3f} spent once, of {cost[0] + 0.01:.3f}; nothing left it afterwards"


@contextlib.contextmanager
def budgets(drill: Drill, epsilons: Mapping[str, float]) -> Iterator[None]:
    """While the block runs, hospitals have a privacy budget; with one left behind no other job would run there."""
    for site, epsilon in epsilons.items():
        write_budgets(drill.kit_folder(site), Budget(epsilon, CHOSEN["delta"]), force=False)
    try:
        yield
    finally:
        for site in epsilons:
            for name in (BUDGET_FILE, SPENT_FILE):
                (drill.kit_folder(site) / "local" / name).unlink(missing_ok=True)


def contract_broken(drill: Drill) -> str:
    """From the second round on, a hospital's contract cannot be read any more."""
    local = drill.kit_folder(SITE) / "local"

    def during(run: Path) -> None:
        drill.wait_round(run, 1)
        (local / CONTRACT_FILE).write_text('{"metrics": "rounded"', encoding="utf-8")

    with own_file(local / CONTRACT_FILE, {"metrics": "rounded"}):
        outcome = drill.run("contract-broken", 3, during, {"steps_per_epoch": 20})
    text, seen = expect_others_finished(drill, outcome, 3), statuses(outcome, 3)
    # On a busy machine the update of round 1 may have left before the file was changed.
    expect((outcome.status(SITE, 0), outcome.status(SITE, 2)) == ("ok", EgressError.code), f"{SITE} is {seen}")
    sent = updates_left(drill, SITE, drill.job_id(outcome.run))
    expect(0 in sent and 2 not in sent, f"the log of {SITE} has updates of rounds {sent}")
    return f"{text}; {SITE}: {seen}"


def filter_missing(drill: Drill) -> str:
    """A hospital has a contract, and the file that has FLARE build what enforces it is gone."""
    local = drill.kit_folder(SITE) / "local"
    with own_file(local / CONTRACT_FILE, {"metrics": "rounded"}), own_file(local / PRIVACY_FILE, None):
        outcome = drill.run("filter-missing", 2)
    text, seen = expect_others_finished(drill, outcome, 2), statuses(outcome, 2)
    expect(seen == f"{EgressError.code}, {EgressError.code}", f"{SITE} is {seen}")
    return f"{text}; {SITE}: {seen}"


@contextlib.contextmanager
def own_file(path: Path, content: Mapping[str, Any] | None) -> Iterator[None]:
    """While the block runs, a hospital's file has this content, or is not there."""
    before = path.read_bytes() if path.is_file() else None
    path.unlink(missing_ok=True)
    if content is not None:
        path.write_text(json.dumps(content), encoding="utf-8")
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        if before is not None:
            path.write_bytes(before)


FAULTS: Final[Mapping[str, Fault]] = {
    "budget-passed": Fault("the site refuses the round by a code; nothing leaves it", budget_passed),
    "contract-broken": Fault("from then on a code goes out and nothing else", contract_broken),
    "filter-missing": Fault("a code goes out and nothing else", filter_missing),
}
