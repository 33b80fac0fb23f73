"""The evidence of a study: runs that may be put side by side, as figures of cases, and what was left out and why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Final

from brats_fl.cases.datalists import DATALIST_FILE, read_datalist
from brats_fl.errors import BratsFLError, RunError
from brats_fl.files import CASE_TABLE_FILE
from brats_fl.reading import Reader
from brats_fl_tools.acceptance.case_figures import MEAN, CaseFigures, Key, as_figures
from brats_fl_tools.report.case_results import CaseResult, read_evaluation
from brats_fl_tools.report.run_facts import EVALUATION_FACTS, read_facts
from brats_fl_tools.report.run_folder import TEST_SPLIT
from brats_fl_tools.runs.folder import EVALUATION_FILE
from brats_fl_tools.study.comparable import Basis, differences, read_basis
from brats_fl_tools.study.expansion import FEDERATED
from brats_fl_tools.study.record import RunRecord, StudyRecord

READER: Final = Reader(RunError, "the same `brats-fl study` runs it again once its folder is removed")

BASELINES: Final = ("local", "central", "leave-one-out")


@dataclass(frozen=True)
class LeftOut:
    """A run that is not in the figures."""

    name: str
    why: str


@dataclass(frozen=True)
class Candidate:
    """A federated job of the study on one partition, with the baselines of its bundle."""

    label: str
    partition: str
    bundle: str
    runs: tuple[RunRecord, ...]
    """Those in the figures: its own and those of its baselines."""
    federated: CaseFigures
    baselines: Mapping[str, CaseFigures]
    """``local``, ``central``, ``leave-one-out`` -> each case under the model that was made for it."""
    without: Mapping[str, CaseFigures]
    """Hospital -> all cases under the model that was trained without it, by this job's own recipe; else empty.

    A baseline has the recipe of one job of its bundle: against another job, a hospital would be blamed for what is the
    algorithm's.
    """
    by_seed: Mapping[str, Mapping[int, float]]
    """``federated`` or a baseline -> seed -> mean Dice over its cases."""

    @property
    def name(self) -> str:
        """For a reader."""
        return self.label if self.partition == "sites" else f"{self.label} on {self.partition}"

    @property
    def own_runs(self) -> tuple[RunRecord, ...]:
        """The federated ones."""
        return tuple(run for run in self.runs if run.kind == FEDERATED)


@dataclass(frozen=True)
class Evidence:
    """What a study has to show."""

    candidates: tuple[Candidate, ...]
    left_out: tuple[LeftOut, ...]
    synthetic_cases: int
    """Most of any run."""
    unchecked: tuple[str, ...]
    """Runs of which nobody checked whether the model saw a test case."""
    without_patients: tuple[str, ...]
    """Folders of lists that are no longer there: each case counts as a patient."""


@dataclass(frozen=True)
class ReadRun:
    """A finished run that may be compared."""

    run: RunRecord
    results: tuple[CaseResult, ...]
    without: Mapping[str, tuple[CaseResult, ...]]
    """Of ``leave-one-out``: hospital -> its part's table."""
    basis: Basis
    synthetic_cases: int
    is_checked: bool


def gather_evidence(out: Path, record: StudyRecord) -> Evidence:
    """Read what is finished, and put side by side what stands on the same.

    Args:
        out: Folder of the study.
        record: Its record.

    Raises:
        RunError: No federated run is finished and usable; tells of each run why.
    """
    left_out, usable = _read_all(out, record)
    usable, unlike = _comparable(usable)
    left_out += unlike
    patients, lost = _patients(usable)
    groups: dict[tuple[str, str], list[ReadRun]] = {}
    for one in usable:
        if one.run.kind == FEDERATED:
            groups.setdefault((one.run.label, one.run.partition), []).append(one)
    candidates = tuple(_candidate(own, usable, patients) for own in groups.values())
    if not candidates:
        why = "; ".join(f"{one.name}: {one.why}" for one in left_out)
        raise RunError(
            f"{out}: no federated run of the study can be reported ({why}); `brats-fl study` goes on with it"
        )
    return Evidence(
        candidates,
        tuple(left_out),
        max(one.synthetic_cases for one in usable),
        tuple(one.run.name for one in usable if not one.is_checked),
        lost,
    )


def _read_all(out: Path, record: StudyRecord) -> tuple[list[LeftOut], list[ReadRun]]:
    left_out, usable = [], []
    for run in record.runs:
        if run.state != "finished":
            left_out.append(LeftOut(run.name, f"{run.state}{f' ({run.error})' if run.error else ''}"))
            continue
        try:
            usable.append(read_finished(out, run))
        except RunError as error:
            left_out.append(LeftOut(run.name, str(error)))
    return left_out, usable


def read_finished(out: Path, run: RunRecord) -> ReadRun:
    """Tables of a finished run.

    Raises:
        RunError: A file cannot be read, a model had seen a case that it was tested on, or it is of another bundle.
    """
    basis = read_basis(out / run.folder)
    facts = read_facts(READER, out / run.evaluation, EVALUATION_FACTS)
    without = {}
    if run.kind == "leave-one-out":
        for hospital, part in zip(run.hospitals, run.parts, strict=True):
            told = read_facts(READER, out / part / EVALUATION_FILE, EVALUATION_FACTS)
            refuse_seen(part.name, told.get("seen_in_training"))
            without[hospital] = _tested(out / part / CASE_TABLE_FILE)
    refuse_seen(run.name, facts.get("seen_in_training"))
    if (basis.bundle, basis.profile) != (run.bundle, run.profile):
        raise RunError(
            f"its figures are of {basis.bundle} ({basis.profile}), the study asked for {run.bundle} ({run.profile})"
        )
    counted = facts.get("synthetic_cases") or 0
    return ReadRun(run, _tested(out / run.table), without, basis, counted, facts.get("seen_in_training") is not None)


def refuse_seen(name: str, seen: Sequence[str] | None) -> None:
    """Raise ``RunError`` where a model had seen cases that it was tested on."""
    if seen:
        raise RunError(f"{name}: its model was trained or chosen on {', '.join(seen)}, which it was tested on")


def _tested(path: Path) -> tuple[CaseResult, ...]:
    return tuple(one for one in read_evaluation(path) if one.split == TEST_SPLIT and one.is_scored)


def _comparable(runs: Sequence[ReadRun]) -> tuple[list[ReadRun], list[LeftOut]]:
    """Runs that stand on the same as the first federated one of their partition and fold; the others, and why."""
    firsts: dict[tuple[str, int | None], ReadRun] = {}
    for one in sorted(runs, key=lambda each: each.run.kind != FEDERATED):
        firsts.setdefault((one.run.partition, one.run.fold), one)
    kept, left_out = [], []
    for one in runs:
        first = firsts[one.run.partition, one.run.fold]
        unlike = differences(first.basis, replace(one.basis, bundle=first.basis.bundle))  # two bundles are two models
        if unlike:
            left_out.append(LeftOut(one.run.name, f"not compared with {first.run.name}: {'; '.join(unlike)}"))
        else:
            kept.append(one)
    return kept, left_out


def _patients(runs: Sequence[ReadRun]) -> tuple[dict[Path, dict[Key, str]], tuple[str, ...]]:
    """Folder of lists -> whose each test case is; and folders of which no list can be read."""
    found: dict[Path, dict[Key, str]] = {}
    lost = []
    for one in runs:
        folder = one.run.sites_dir
        if folder in found:
            continue
        found[folder] = {}
        for site in dict.fromkeys(result.site for result in one.results):
            try:
                cases = read_datalist(folder / site / DATALIST_FILE).testing
            except BratsFLError:
                lost.append(f"{folder / site}")
                continue
            found[folder] |= {(site, case.case): case.patient for case in cases}
    return found, tuple(lost)


def _candidate(
    own: Sequence[ReadRun], usable: Sequence[ReadRun], patients: Mapping[Path, Mapping[Key, str]]
) -> Candidate:
    first = own[0].run
    beside = [one for one in usable if (one.run.bundle, one.run.partition) == (first.bundle, first.partition)]
    kinds = {FEDERATED: list(own)} | {kind: [one for one in beside if one.run.kind == kind] for kind in BASELINES}
    known = {key: whose for one in own for key, whose in patients[one.run.sites_dir].items()}
    alike = [one for one in kinds["leave-one-out"] if one.run.label == first.label]
    lists = [found for one in alike for found in one.without.items()]
    return Candidate(
        label=first.label,
        partition=first.partition,
        bundle=first.bundle,
        runs=tuple(one.run for found in kinds.values() for one in found),
        federated=as_figures([one.results for one in own], known),
        baselines={kind: as_figures([one.results for one in kinds[kind]], known) for kind in BASELINES if kinds[kind]},
        without={
            hospital: as_figures([results for name, results in lists if name == hospital], known)
            for hospital in dict.fromkeys(name for name, _ in lists)
        },
        by_seed={kind: _by_seed(found) for kind, found in kinds.items() if found},
    )


def _by_seed(runs: Sequence[ReadRun]) -> dict[int, float]:
    """Seed -> mean Dice over the cases of all its folds."""
    values: dict[int, list[float]] = {}
    for one in runs:
        values.setdefault(one.run.seed, []).extend(result.value("dice", MEAN) for result in one.results)
    return {seed: fmean(found) for seed, found in values.items() if found}
