"""Time limits of a job from what an earlier run measured: ``--timeouts-from RUN``."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from brats_fl.errors import RunError
from brats_fl.round_records import RECORDS_FILE, read_records

FACTOR = 3
"""The slowest seen is no upper bound: a cold cache, a busy disk or a backup make a round two or three times as long."""

SHORTEST_S = 120
"""Under this a start of FLARE's processes or a slow link would already count as a site that does not answer."""


def limits_from(run: Path) -> dict[str, int]:
    """``train_timeout``, ``wait_time_after_min_received`` and ``validation_timeout`` in seconds.

    The run must be of the same job with the same options, but for the number of rounds, at the same sites.

    Raises:
        RunError: The run has no record of a round.
    """
    records = [record for record in read_records(run / RECORDS_FILE) if record["status"] == "ok"]
    trained = [record for record in records if record["phase"] == "train" and record.get("seconds")]
    if not trained:
        raise RunError(f"{run / RECORDS_FILE}: no site finished a round there; give a run with at least one round")
    slowest = max(float(record["seconds"]) for record in trained)
    evaluated = max(float(record.get("evaluate_seconds") or 0) for record in records)
    return {
        "train_timeout": _limit(FACTOR * slowest),
        "wait_time_after_min_received": _limit(FACTOR * widest_gap(trained)),
        "validation_timeout": _limit(FACTOR * evaluated),
    }


def widest_gap(trained: Sequence[dict[str, Any]]) -> float:
    """Longest time in a round between the fastest site and the slowest."""
    by_round: dict[int, list[float]] = {}
    for record in trained:
        by_round.setdefault(int(record["round"]), []).append(float(record["seconds"]))
    return max(max(seconds) - min(seconds) for seconds in by_round.values())


def _limit(seconds: float) -> int:
    """Whole minutes, not under ``SHORTEST_S``."""
    return max(SHORTEST_S, math.ceil(seconds / 60) * 60)
