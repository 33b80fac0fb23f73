"""What a fault is, and how it is judged."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from brats_fl.constants import SITES
from brats_fl_tools.drill.federation import Drill, Outcome

SITE: Final = "hospital-2"
HONEST: Final = tuple(site for site in SITES if site != SITE)
TOLERANCE: Final = 1e-5
"""Of the final model against the mean of what was accepted: weights are float32."""


class Unexpected(Exception):  # noqa: N818  (a finding, not an error of the drill)
    """The federation did not do what it should."""


@dataclass(frozen=True)
class Fault:
    """One thing that goes wrong."""

    expected: str
    inject: Callable[[Drill], str]


def expect(condition: bool, text: str) -> None:
    """Raise ``Unexpected`` with the text unless the condition holds."""
    if not condition:
        raise Unexpected(text)


def expect_others_finished(drill: Drill, outcome: Outcome, rounds: int) -> str:
    """The job ended well, the honest sites took part in each round, and the model is the mean of what was accepted."""
    expect(outcome.exit_code == 0, f"the job did not finish: {outcome.output.strip().splitlines()[-1:]}")
    for round_index in range(rounds):
        for site in HONEST:
            status = outcome.status(site, round_index)
            expect(status == "ok", f"{site} is {status} in round {round_index}")
    difference = drill.difference_from_mean(outcome, rounds - 1)
    expect(difference <= TOLERANCE, f"the model differs from the mean of what was accepted by {difference:.1e}")
    return f"4 sites finished {rounds} rounds, model = mean ({difference:.0e})"


def statuses(outcome: Outcome, rounds: int, site: str = SITE) -> str:
    """What the records say of a site, round by round."""
    return ", ".join(outcome.status(site, index) for index in range(rounds))
