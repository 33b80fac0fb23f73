"""Round records: their file, the words in it, and how it is read; without FLARE, so that everybody can.

A line of ``rounds.jsonl`` is what a site did in a round: ``phase``, ``round``, ``site`` and ``status``, which the
server states, and what the site told of it. What a site tells is typed once, at the server, before anybody believes it;
what is read back from a file or from a server is held to the same types.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from brats_fl.errors import RunError
from brats_fl.numbers import is_finite
from brats_fl.reading import Reader
from brats_fl.typed import shorten

RECORDS_FILE: Final = "rounds.jsonl"
READER: Final = Reader(RunError, "remove the line")

RECORDS_COMMAND: Final = "brats_fl_rounds"
"""FLARE's app command by which a running job tells its lead the records from a number on: ``{"from": 12}``."""

RECORDS_PER_ANSWER: Final = 500

PHASES: Final = MappingProxyType({"train": "train", "validate": "final"})
"""Task -> what the records call it; other tasks by their own names."""

MEAN_PHASE: Final = "mean"
"""Of the server's own line of a round: what became of the updates, and the share of each site."""

SERVER: Final = "server"
"""In place of a site in that line; no hospital may be called so."""

MOST: Final = 1e12
"""Above this nothing that is counted or timed here is plausible."""

MOST_METRICS: Final = 64
_WORD = re.compile(r"[A-Za-z][A-Za-z0-9_:.-]{0,63}")
_SITE = re.compile(r"[^\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]{1,200}")


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MOST


def _is_duration(value: object) -> bool:
    return is_finite(value) and 0 <= value <= MOST


def _is_epsilon(value: object) -> bool:
    return is_finite(value) and 0 < value <= MOST


def _is_delta(value: object) -> bool:
    return is_finite(value) and 0 < value < 1


def _is_loss(value: object) -> bool:
    return value is None or (is_finite(value) and abs(value) <= MOST)


def _is_word(value: object) -> bool:
    return isinstance(value, str) and bool(_WORD.fullmatch(value))


def _is_site(value: object) -> bool:
    return isinstance(value, str) and bool(_SITE.fullmatch(value))


OWN: Final[Mapping[str, tuple[Callable[[object], bool], str]]] = MappingProxyType(
    {
        "phase": (_is_word, "a plain word"),
        "round": (_is_count, "a whole number, 0 or more"),
        "site": (_is_site, "text without control characters"),
        "status": (_is_word, "a plain word"),
    }
)
"""What every record has, from the server: whether a value is right, and the rule in words."""

STATED: Final[Mapping[str, Callable[[object], bool]]] = MappingProxyType(
    dict.fromkeys(("cases", "steps", "bytes_down", "bytes_up"), _is_count)
    | dict.fromkeys(("seconds", "cpu_seconds", "train_seconds", "evaluate_seconds"), _is_duration)
    | {"loss": _is_loss, "epsilon": _is_epsilon, "delta": _is_delta}
)
"""What a record may hold beside the server's own four, and the metrics; and whether a value is of its type."""


SECURE_AGGREGATION: Final = "secure_aggregation"
"""Key of the server's own line of a round whose updates came masked."""


@dataclass(frozen=True)
class Unmasking:
    """How a round with secure aggregation went, as the server states it."""

    threshold: int
    """Updates without which no sum is shown."""
    took_part: tuple[str, ...]
    dropped_out: tuple[str, ...]
    false_shares: tuple[str, ...]
    """Sites whose shares were not those that they had promised."""
    keys_signed: bool
    """The sites' keys were bound to their FLARE certificates; not so in the simulator, which has none."""
    max_update_ratio_checked_by_sites: float

    def __post_init__(self) -> None:
        """Check the names.

        Raises:
            ValueError: One is no site's.
        """
        for name in (*self.took_part, *self.dropped_out, *self.false_shares):
            if not _is_site(name):
                raise ValueError(f"must name sites (got {shorten(name)})")


def typed_statement(stated: object, metrics: object = None) -> tuple[dict[str, Any], int]:
    """What a site stated, and how much of it was dropped: unknown keys, wrong types, metrics that are none.

    Args:
        stated: Of an update or an evaluation, not trusted.
        metrics: Name -> value, each in [0, 1], not trusted.
    """
    given = dict(stated) if isinstance(stated, Mapping) else {}
    facts = {key: value for key, value in given.items() if key in STATED and STATED[key](value)}
    named = dict(metrics) if isinstance(metrics, Mapping) else {}
    kept = {name: value for name, value in list(named.items())[:MOST_METRICS] if is_metric(name, value)}
    dropped = len(given) - len(facts) + len(named) - len(kept)
    return {**facts, **({} if metrics is None else {"metrics": kept})}, dropped


def is_metric(name: object, value: object) -> bool:
    """Whether a name and a value can be a metric: a plain word, and a number in [0, 1]."""
    return isinstance(name, str) and bool(_WORD.fullmatch(name)) and is_finite(value) and 0 <= value <= 1


def typed_status(status: object) -> str:
    """The code that a site gave for a failure, or ``UNKNOWN_ERROR`` for what is none."""
    return status if isinstance(status, str) and _WORD.fullmatch(status) else "UNKNOWN_ERROR"


def check_record(place: str, record: object) -> dict[str, Any]:
    """A record, once it is known to be one.

    Args:
        place: File and line, for the message.
        record: From JSON, not trusted.

    Raises:
        RunError: Names the place, the rule and the mend.
    """
    if not isinstance(record, dict):
        raise RunError(f"{place}: must be an object; remove the line")
    for key, (fits, rule) in OWN.items():
        if not fits(record.get(key)):
            raise RunError(f"{place}: {key} must be {rule} (got {shorten(record.get(key))}); remove the line")
    for key, is_right in STATED.items():
        if key in record and not is_right(record[key]):
            raise RunError(f"{place}: {key} must be a plausible number (got {shorten(record[key])}); remove the line")
    metrics = record.get("metrics", {})
    if not isinstance(metrics, Mapping) or not all(is_metric(*item) for item in metrics.items()):
        raise RunError(f"{place}: metrics must be names with numbers in [0, 1]; remove the line")
    shares = record.get("shares", {})
    if not isinstance(shares, Mapping) or not all(_is_site(k) and _is_duration(v) for k, v in shares.items()):
        raise RunError(f"{place}: shares must be sites with numbers; remove the line")
    if SECURE_AGGREGATION in record:
        READER.typed(Unmasking, record[SECURE_AGGREGATION], f"{place}: {SECURE_AGGREGATION}")
    return record


def read_records(path: Path) -> list[dict[str, Any]]:
    """Lines of ``rounds.jsonl``, none where there is no file; a last line that is still being written is left out.

    Raises:
        RunError: A line is no record.
    """
    if not path.is_file():
        return []
    lines = READER.content(path).split(b"\n")
    if not _is_whole(lines[-1]):
        lines.pop()
    numbered = [(f"{path}:{number}", line) for number, line in enumerate(lines, 1) if line.strip()]
    return [check_record(place, READER.parse(place, line)) for place, line in numbered]


def _is_whole(line: bytes) -> bool:
    try:
        READER.parse("", line)
    except RunError:
        return False
    return True


def as_lines(records: Iterable[Mapping[str, Any]]) -> str:
    """Records as the text of ``rounds.jsonl``."""
    return "".join(json.dumps(record) + "\n" for record in records)
