"""A hospital's privacy budget, by its own word, and the record of what was spent of it.

    privacy_budget.json   {"epsilon": 8.0, "delta": 0.001}: the most that may be computed on any one patient's scans
    privacy_spent.jsonl   a line that says since when, then one for each round that was begun and for each release of
                          statistics; lines are only added

Both lie in ``local`` of the hospital's kit, in simulator and POC in ``$BRATS_FL_SITES/SITE``; no job holds any of them.
Spending is written before anything is computed: a round that crashes has spent what it reserved. What was spent counts
by patient, over all jobs: a line names the patients by digests of their names in the data list, and a new round must
fit for each of its patients. Where a file is missing or cannot be read, nothing that would draw on it is done. Where a
hospital has a budget, what sends anything unaccounted of its scans is refused, unless the budget allows it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Final

from brats_fl.cases.datalists import SITES_VARIABLE
from brats_fl.errors import PrivacyBudgetError
from brats_fl.files import append_line, is_there, locked
from brats_fl.privacy.accounting import NoisedSteps, epsilon_of
from brats_fl.provenance import hash_text
from brats_fl.reading import Reader

BUDGET_FILE: Final = "privacy_budget.json"
SPENT_FILE: Final = "privacy_spent.jsonl"
MEND: Final = "nothing that draws on the hospital's privacy budget is done before"

BUDGET_READER: Final = Reader(PrivacyBudgetError, f"mend it: {MEND}")
SPENT_READER: Final = Reader(
    PrivacyBudgetError,
    f"restore it from a backup: {MEND}. A last line that a crash cut off may be removed, its round was never trained",
)


@dataclass(frozen=True)
class Budget:
    """The most that may be computed on any one patient's scans."""

    epsilon: float
    delta: float
    allow_unaccounted: bool = False
    """Whether jobs may run that send what no epsilon is known of, such as training without noise."""

    def __post_init__(self) -> None:
        """Check the numbers.

        Raises:
            ValueError: One is out of its bounds.
        """
        if not 0 < self.epsilon <= 1e6:
            raise ValueError(f"epsilon must be above 0 and at most 1e6 (got {self.epsilon})")
        if not 0 < self.delta <= 0.1:
            raise ValueError(f"delta must be above 0 and at most 0.1 (got {self.delta})")


@dataclass(frozen=True)
class Begun:
    """The first line of the record: a file without it was emptied, and does not say that nothing was spent."""

    begun: str
    """UTC, ISO 8601."""


@dataclass(frozen=True)
class Spending:
    """A line of the record: noised steps of a round, or a release that costs an epsilon of its own."""

    study: str
    round: int
    patients: tuple[str, ...]
    """Digests of the names of all that it may have been computed on."""
    noise: NoisedSteps | None = None
    epsilon: float = 0.0
    """Of a release without delta, such as noised statistics; 0 of a round."""
    time: str = ""
    """UTC, ISO 8601."""

    def __post_init__(self) -> None:
        """Check that it spends something.

        Raises:
            ValueError: It does not say what.
        """
        if (self.noise is None) == (self.epsilon <= 0):
            raise ValueError("a line has noise, or an epsilon above 0")


@dataclass(frozen=True)
class Spent:
    """What a spending comes to with all before it, for the patient who has spent most."""

    total: float
    """Epsilon over all jobs, at the budget's delta; stays at the hospital."""
    of_study: float
    """Epsilon of the study alone, at a delta of the job's."""


def find_budget(site: str, kit: Path, environ: Mapping[str, str] = os.environ) -> Path:
    """Where a hospital's budget is, or would be: its kit, else where the simulator and POC have its data list."""
    places = [kit / "local" / BUDGET_FILE]
    if environ.get(SITES_VARIABLE):
        places.append(Path(environ[SITES_VARIABLE]) / site / BUDGET_FILE)
    return next((place for place in places if is_there(place)), places[-1])


def read_budget(path: Path) -> Budget:
    """A hospital's budget.

    Raises:
        PrivacyBudgetError: There is none, or it cannot be used.
    """
    if not is_there(path):
        raise PrivacyBudgetError(
            f"{path}: no such file; a private job runs where the hospital has said how much may be spent: "
            "write it with `brats-fl privacy budget`"
        )
    return BUDGET_READER.typed(Budget, BUDGET_READER.json_object(path), path)


def refuse_unaccounted(path: Path, what: str) -> None:
    """Raise ``PrivacyBudgetError`` where a hospital has a budget that does not allow what no epsilon is known of.

    Args:
        path: Where the budget is, or would be.
        what: Is to be sent, for the message.
    """
    if is_there(path) and not read_budget(path).allow_unaccounted:
        raise PrivacyBudgetError(
            f"{path}: {what} would leave without an account of what it tells of a patient; run a private job, or set "
            "allow_unaccounted to true: the epsilon of this hospital then no longer covers all that leaves"
        )


def begin_record(path: Path) -> None:
    """Write the first line of a record in which nothing is spent yet."""
    append_line(path, json.dumps(asdict(Begun(_now()))), is_synced=True)


def read_spent(path: Path) -> list[Spending]:
    """All that was spent, oldest first.

    Raises:
        PrivacyBudgetError: The record is missing or lacks its first line, or a line is none.
    """
    lines = enumerate(SPENT_READER.content(path).split(b"\n"), 1)
    content = [(f"{path}:{number}", line) for number, line in lines if line.strip()]
    if not content:
        SPENT_READER.refuse(path, "is empty, and lacks the first line, which says since when it is kept")
    (first, begun), *others = content
    SPENT_READER.typed(Begun, SPENT_READER.parse(first, begun), first)
    return [SPENT_READER.typed(Spending, SPENT_READER.parse(place, line), place) for place, line in others]


def reserve(budget_file: Path, new: Spending, delta: float) -> Spent:
    """Spend, before anything is computed, and what it comes to.

    Args:
        budget_file: The hospital's budget; the record lies beside it.
        new: What is about to be done; its time is set here.
        delta: At which the epsilon of the study is told.

    Raises:
        PrivacyBudgetError: It would pass the budget of a patient, or budget or record cannot be used; nothing is spent.
    """
    path = budget_file.with_name(SPENT_FILE)
    try:
        with locked(path.with_name(f".{SPENT_FILE}.lock")):
            budget, before = read_budget(budget_file), read_spent(path)
            spent = weigh(before, new, budget.delta, delta)
            if spent.total > budget.epsilon:
                raise PrivacyBudgetError(
                    f"{budget_file}: with {'round ' + str(new.round) if new.noise else 'these statistics'} a patient "
                    f"would have spent epsilon {spent.total:.3f} at delta {budget.delta:g}, and {budget.epsilon:g} is "
                    "the most that this hospital allows; `brats-fl privacy budget` shows what was spent"
                )
            _append(path, replace(new, time=_now()))
    except OSError as error:
        raise PrivacyBudgetError(
            f"{path}: what is spent must be kept, one process at a time, and cannot be ({error}); {MEND}"
        ) from error
    return spent


def weigh(before: Sequence[Spending], new: Spending, budget_delta: float, study_delta: float) -> Spent:
    """What a spending comes to with all before it; of patients with the same history one stands for all."""
    all_of = [[*history, new] for history in histories(before, new.patients)]
    of_study = [[one for one in parts if one.study == new.study] for parts in all_of]
    return Spent(
        max((total_epsilon(parts, budget_delta) for parts in all_of), default=0.0),
        max((total_epsilon(parts, study_delta) for parts in of_study), default=0.0),
    )


def most_spent(spent: Sequence[Spending], delta: float) -> float:
    """Epsilon of the patient who has spent most; 0 where nothing was spent."""
    patients = {who for one in spent for who in one.patients}
    return max((total_epsilon(history, delta) for history in histories(spent, patients)), default=0.0)


def histories(spent: Sequence[Spending], patients: Iterable[str]) -> list[list[Spending]]:
    """What was spent of each of the patients, those who share all of it once: accounting is dear."""
    numbers = {tuple(n for n, one in enumerate(spent) if who in one.patients) for who in set(patients)}
    return [[spent[n] for n in history] for history in numbers]


def total_epsilon(parts: Iterable[Spending], delta: float) -> float:
    """Epsilon of noised steps together, and of what has an epsilon of its own on top (basic composition)."""
    parts = list(parts)
    return epsilon_of([one.noise for one in parts if one.noise], delta) + sum(one.epsilon for one in parts)


def digests_of(patients: Iterable[str]) -> tuple[str, ...]:
    """Patients as the record names them, sorted, each once."""
    return tuple(sorted({hash_text(patient)[:16] for patient in patients}))


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def _append(path: Path, spending: Spending) -> None:
    """Add a line that is on the disk when this returns."""
    append_line(path, json.dumps(asdict(spending)), is_synced=True)
