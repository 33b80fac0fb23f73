"""Which global model is the best: the highest mean of the sites' votes, one vote a site.

A site's vote is the key metric of the model that it was sent, on its own validation cases. It counts where the site's
update of that round was accepted, and where it is a number in [0, 1]: what else a site states is no vote.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from statistics import fmean
from typing import Any

from brats_fl.constants import KEY_METRIC
from brats_fl.numbers import is_finite


def vote(metrics: object, name: str = KEY_METRIC) -> float | None:
    """A site's vote by a metric; None where it reported none that counts."""
    value = metrics.get(name) if isinstance(metrics, Mapping) else None
    return float(value) if is_finite(value) and 0 <= value <= 1 else None


def mean_votes(records: Iterable[Mapping[str, Any]]) -> dict[tuple[str, int], float]:
    """(phase, round) of round records -> mean of the votes of the sites whose answer was accepted.

    ``("train", r)`` rates the model that round r began with, ``("final", r)`` the model that r rounds made.
    """
    votes: dict[tuple[str, int], dict[str, float]] = {}
    for record in records:
        value = vote(record.get("metrics"))
        if record["status"] == "ok" and value is not None:
            votes.setdefault((record["phase"], record["round"]), {})[record["site"]] = value
    return {key: fmean(of_site.values()) for key, of_site in votes.items()}
