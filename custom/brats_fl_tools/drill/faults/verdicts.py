"""What a fault is, and how it is judged.

A fault raises ``Unexpected`` where the federation did not do what it should, and ``Skipped`` where this machine cannot
break what it breaks; else it returns what it saw, in one line.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from brats_fl.constants import SITES
from brats_fl_tools.drill.federation import Drill
from brats_fl_tools.drill.outcome import Outcome

SITE: Final = "hospital-2"
HONEST: Final = tuple(site for site in SITES if site != SITE)
TOLERANCE: Final = 1e-5
"""Of a model against the mean of what was accepted: weights are float32."""


class Unexpected(Exception):  # noqa: N818  (a finding, not an error of the drill)
    """The federation did not do what it should."""


class Skipped(Exception):  # noqa: N818  (a fact of the machine, not an error of the drill)
    """This machine cannot break what the fault breaks."""


@dataclass(frozen=True)
class Fault:
    """One thing that goes wrong."""

    expected: str
    inject: Callable[[Drill], str]


def expect(condition: bool, text: str) -> None:
    """Raise ``Unexpected`` with the text unless the condition holds."""
    if not condition:
        raise Unexpected(text)


def expect_finished(outcome: Outcome) -> None:
    """The job ended well."""
    expect(outcome.exit_code == 0, f"the job did not finish: {outcome.output.strip().splitlines()[-1:]}")


def expect_others_finished(drill: Drill, outcome: Outcome, rounds: int, broken: str = SITE) -> str:
    """The job ended well, the honest sites took part in each round, and the model is the mean of what was accepted."""
    expect_finished(outcome)
    for round_index in range(rounds):
        for site in SITES:
            status = outcome.status(site, round_index)
            expect(site == broken or status == "ok", f"{site} is {status} in round {round_index}")
    difference = drill.difference_from_mean(outcome, rounds - 1)
    expect(difference <= TOLERANCE, f"the model differs from the mean of what was accepted by {difference:.1e}")
    return f"4 sites finished {rounds} rounds, model = mean ({difference:.0e})"


def expect_resumed(drill: Drill, run: Path, rounds: int, *arguments: str) -> tuple[str, Outcome]:
    """``resume`` completes a run that was lost; the words of that, and what came of the job."""
    done = drill.on_lead("resume", str(run), *arguments)
    expect(done.returncode == 0, f"resume failed: {done.stderr.strip() or done.stdout.strip()[-300:]}")
    outcome = drill.outcome(run, 0)
    text = expect_others_finished(drill, outcome, rounds)
    going_on = next(line for line in done.stdout.splitlines() if "going on" in line)
    return f"{text}; {going_on.split(': ')[-1]}", outcome


def statuses(outcome: Outcome, rounds: int, site: str = SITE) -> str:
    """What the records say of a site, round by round."""
    return ", ".join(outcome.status(site, index) for index in range(rounds))
