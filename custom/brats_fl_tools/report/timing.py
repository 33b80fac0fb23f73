"""Where the time of a round went: each site's own work, and its wait for the slowest."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType

from brats_fl_tools.report.run_folder import RoundRecord, RunFolder

WORK = MappingProxyType(
    {
        "train_seconds": "training",
        "evaluate_seconds": "evaluation",
        "other_seconds": "loading and transfer",
        "waiting_seconds": "waiting",
    }
)
"""Parts of a ``RoundTime`` in the order they are stacked, with their names for readers."""


@dataclass(frozen=True)
class RoundTime:
    """Seconds of one site in one round of training; the four parts add up to the slowest site's seconds."""

    round: int
    site: str
    train_seconds: float
    evaluate_seconds: float
    other_seconds: float
    waiting_seconds: float


def own_seconds(record: RoundRecord) -> float:
    """Seconds a site needed for a round, by its own clock; the sum of the parts where that is unknown."""
    parts = (record.train_seconds or 0.0) + (record.evaluate_seconds or 0.0)
    return max(record.seconds or 0.0, parts)


def round_times(run: RunFolder) -> tuple[RoundTime, ...]:
    """Times of every round and site that answered and gave a time."""
    records = [record for record in run.records if record.phase == "train" and record.is_ok and own_seconds(record) > 0]
    slowest: dict[int, float] = {}
    for record in records:
        slowest[record.round] = max(slowest.get(record.round, 0.0), own_seconds(record))
    return tuple(
        RoundTime(
            round=record.round,
            site=record.site,
            train_seconds=record.train_seconds or 0.0,
            evaluate_seconds=record.evaluate_seconds or 0.0,
            other_seconds=own_seconds(record) - (record.train_seconds or 0.0) - (record.evaluate_seconds or 0.0),
            waiting_seconds=slowest[record.round] - own_seconds(record),
        )
        for record in records
    )
