"""The record of a run that somebody changes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from brats_fl.constants import SITES
from brats_fl.ledger import LEDGER_FILE
from brats_fl_tools.drill.faults.verdicts import SITE, Fault, expect, expect_finished
from brats_fl_tools.drill.federation import Drill
from brats_fl_tools.ledger.command import judge
from brats_fl_tools.weights import FINAL_MODEL

FIRST_ROUND: Final = 1
"""Index of the line of round 0: the first tells of the start."""


def ledger_edited(drill: Drill) -> str:
    """A sound ledger holds; with a figure, an update's digest or a byte of the model changed, it does not."""
    outcome = drill.run("ledger-edited", 2)
    expect_finished(outcome)
    kits = tuple(drill.kit_folder(site) for site in SITES)
    sound = judge(outcome.run, kits=kits)
    expect(not sound.problems and sound.is_proven, f"the ledger of a sound run does not hold: {sound.problems[:3]}")
    found = []
    for what, spoil, word in EDITS:
        copy = outcome.run.with_name(f"{outcome.run.name}-{what}")
        shutil.copytree(outcome.run, copy)
        spoil(copy)
        problems = judge(copy, kits=kits).problems
        expect(any(word in problem for problem in problems), f"{what} was changed, and found is {problems[:3]}")
        found.append(what)
    return f"signed by all {len(SITES)} and the lead, and holds; found when changed: {', '.join(found)}"


def change_line(change: Callable[[dict[str, Any]], None]) -> Callable[[Path], None]:
    """Changes the line of round 0."""

    def spoil(run: Path) -> None:
        path = run / LEDGER_FILE
        lines = path.read_text(encoding="utf-8").splitlines()
        line = json.loads(lines[FIRST_ROUND])
        change(line)
        lines[FIRST_ROUND] = json.dumps(line, sort_keys=True, separators=(",", ":"))
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")

    return spoil


def change_cases(line: dict[str, Any]) -> None:
    """One figure that a hospital stated."""
    next(record for record in line["records"] if record["site"] == SITE)["cases"] += 1


def change_digest(line: dict[str, Any]) -> None:
    """What a hospital sent."""
    line["updates"][SITE]["digest"] = "00" * 32


def change_model(run: Path) -> None:
    """One byte of the final model."""
    path = run / FINAL_MODEL
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


EDITS: Final = (
    ("a-record", change_line(change_cases), "line 2"),
    ("an-update", change_line(change_digest), "line 2"),
    ("the-model", change_model, FINAL_MODEL),
)
"""What is changed, how, and what a finding must name."""


FAULTS: Final[Mapping[str, Fault]] = {
    "ledger-edited": Fault("found, with its line or file: the ledger of a run does not hold any more", ledger_edited),
}
