"""What a run spent of its patients' privacy, as the hospitals told it round by round."""

from __future__ import annotations

from dataclasses import dataclass

from brats_fl_tools.report.run_folder import RoundRecord, RunFolder


@dataclass(frozen=True)
class Spent:
    """A hospital's last word on what the study has spent of each of its patients."""

    site: str
    epsilon: float
    delta: float
    rounds: int
    """Rounds whose update came."""


def spent_by_hospital(run: RunFolder) -> list[Spent]:
    """A row for each hospital that trained with noise; none of a run without."""
    found = []
    for site in run.sites:
        told = [one for one in run.records if one.site == site and one.phase == "train" and one.epsilon is not None]
        if told:
            last = max(told, key=_epsilon)
            found.append(Spent(site, _epsilon(last), last.delta or 0.0, len(told)))
    return found


def _epsilon(record: RoundRecord) -> float:
    return record.epsilon or 0.0
