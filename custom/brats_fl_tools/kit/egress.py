"""What left a hospital, from its own log: a line a month and job; and whether its contract on that holds."""

from __future__ import annotations

from collections.abc import Sequence

from brats_fl.errors import EgressError, KitError
from brats_fl.reading import read_if_sound
from brats_fl.sharing.egress import CONTRACT_FILE, LOG_FILE, Sent, read_contract, read_log
from brats_fl_tools.kit.kits import Kit
from brats_fl_tools.kit.results import CheckResult, fail, passed
from brats_fl_tools.kit.site_files import PRIVACY, PRIVACY_FILE

COLUMNS = ("month", "job", "rounds", "messages", "bytes", "refused", "what")


def sum_up(kit: Kit) -> list[tuple[str, ...]]:
    """A row for each month and job, as ``COLUMNS`` say.

    Raises:
        KitError: The kit is no hospital's.
        EgressError: The log is damaged.
    """
    if kit.kind != "client":
        raise KitError(f"{kit.folder}: this is the kit of {kit.name}; only a hospital has a log of what left")
    log = read_log(kit.folder / "local" / LOG_FILE)
    groups: dict[tuple[str, str], list[Sent]] = {}
    for sent in log:
        groups.setdefault((sent.time[:7], sent.name or sent.job), []).append(sent)
    return [(month, job, *counts(found)) for (month, job), found in sorted(groups.items())]


def counts(log: Sequence[Sent]) -> tuple[str, ...]:
    """Rounds of training, messages, bytes, refusals and kinds of what left."""
    left = [sent for sent in log if sent.status == "sent"]
    rounds = {(sent.job, sent.round) for sent in left if sent.kind == "update"}
    kinds = sorted({sent.kind for sent in left})
    size = sum(sent.bytes for sent in left)
    return str(len(rounds)), str(len(left)), f"{size:,}", str(len(log) - len(left)), ", ".join(kinds)


def check_egress(kit: Kit) -> CheckResult:
    """What leaves the site is logged, and held to a contract that can be read."""
    name, local = "egress", kit.folder / "local"
    if read_if_sound(local / PRIVACY_FILE) != PRIVACY:
        return fail(name, "what leaves this site is neither logged nor held to a contract", "run brats-fl kit setup")
    try:
        contract = read_contract(local / CONTRACT_FILE)
    except EgressError as error:
        return fail(name, str(error), f"mend {CONTRACT_FILE}, see docs/hospital-it.md")
    if contract is None:
        return passed(name, "logged; no contract: all that an approved job sends may leave")
    return passed(name, f"logged, and held to {CONTRACT_FILE}")
