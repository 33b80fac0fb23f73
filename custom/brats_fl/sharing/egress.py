"""What may leave a hospital, by its own word, and a log of what left: ``local/egress.json`` and ``local/egress.jsonl``.

The contract is data of the hospital's, in its kit; no job holds any of it. Where there is no contract all that a job
sends goes out as it did, and is logged. A contract that cannot be read lets nothing out.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Final, Literal

from brats_fl.errors import EgressError
from brats_fl.files import append_line, is_there
from brats_fl.reading import Reader

CONTRACT_FILE: Final = "egress.json"
LOG_FILE: Final = "egress.jsonl"
"""Both in ``local`` of a hospital's kit."""

FILTER: Final = "egress_contract"
"""Id of the component that holds what leaves to the contract; ``local/privacy.json`` of a hospital's kit names it."""

CONTRACT_READER: Final = Reader(EgressError, "nothing leaves this site until it is mended")
LOG_READER: Final = Reader(EgressError, "move the log away, and the count of this month begins anew")

Kind = Literal["update", "masking", "metrics", "model", "scores", "statistics", "fingerprints"]
Metrics = Literal["exact", "rounded", "no"]

KINDS: Final = MappingProxyType[str, Kind](
    {
        "train": "update",
        "secure_keys": "masking",
        "secure_shares": "masking",
        "secure_confirm": "masking",
        "secure_reveal": "masking",
        "validate": "metrics",
        "local_model": "model",
        "score_model": "scores",
        "fed_stats_pre_run": "statistics",
        "fed_stats": "statistics",
        "fingerprints": "fingerprints",
        "shared_scans": "fingerprints",  # the site's word that it was told
    }
)
"""Task -> the kind of what is sent for it; what another task sends is of no kind that a contract can allow."""

OF_NETWORKS: Final = ("update", "model")
"""Kinds whose arrays have the names of a network's parameters."""

DECIMALS: Final = 2
"""Of a metric that is rounded: a Dice of .73 is told, .7314 is not."""


@dataclass(frozen=True)
class Contract:
    """What a hospital lets out; of a key that is left out the default holds, which lets everything pass."""

    kinds: tuple[Kind, ...] = ("update", "masking", "metrics", "model", "scores", "statistics", "fingerprints")
    tensor_names: str = ".*"
    """Regular expression that the name of every array of an update or model must match as a whole."""
    most_bytes_a_round: int | None = None
    most_rounds_a_month: int | None = None
    """Rounds of training, of all jobs together, in a calendar month, UTC."""
    fewest_cases: int = 1
    """Training cases below which no update and no metrics leave."""
    metrics: Metrics = "exact"
    """Whether metrics and the loss go as they are, rounded to two decimals, or not at all."""
    jobs: tuple[str, ...] | None = None
    """Names of jobs; null for all that run here."""

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            ValueError: A bound is below what makes sense, or the pattern is none.
        """
        for name in ("most_bytes_a_round", "most_rounds_a_month", "fewest_cases"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise ValueError(f"{name} must be 1 or more (got {value})")
        try:
            re.compile(self.tensor_names)
        except re.error as error:
            raise ValueError(f"tensor_names must be a regular expression ({error})") from None


@dataclass(frozen=True)
class Sent:
    """What a site sent, or would have: a line of the log."""

    time: str
    """UTC, ISO 8601."""
    job: str
    """FLARE's id."""
    name: str
    """Of the job."""
    round: int
    task: str
    kind: str
    """One of the contract's, ``code`` for a failure, ``other`` for what is none."""
    payloads: tuple[str, ...] = ()
    arrays: int = 0
    bytes: int = 0
    """Of all arrays, texts and numbers, with their names; without FLARE's envelope."""
    metrics: tuple[str, ...] = ()
    cases: int | None = None
    epsilon: float | None = None
    """Of what has noise in it, by patient: of a private job that of all its rounds so far."""
    status: str = "sent"
    """``sent``, or ``EGRESS_REFUSED``."""
    why: str = ""
    """Why it was refused; this never leaves the site."""


def read_contract(path: Path) -> Contract | None:
    """The hospital's contract; None where it has none.

    Raises:
        EgressError: It cannot be read, has an unknown key, or a value that is none.
    """
    if not is_there(path):
        return None
    return CONTRACT_READER.typed(Contract, CONTRACT_READER.json_object(path), path)


def why_refused(contract: Contract, sent: Sent, names: Sequence[str], log: Sequence[Sent]) -> str:
    """Why something may not leave; empty where it may.

    Args:
        contract: The hospital's.
        sent: What is to leave.
        names: Of all arrays in it.
        log: What has left before.
    """
    if contract.jobs is not None and sent.name not in contract.jobs:
        return f"jobs: {sent.name!r} is not among {', '.join(contract.jobs) or 'none'}"
    if sent.kind not in contract.kinds:
        return f"kinds: {sent.kind!r} is not among {', '.join(contract.kinds) or 'none'}"
    if sent.kind == "scores" and contract.metrics != "exact":
        return f"metrics: scores go as they are or not at all, and may go {contract.metrics!r} only"
    if sent.kind in OF_NETWORKS:
        pattern = re.compile(contract.tensor_names)
        if odd := next((name for name in names if not pattern.fullmatch(name)), None):
            return f"tensor_names: {odd!r} does not match {contract.tensor_names!r}"
    if sent.cases is None and sent.kind in ("update", "metrics") and contract.fewest_cases > 1:
        return "fewest_cases: the number of cases is not told"
    if sent.cases is not None and sent.cases < contract.fewest_cases:
        return f"fewest_cases: {sent.cases} cases, at least {contract.fewest_cases} are asked for"
    return why_too_much(contract, sent, [one for one in log if one.status == "sent"])


def why_too_much(contract: Contract, sent: Sent, before: Sequence[Sent]) -> str:
    """Why something is too much together with what left before; empty where it is not."""
    of_round = sum(one.bytes for one in before if (one.job, one.round) == (sent.job, sent.round))
    if contract.most_bytes_a_round is not None and of_round + sent.bytes > contract.most_bytes_a_round:
        return f"most_bytes_a_round: {of_round + sent.bytes:,} bytes, at most {contract.most_bytes_a_round:,}"
    month = sent.time[:7]
    rounds = {(one.job, one.round) for one in before if one.kind == "update" and one.time[:7] == month}
    if sent.kind == "update" and contract.most_rounds_a_month is not None:
        rounds.add((sent.job, sent.round))
        if len(rounds) > contract.most_rounds_a_month:
            return f"most_rounds_a_month: {len(rounds)} in {month}, at most {contract.most_rounds_a_month}"
    return ""


def read_log(path: Path) -> list[Sent]:
    """What left so far; nothing where there is no log.

    Raises:
        EgressError: A line is none; with its number.
    """
    if not path.is_file():
        return []
    numbered = enumerate(LOG_READER.content(path).split(b"\n"), 1)
    return [
        LOG_READER.typed(Sent, LOG_READER.parse(f"{path}:{number}", line), f"{path}:{number}")
        for number, line in numbered
        if line.strip()
    ]


def write_log(path: Path, sent: Sent) -> None:
    """Add a line.

    Raises:
        EgressError: ``read_log`` would refuse it, and the log with it, from then on; nothing is added.
    """
    line = json.dumps(asdict(sent))
    LOG_READER.typed(Sent, LOG_READER.parse(f"{path}, a new line", line), f"{path}, a new line")
    append_line(path, line)
