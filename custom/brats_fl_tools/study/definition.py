"""A study as its author wrote it: ``STUDY.toml``, typed, every rule of it checked before anything is looked for."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from brats_fl.bundle import is_plain
from brats_fl.errors import RunError
from brats_fl.reading import Reader
from brats_fl.typed import shorten
from brats_fl_tools.baseline.parts import Kind
from brats_fl_tools.partition.spoilt_labels import Spoiling

READER: Final = Reader(RunError, "mend the study file; docs/study.md has a table of its keys", "no such study file")

SITES: Final = "sites"
"""Name of the one partition of a study that has ``sites`` in place of ``partitions``."""

SAID_ELSEWHERE: Final = {
    "profile": "profile",
    "num_rounds": "rounds",
    "rounds": "rounds",
    "start_round": "rounds",
    "seed": "seeds",
}
"""Variable of a job that a study does not set -> the key that says it."""

# What a run is called becomes a folder, and FLARE splits the command lines of its processes at spaces.
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,39}")


@dataclass(frozen=True)
class StudyJob:
    """A federated job of a study."""

    job: Path | None = None
    """Its name, or its folder; None where it has the name that the study calls it by."""
    set: Mapping[str, Any] = field(default_factory=dict)
    """Its own settings, beside those of the study, which they take the place of."""


@dataclass(frozen=True)
class Study:
    """What is to be run."""

    name: str
    profile: str
    rounds: int
    jobs: Mapping[str, StudyJob]
    """What the study calls them -> the jobs."""
    sites: Path | None = None
    """Folder with ``SITE/datalist.json``; either this or ``partitions``."""
    partitions: Mapping[str, Path] = field(default_factory=dict)
    """Name -> such a folder, of a study on several."""
    set: Mapping[str, Any] = field(default_factory=dict)
    """Settings of all runs."""
    baselines: tuple[Kind, ...] = ()
    seeds: tuple[int, ...] = (0,)
    folds: int | None = None
    """Every run is repeated on as many folds of each hospital's cases; None takes the lists as they are."""
    thresholds: Path | None = None
    """File that says what a model must reach."""
    spoilt: Mapping[str, Mapping[str, Spoiling]] = field(default_factory=dict)
    """Partition -> hospital -> how the labels that it trains on are spoilt on purpose."""

    def __post_init__(self) -> None:
        """Check what types do not say.

        Raises:
            ValueError: Names the key, the rule and the value.
        """
        if (self.sites is None) == (not self.partitions):
            raise ValueError("sites or partitions must be given, and not both")
        if not self.name.strip():
            raise ValueError("name must not be empty")
        if self.rounds < 1:
            raise ValueError(f"rounds must be 1 or more (got {self.rounds})")
        if self.folds is not None and self.folds < 2:
            raise ValueError(f"folds must be 2 or more (got {self.folds}); leave it out to take the lists as they are")
        if not self.jobs:
            raise ValueError("jobs must name at least one job, [jobs.NAME]")
        _check_names("profile", (self.profile,))
        _check_names("jobs", tuple(self.jobs))
        _check_names("partitions", tuple(self.partitions))
        _check_list("baselines", self.baselines, may_be_empty=True)
        _check_list("seeds", self.seeds)
        if low := [seed for seed in self.seeds if seed < 0]:
            raise ValueError(f"seeds must be 0 or more (got {low[0]})")
        _check_spoilt(self)
        _check_settings("set", self.set)
        for name, job in self.jobs.items():
            _check_settings(f"jobs.{name}.set", job.set)

    @property
    def folders(self) -> dict[str, Path]:
        """Partition -> folder of its sites."""
        return dict(self.partitions) if self.sites is None else {SITES: self.sites}

    def values(self, job: str) -> dict[str, Any]:
        """What is set of a job, by what the study calls it."""
        return {**self.set, **self.jobs[job].set}


def _check_names(key: str, names: Sequence[str]) -> None:
    seen: dict[str, str] = {}
    for name in names:
        if not _NAME.fullmatch(name):
            raise ValueError(
                f"{key}: a name must be 1 to 40 letters a-z, digits, '.', '-' or '_' (got {shorten(name)})"
            )
        if twin := seen.get(name.lower()):
            raise ValueError(f"{key}: {name} and {twin} differ in capitals only; give each a name of its own")
        seen[name.lower()] = name


def _check_list(key: str, values: Sequence[object], may_be_empty: bool = False) -> None:
    if not values and not may_be_empty:
        raise ValueError(f"{key} must not be empty; leave it out for the default")
    if len(set(values)) < len(values):
        raise ValueError(f"{key} must have each entry once (got {shorten(list(values))})")


def _check_spoilt(study: Study) -> None:
    for partition, hospitals in study.spoilt.items():
        if partition not in study.folders:
            there = ", ".join(study.folders)
            raise ValueError(f"spoilt must name partitions of the study, {there} (got {shorten(partition)})")
        if not hospitals:
            raise ValueError(f"spoilt.{partition} must name a hospital; leave it out to spoil nothing")


def _check_settings(key: str, values: Mapping[str, Any]) -> None:
    for name, value in values.items():
        if name in SAID_ELSEWHERE:
            raise ValueError(f"{key}: {name} is not set here but said once, as {SAID_ELSEWHERE[name]}")
        if not is_plain(value) and not isinstance(value, str):
            place = shorten(f"{key}.{name}")[1:-1]
            raise ValueError(f"{place} must be a number, true or false, text or a list (got {shorten(value)})")


def read_study(path: Path) -> Study:
    """The study of a file, its paths absolute: they are relative to the file's folder.

    Raises:
        RunError: The file cannot be read, or a key is unknown, missing, of the wrong type or against its rule.
    """
    return place_study(READER.typed(Study, READER.toml(path), path), path.resolve().parent)


def place_study(study: Study, folder: Path) -> Study:
    """The same study with what it names by path made absolute."""

    def placed(path: Path | None) -> Path | None:
        return None if path is None else (folder / path).resolve()

    partitions = {name: (folder / path).resolve() for name, path in study.partitions.items()}
    return replace(study, sites=placed(study.sites), partitions=partitions, thresholds=placed(study.thresholds))
