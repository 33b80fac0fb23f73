"""Secure aggregation: a hospital that drops out or lies, and a server that plays a hospital."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from itertools import pairwise
from typing import Final

from brats_fl.constants import SITES
from brats_fl.errors import MaskingError
from brats_fl.ledger import LEDGER_FILE, read_ledger
from brats_fl.privacy.messages import TASK_KEYS, TASK_REVEAL, TASK_SHARES
from brats_fl_tools.drill.faults.contracts import left
from brats_fl_tools.drill.faults.verdicts import SITE, Fault, expect, expect_finished, expect_others_finished
from brats_fl_tools.drill.federation import Drill
from brats_fl_tools.drill.outcome import Outcome, means

JOB: Final = "brats_unet_secagg"
SECOND_LIAR: Final = "hospital-3"
"""Of five hospitals four make a sum: one false share is found out by the others', two cost the round."""


EXPECTED_OF_TWO_ROUNDS: Final[Mapping[str, int]] = {TASK_KEYS: 2, TASK_SHARES: 1, "train": 1, TASK_REVEAL: 1}
"""Messages that may leave a hospital that refuses the first of two rounds when it is told the others' keys."""


def masked_drop_out(drill: Drill) -> str:
    """With masked updates, a hospital that fails in training costs the sum nothing, and is back in the next round."""
    with drill.broken({SITE: {"train": {"1": "raises"}}}):
        outcome = drill.run("masked-drop-out", 3, job=JOB)
    text = expect_others_finished(drill, outcome, 3)
    lines = [line.get("secure_aggregation", {}) for line in means(outcome.records)]
    expect([line.get("dropped_out") for line in lines] == [[], [SITE], []], f"the records say of the sums: {lines}")
    expect(all(line.get("keys_signed") for line in lines), "keys were not signed with the hospitals' certificates")
    return f"{text}; one drop-out, its masks taken off, back in the next round"


def key_swapped(drill: Drill) -> str:
    """In the first round the server tells the hospitals a key of its own as that of one of them."""
    with drill.broken({"server": {"swap_key": {"0": SITE}}}):
        outcome = drill.run("key-swapped", 2, job=JOB)
    expect_finished(outcome)
    job = drill.job_id(outcome.run)
    for site in SITES:
        codes = [r["status"] for r in outcome.records if r["site"] == site and r["round"] == 0]
        expect(codes.count(MaskingError.code) == 1 and "ok" not in codes, f"{site} is {', '.join(codes)} in round 0")
        sent = Counter(one.task for one in left(drill, site, job))
        seen = {task: sent[task] for task in EXPECTED_OF_TWO_ROUNDS}
        expect(seen == EXPECTED_OF_TWO_ROUNDS, f"what left {site}, by its own log, is {seen}")
        expect(outcome.status(site, 1) == "ok", f"{site} is {outcome.status(site, 1)} in round 1")
    expect_models(outcome, changed=(False, True))
    return f"{len(SITES)} of {len(SITES)} sites refused, their own logs have no update of that round; round 1 went on"


def shares_false(drill: Drill) -> str:
    """In the second round one hospital reveals false shares of the others' secrets, in the third two do."""
    with drill.broken({SITE: {"reveal": ["1", "2"]}, SECOND_LIAR: {"reveal": ["2"]}}):
        outcome = drill.run("shares-false", 4, job=JOB)
    text = expect_others_finished(drill, outcome, 4)
    lines = means(outcome.records)
    seen = [line["status"] for line in lines]
    expect(seen == ["ok", "ok", "NOT_UNMASKED", "ok"], f"the rounds are {', '.join(seen)}")
    named = lines[1]["secure_aggregation"]["false_shares"]
    expect(named == [SITE], f"the record names {named} as who lied in round 1")
    expect_models(outcome, changed=(True, True, False, True))
    return (
        f"{text}; one liar named and made up for, of two the round was lost, the model stayed, the next round went on"
    )


def expect_models(outcome: Outcome, changed: tuple[bool, ...]) -> None:
    """In each round the model changed, or did not, by the digests of the ledger."""
    models = [line.model for line in read_ledger(outcome.run / LEDGER_FILE) if line.kind in ("start", "round")]
    seen = tuple(before != after for before, after in pairwise(models))
    expect(seen == changed, f"whether the model changed, round by round: {seen}, expected {changed}")


FAULTS: Final[Mapping[str, Fault]] = {
    "masked-drop-out": Fault(
        "the sum of the others, without its mask; the site is back in the next round", masked_drop_out
    ),
    "key-swapped": Fault("every site refuses by a code; no update leaves, the next round goes on", key_swapped),
    "shares-false": Fault("one liar is named and costs nothing; two cost the round, not the secret", shares_false),
}
