"""A run folder as the report reads it: what was run, one record a round and site, one result a case."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from brats_fl.errors import RunError
from brats_fl.files import CASE_TABLE_FILE
from brats_fl.numbers import is_finite
from brats_fl.reading import Reader
from brats_fl.round_records import MEAN_PHASE, SECURE_AGGREGATION, Unmasking, read_records
from brats_fl.typed import typed
from brats_fl_tools.pages.formats import natural_key
from brats_fl_tools.report.case_results import CaseResult, read_evaluation
from brats_fl_tools.report.run_facts import EVALUATION_FACTS, RUN_FACTS, read_facts
from brats_fl_tools.runs.folder import EVALUATION_FILE, RUN_FILE, invited_sites, records_files
from brats_fl_tools.withdrawn import Withdrawal, read_withdrawals

TEST_SPLIT = "testing"
VALIDATION_SPLIT = "validation"
ORDER = MappingProxyType({"train": 0, "final": 1})
"""Phases of the rounds; lines of others are the server's own."""

SIMULATE = "`brats-fl simulate NAME --sites SITES --out RUN` makes it"
READER = Reader(RunError, "remove it or write it again")

_EMPTY: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True)
class RoundRecord:
    """What one site did in one round."""

    phase: str
    """``train``, or ``final`` for the last evaluation of the final model."""
    round: int
    site: str
    status: str
    """``ok``, ``missing``, or the code of an error."""
    loss: float | None = None
    metrics: Mapping[str, float] = field(default_factory=lambda: _EMPTY)
    """Of the global model as received at the start of the round, on the site's validation cases."""
    train_seconds: float | None = None
    evaluate_seconds: float | None = None
    seconds: float | None = None
    cpu_seconds: float | None = None
    """Of its trainer's process, all threads together."""
    bytes_down: int = 0
    bytes_up: int = 0
    epsilon: float | None = None
    """Of each of its patients after this round, where it trained with noise."""
    delta: float | None = None

    @property
    def is_ok(self) -> bool:
        """Whether the site answered with what it was asked for."""
        return self.status == "ok"


@dataclass(frozen=True)
class RoundMean:
    """What became of the updates of one round, as the server states it."""

    round: int
    status: str
    """``ok``, or the code of a round that left the model as it was."""
    shares: Mapping[str, float] = field(default_factory=lambda: _EMPTY)
    """Site -> share of its update in the mean."""
    unmasking: Unmasking | None = None
    """Of a round whose updates came masked."""


@dataclass(frozen=True)
class RunFolder:
    """All that the report needs of a run folder."""

    path: Path
    info: Mapping[str, Any]
    records: tuple[RoundRecord, ...]
    results: tuple[CaseResult, ...]
    evaluation: Mapping[str, Any] = field(default_factory=lambda: _EMPTY)
    invited: tuple[str, ...] | None = None
    """Sites of the job's own list; None where no file of the run has it."""
    means: tuple[RoundMean, ...] = ()
    """Ascending; empty for a run of a version that did not write them."""
    withdrawals: tuple[Withdrawal, ...] = ()
    """Who withdrew from the run since."""

    @property
    def name(self) -> str:
        """Name of the folder, to tell runs apart."""
        return self.path.resolve().name

    @property
    def sites(self) -> tuple[str, ...]:
        """Every site of the run, those without a record or a case included, in natural order."""
        names = {*self.counts, *(self.invited or ()), *self.left_out}
        names |= {record.site for record in self.records} | {result.site for result in self.results}
        return tuple(sorted((str(name) for name in names), key=natural_key))

    @property
    def counts(self) -> Mapping[str, Mapping[str, int]]:
        """Site -> cases per split, as ``run.json`` has them; empty where the hospitals kept that to themselves."""
        listed = self.info.get("sites")
        return listed if isinstance(listed, Mapping) else _EMPTY

    @property
    def left_out(self) -> tuple[str, ...]:
        """Sites that were there and were not to train."""
        listed = self.info.get("left_out")
        return tuple(str(site) for site in listed) if isinstance(listed, list) else ()

    @property
    def is_evaluation(self) -> bool:
        """Whether it holds what ``brats-fl evaluate`` wrote and nothing of a training."""
        return not self.info

    @property
    def split(self) -> str:
        """The split whose figures are the result: of a run testing, of a mere evaluation what was evaluated."""
        return str(self.evaluation.get("split", TEST_SPLIT)) if self.is_evaluation else TEST_SPLIT

    @property
    def case_noun(self) -> str:
        """What a case of that split is called in a sentence."""
        return "test case" if self.split == TEST_SPLIT else "case"

    @property
    def is_finished(self) -> bool:
        """Whether the run went on to its end; of a run that does not say, it did."""
        return self.info.get("state", "finished") == "finished"

    @property
    def is_rescored(self) -> bool:
        """Whether the masks were given, so that nothing is known of what made them."""
        return bool(self.evaluation.get("masks_sha256"))

    def scored(self, split: str) -> tuple[CaseResult, ...]:
        """Results of a split that have a reference."""
        return tuple(result for result in self.results if result.split == split and result.is_scored)


def read_run(path: Path, *, with_rounds: bool = True, with_cases: bool = True) -> RunFolder:
    """Run folder, checked; or a folder of an evaluation alone, of which there is no run to tell.

    Args:
        path: The run folder.
        with_rounds: Whether there must be a round; a run that is only compared with, or has just begun, needs none.
        with_cases: Whether ``evaluation.csv`` is read; a real federation's hospitals keep theirs.

    Raises:
        RunError: A file is missing or cannot be used; the text names it and the command that makes it.
    """
    if not path.is_dir():
        raise RunError(f"{path}: no such run folder; `brats-fl simulate NAME --sites SITES --out RUN` makes one")
    if not (path / RUN_FILE).exists() and (path / EVALUATION_FILE).is_file():
        evaluation = read_facts(READER, path / EVALUATION_FILE, EVALUATION_FACTS)
        return RunFolder(path, _EMPTY, (), read_evaluation(path / CASE_TABLE_FILE), evaluation, invited=())
    of_run = Reader(RunError, SIMULATE)
    info = read_facts(of_run, path / RUN_FILE, RUN_FACTS)
    of_run.at(str, info, ["job"], path / RUN_FILE)  # without it nothing tells that there was a run
    rounds = records_files(path, info.get("state"))
    there = [path for path in rounds if path.is_file()]
    told = path / EVALUATION_FILE
    return RunFolder(
        path=path,
        info=info,
        records=read_rounds(*rounds)
        if with_rounds
        else rounds_of(line for path in there for line in read_records(path)),
        results=read_evaluation(path / CASE_TABLE_FILE) if with_cases else (),
        evaluation=read_facts(READER, told, EVALUATION_FACTS) if told.exists() else _EMPTY,
        invited=invited_sites(path, info),
        means=read_means(*there),
        withdrawals=read_withdrawals(path),
    )


def read_rounds(*paths: Path) -> tuple[RoundRecord, ...]:
    """Records of files like ``rounds.jsonl`` by phase, round and site; of two with the same, the later line counts.

    Raises:
        RunError: The file is missing or empty, or a line is no record.
    """
    for path in paths:
        if not path.is_file():
            raise RunError(f"{path}: no such file; {SIMULATE}")
    records = rounds_of(line for path in paths for line in read_records(path))
    if not records:
        raise RunError(f"{paths[-1]}: holds no round; {SIMULATE}")
    return records


def rounds_of(lines: Iterable[Mapping[str, Any]]) -> tuple[RoundRecord, ...]:
    """Records of checked lines by phase, round and site; of two with the same, the later counts."""
    found = (_as_record(content) for content in lines if content["phase"] in ORDER)
    records = {(record.phase, record.round, record.site): record for record in found}
    return tuple(
        sorted(records.values(), key=lambda record: (ORDER[record.phase], record.round, natural_key(record.site)))
    )


def read_means(*paths: Path) -> tuple[RoundMean, ...]:
    """The server's own lines of the rounds; of two of the same round, the later counts.

    Raises:
        RunError: A line is no record.
    """
    return means_of(line for path in paths for line in read_records(path))


def means_of(lines: Iterable[Mapping[str, Any]]) -> tuple[RoundMean, ...]:
    """The server's own of checked lines; of two of the same round, the later counts."""
    own = [line for line in lines if line["phase"] == MEAN_PHASE]
    means = {line["round"]: _as_mean(line) for line in own}
    return tuple(means[number] for number in sorted(means))


def _as_mean(line: Mapping[str, Any]) -> RoundMean:
    masked = line.get(SECURE_AGGREGATION)
    unmasking = None if masked is None else typed(Unmasking, masked)
    return RoundMean(line["round"], line["status"], line.get("shares", {}), unmasking)


def _as_record(content: Mapping[str, Any]) -> RoundRecord:
    return RoundRecord(
        phase=content["phase"],
        round=content["round"],
        site=content["site"],
        status=content["status"],
        loss=finite(content.get("loss")),
        metrics={name: float(value) for name, value in content.get("metrics", {}).items()},
        train_seconds=finite(content.get("train_seconds")),
        evaluate_seconds=finite(content.get("evaluate_seconds")),
        seconds=finite(content.get("seconds")),
        cpu_seconds=finite(content.get("cpu_seconds")),
        bytes_down=content.get("bytes_down", 0),
        bytes_up=content.get("bytes_up", 0),
        epsilon=finite(content.get("epsilon")),
        delta=finite(content.get("delta")),
    )


def finite(value: Any) -> float | None:
    """A finite number as it is, anything else as ``None``."""
    return float(value) if is_finite(value) else None
