"""What a study consists of: its runs, one by one, in the order in which they are carried out."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from brats_fl.cases.datalists import DATALIST_FILE
from brats_fl.errors import BratsFLError, DataListError, RunError
from brats_fl.provenance import hash_text
from brats_fl_tools.baseline.parts import POOLED, Kind
from brats_fl_tools.jobs.assembly import JobOptions, configure
from brats_fl_tools.jobs.participants import is_default
from brats_fl_tools.jobs.source import JobSource, read_source
from brats_fl_tools.partition.manifest import hash_list
from brats_fl_tools.partition.spoilt_labels import Spoiling
from brats_fl_tools.repository import JOBS
from brats_fl_tools.runs.workload import workload_of
from brats_fl_tools.study.definition import Study
from brats_fl_tools.study.folds import Lists, fold_lists, read_lists

FEDERATED: Final = "federated"
RunKind = Literal["federated", "local", "central", "leave-one-out"]
PLAIN: Final = "fedavg"
"""Algorithm of the job whose recipe the baselines of a bundle take, where the study has such a job."""

RUNS_FOLDER, FOLDS_FOLDER, SPOILT_FOLDER, LOGS_FOLDER = "runs", "folds", "spoilt", "logs"


@dataclass(frozen=True)
class StudyRun:
    """A run of a study: a federated one, or a baseline, which is several."""

    name: str
    kind: RunKind
    label: str
    """What the study calls the job whose recipe it is."""
    job: str
    """What finds that job: its name, else its folder."""
    bundle: str
    profile: str
    rounds: int
    seed: int
    partition: str
    fold: int | None
    """From 1; None where the lists are taken as they are."""
    sites_dir: Path
    """Folder with ``SITE/datalist.json`` that it trains and is tested on."""
    hospitals: tuple[str, ...]
    """Those that train."""
    values: Mapping[str, Any]
    """Settings, the seed among them."""
    steps: int
    """Training steps of all its hospitals and parts."""
    recipe_sha256: str
    """Of all that decides what comes out; a run with another recipe is not the same run."""

    @property
    def folder(self) -> Path:
        """Where it is, in the folder of the study."""
        return Path(RUNS_FOLDER, self.name)

    @property
    def log(self) -> Path:
        """What its commands printed, in the folder of the study."""
        return Path(LOGS_FOLDER, f"{self.name}.log")

    @property
    def parts(self) -> tuple[Path, ...]:
        """Its run folders, in the folder of the study: one of a federated run, of a baseline one for each part."""
        if self.kind == FEDERATED:
            return (self.folder,)
        if self.kind == "central":
            return (self.folder / POOLED,)
        prefix = "without-" if self.kind == "leave-one-out" else ""
        return tuple(self.folder / f"{prefix}{hospital}" for hospital in self.hospitals)


@dataclass(frozen=True)
class Cases:
    """A repetition of the study's runs on other cases: a partition, or a fold of one."""

    partition: str
    fold: int | None
    sites: Path
    lists: Lists
    """With the labels as they are; what is spoilt is spoilt when the lists are written."""
    spoilt: Mapping[str, Spoiling]
    """Hospital -> how the labels that it trains on are spoilt."""

    @property
    def is_made(self) -> bool:
        """Whether its lists are the study's own, to be written, and not those of the partition."""
        return self.fold is not None or bool(self.spoilt)

    @property
    def prefix(self) -> str:
        """What the names of its runs begin with."""
        return self.partition if self.fold is None else f"{self.partition}-fold{self.fold}"


def cases_of(study: Study, out: Path) -> list[Cases]:
    """The partitions of a study, each as often as there are folds; nothing is written, see ``write_cases``.

    Raises:
        DataListError: A folder has no list, a list is wrong, a hospital has too few patients for the folds, or one
            whose labels are to be spoilt trains on nothing.
    """
    found = []
    for partition, sites in study.folders.items():
        lists, spoilt = read_lists(sites), study.spoilt.get(partition, {})
        for hospital in spoilt:
            _refuse_idle(hospital, partition, sites, lists)
        made = out / (SPOILT_FOLDER if spoilt else FOLDS_FOLDER) / partition
        if study.folds is None:
            found.append(Cases(partition, None, made if spoilt else sites, lists, spoilt))
            continue
        for number, dealt in enumerate(fold_lists(sites, lists, study.folds), 1):
            found.append(Cases(partition, number, made / f"fold-{number}", dealt, spoilt))
    return found


def _refuse_idle(hospital: str, partition: str, sites: Path, lists: Lists) -> None:
    """Raise ``DataListError`` where a hospital has no label that could be spoilt."""
    if hospital not in lists or not lists[hospital].training:
        able = ", ".join(site for site, found in lists.items() if found.training)
        raise DataListError(
            f"spoilt.{partition}: {hospital} has no training case in {sites}; name one that has ({able})"
        )


def expand(study: Study, path: Path, out: Path) -> list[StudyRun]:
    """The runs of a study, pairs that are compared close to each other, all of a seed and fold before the next.

    Args:
        study: As ``read_study`` gives it.
        path: Its file, for messages, and the folder that jobs of one's own are looked for in.
        out: Folder of the study.

    Raises:
        RunError: A job or a setting is wrong, or two runs would have one name; names the file and the key.
        DataListError: As ``cases_of``.
    """
    sources = {label: find_job(study, label, path) for label in study.jobs}
    recipes = recipes_of_baselines(study, sources)
    runs = [
        _make_run(study, path, sources[label], label, kind, cases, seed)
        for seed, cases in _repetitions(study, out)
        for kind, label in _order(study, sources, recipes)
    ]
    names = [run.name.lower() for run in runs]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise RunError(f"{path}: two runs would be called {twice}; give the job, or the partition, another name")
    return runs


def _repetitions(study: Study, out: Path) -> Iterator[tuple[int, Cases]]:
    """The first fold of all partitions comes before the second, and all of a seed before the next."""
    cases = sorted(cases_of(study, out), key=lambda one: one.fold or 0)
    return ((seed, one) for seed in study.seeds for one in cases)


def find_job(study: Study, label: str, path: Path) -> JobSource:
    """A job of the study, by its name, or by its folder seen from the study file.

    Raises:
        RunError: There is none, or it trains nothing.
    """
    name = study.jobs[label].job or Path(label)
    try:
        source = read_source(name if (JOBS / name / "job.json").is_file() else path.resolve().parent / name)
        if source.bundle is not None and source.trains:
            return source
    except BratsFLError as error:
        raise RunError(f"{path}: jobs.{label}: {error}") from None
    raise RunError(f"{path}: jobs.{label}: {source.name} trains nothing; name a job that does")


def recipes_of_baselines(study: Study, sources: Mapping[str, JobSource]) -> dict[str, str]:
    """Bundle -> what the study calls the job whose recipe its baselines take: the first with plain averaging."""
    found: dict[str, str] = {}
    plain = [label for label in sources if algorithm_of(study, label, sources[label]) == PLAIN]
    for label in (*plain, *sources):
        found.setdefault(bundle_name(sources[label]), label)
    return found


def algorithm_of(study: Study, label: str, source: JobSource) -> str:
    """Name of the federated algorithm of a job."""
    return str(study.values(label).get("algorithm", source.differences.get("algorithm", PLAIN)))


def bundle_name(source: JobSource) -> str:
    """Name of the bundle of a job that trains."""
    assert source.bundle is not None
    return source.bundle.name


def _order(study: Study, sources: Mapping[str, JobSource], recipes: Mapping[str, str]) -> list[tuple[RunKind, str]]:
    """Kinds and jobs of one repetition: a job, what it is compared with, the next job; what takes longest last."""
    order: list[tuple[RunKind, str]] = []
    early: Sequence[Kind] = [kind for kind in study.baselines if kind != "leave-one-out"]
    begun: set[str] = set()
    for label, source in sources.items():
        order.append((FEDERATED, label))
        if (bundle := bundle_name(source)) not in begun:
            begun.add(bundle)
            order += [(kind, recipes[bundle]) for kind in early]
    if "leave-one-out" in study.baselines:
        order += [("leave-one-out", recipes[bundle]) for bundle in recipes]
    return order


def _make_run(
    study: Study, path: Path, source: JobSource, label: str, kind: RunKind, cases: Cases, seed: int
) -> StudyRun:
    values = {**study.values(label), "seed": seed}
    hospitals = training_hospitals(source, cases, path)
    options = JobOptions(study.profile, study.rounds, values, sites=hospitals)
    try:
        comparable = configure(source, options).study
        work = workload_of(source, options)
    except BratsFLError as error:
        raise RunError(f"{path}: jobs.{label}: {error}") from None
    told = [kind, comparable, {site: hash_list(found) for site, found in cases.lists.items()}]
    told += [dict(cases.spoilt)] if cases.spoilt else []  # without, a run is what it was before there was such a thing
    what = label if kind == FEDERATED else f"{bundle_name(source)}-{kind}"
    one, many = work.rounds * work.steps, len(hospitals)
    steps = {FEDERATED: many, "local": many, "central": 1, "leave-one-out": many * (many - 1)}
    return StudyRun(
        name=f"{cases.prefix}-{what}-seed{seed}",
        kind=kind,
        label=label,
        job=source.reference,
        bundle=bundle_name(source),
        profile=study.profile,
        rounds=study.rounds,
        seed=seed,
        partition=cases.partition,
        fold=cases.fold,
        sites_dir=cases.sites,
        hospitals=hospitals,
        values=values,
        steps=one * steps[kind],
        recipe_sha256=hash_text(json.dumps(told, sort_keys=True)),
    )


def training_hospitals(source: JobSource, cases: Cases, path: Path) -> tuple[str, ...]:
    """The hospitals that train: those of the folder with a training case, or of the job's own list where it has one.

    Raises:
        DataListError: None is there, or one of the job's own list is not.
    """
    able = tuple(site for site, found in cases.lists.items() if found.training)
    if not able:
        raise DataListError(f"{path}: partition {cases.partition} ({cases.sites}) has no hospital with a training case")
    if is_default(source):
        return able
    if lacking := [site for site in source.sites if site not in able]:
        raise DataListError(
            f"{path}: {source.name} wants {lacking[0]}, which has no training case in "
            f"{cases.sites / lacking[0] / DATALIST_FILE}; add it, or take another job"
        )
    return source.sites
