"""``study.json``, what a folder of a study says of it: the study file, and every run with what became of it.

DIR/study.json              this record; whoever reports on a study reads it with ``read_record``
DIR/runs/NAME               a run folder as ``simulate`` writes it, or a folder of a baseline, with evaluation.csv
DIR/logs/NAME.log           what the commands of that run printed
DIR/folds/PARTITION/fold-K  folder of sites, of a study with folds
DIR/spoilt/PARTITION        the same with labels spoilt on purpose, SITE/altered-labels/HOW/CASE.nii.gz
DIR/cache                   preprocessed cases, which all runs share
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Final, Literal

from brats_fl.errors import RunError
from brats_fl.files import CASE_TABLE_FILE, write_whole
from brats_fl.reading import Reader
from brats_fl_tools.partition.spoilt_labels import Spoiling
from brats_fl_tools.runs.folder import EVALUATION_FILE
from brats_fl_tools.study.expansion import StudyRun
from brats_fl_tools.study.thresholds import Thresholds

STUDY_FILE: Final = "study.json"
READER: Final = Reader(RunError, "begin the study again in another folder", "not there; give the folder of a study")

State = Literal["waiting", "running", "interrupted", "failed", "finished"]


@dataclass(frozen=True)
class StatedThresholds:
    """The thresholds, as they were before the first run."""

    file: str
    sha256: str
    recorded: str
    """UTC, ISO 8601."""
    asked: Thresholds
    replaced: tuple[str, ...] = ()
    """SHA-256 of files that these took the place of after runs had begun, by ``--force``; empty as it should be."""


@dataclass(frozen=True)
class RunRecord(StudyRun):
    """A run, and what became of it."""

    state: State = "waiting"
    seconds: float = 0.0
    """That its commands took so far."""
    joules: float | None = None
    """That the machine took meanwhile; None where it does not tell."""
    error: str = ""
    """Last line of its log, where it failed."""

    @property
    def table(self) -> Path:
        """Table of its test cases, in the folder of the study."""
        return self.folder / CASE_TABLE_FILE

    @property
    def evaluation(self) -> Path:
        """What was evaluated, in the folder of the study."""
        return self.folder / EVALUATION_FILE


@dataclass(frozen=True)
class StudyRecord:
    """A study, and how far it has come."""

    name: str
    file: str
    """Path of the study file."""
    sha256: str
    """Of the study file."""
    text: str
    """The study file, word for word."""
    started: str
    """UTC, ISO 8601."""
    runs: tuple[RunRecord, ...]
    """In the order in which they are carried out."""
    dropped: tuple[RunRecord, ...] = ()
    """Runs that the study file had once and that still lie there; no part of the study, unless it has them again."""
    thresholds: StatedThresholds | None = None
    fold_rule: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)
    commit: str = ""
    machine: Mapping[str, Any] = field(default_factory=dict)
    spoilt: Mapping[str, Mapping[str, Spoiling]] = field(default_factory=dict)
    """Partition -> hospital -> how the labels that it trains on were spoilt on purpose."""

    def __post_init__(self) -> None:
        """Check what becomes part of a path.

        Raises:
            ValueError: The name of a run is none of a folder, or two are the same.
        """
        names = [run.name for run in self.all_there]
        for name in names:
            if Path(name).name != name or name.startswith("."):
                raise ValueError(f"a run must have the name of a folder (got {name!r})")
        if len(set(names)) < len(names):
            raise ValueError("runs: two have one name")

    @property
    def all_there(self) -> tuple[RunRecord, ...]:
        """Runs of the study and those that it had once."""
        return (*self.runs, *self.dropped)

    def with_run(self, run: RunRecord) -> StudyRecord:
        """The same record with another word on one run."""
        return replace(self, runs=tuple(run if one.name == run.name else one for one in self.runs))


def as_record(run: StudyRun, **known: Any) -> RunRecord:
    """A run with what is known of it."""
    return RunRecord(**{one.name: getattr(run, one.name) for one in fields(StudyRun)}, **known)


def write_record(out: Path, record: StudyRecord) -> None:
    """Write ``study.json``; it appears whole or not at all."""
    content = asdict(record)
    for written in (*content["runs"], *content["dropped"]):
        written["sites_dir"] = str(written["sites_dir"])
    write_whole(out / STUDY_FILE, json.dumps(content, indent=1) + "\n")


def read_record(out: Path) -> StudyRecord:
    """The record in a folder of a study.

    Raises:
        RunError: There is none, or it is damaged.
    """
    path = out / STUDY_FILE
    return READER.typed(StudyRecord, READER.json_object(path), path)
