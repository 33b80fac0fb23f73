"""What a study cost, whose cases it was done on, and who took part."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from brats_fl_tools.acceptance.evidence import Candidate
from brats_fl_tools.pages.formats import format_ranges
from brats_fl_tools.report.facts import count_cases
from brats_fl_tools.report.participants import missing_updates, participants
from brats_fl_tools.report.run_folder import RunFolder, read_run
from brats_fl_tools.report.timing import own_seconds
from brats_fl_tools.study.expansion import FEDERATED
from brats_fl_tools.study.record import RunRecord


@dataclass(frozen=True)
class Cost:
    """Of all runs of a kind."""

    what: str
    runs: int
    steps: int
    seconds: float
    """That their commands took on the machine of the study."""
    hospital_seconds: float
    """That the hospitals computed, by their own clocks, added up."""
    cpu_seconds: float | None
    """Of the processors of the hospitals, added up; None where a round does not tell."""
    joules: float | None
    """That the machine of the study took meanwhile; None where it does not tell of all runs."""
    bytes_down: int | None
    """To the hospitals; None, as is ``bytes_up``, of a baseline, which needs no network."""
    bytes_up: int | None


def costs(runs: Sequence[RunRecord], folders: Mapping[str, Sequence[RunFolder]]) -> tuple[Cost, ...]:
    """A line a federated job, and one for each baseline of a bundle, in the order of the runs.

    Args:
        runs: Finished ones.
        folders: Name of a run -> its run folders.
    """
    groups: dict[str, list[RunRecord]] = {}
    for run in runs:
        what = run.label if run.kind == FEDERATED else f"{run.bundle}, {run.kind}"
        groups.setdefault(what, []).append(run)
    return tuple(
        _cost(what, found, [folder for run in found for folder in folders[run.name]]) for what, found in groups.items()
    )


def _cost(what: str, runs: Sequence[RunRecord], folders: Sequence[RunFolder]) -> Cost:
    records = [record for folder in folders for record in folder.records if record.phase == "train"]
    done = [record for record in records if record.is_ok]
    told = [record.cpu_seconds for record in done if record.cpu_seconds is not None]
    energy = [run.joules for run in runs if run.joules is not None]
    sends = runs[0].kind == FEDERATED
    return Cost(
        what=what,
        runs=len(runs),
        steps=sum(run.steps for run in runs),
        seconds=sum(run.seconds for run in runs),
        hospital_seconds=sum(own_seconds(record) for record in done),
        cpu_seconds=sum(told) if told and len(told) == len(done) else None,
        joules=sum(energy) if len(energy) == len(runs) else None,
        bytes_down=sum(record.bytes_down for record in records) if sends else None,
        bytes_up=sum(record.bytes_up for record in records) if sends else None,
    )


def read_folders(out: Path, run: RunRecord) -> tuple[RunFolder, ...]:
    """Run folders of a run, their tables of cases left aside."""
    return tuple(read_run(out / part, with_rounds=False, with_cases=False) for part in run.parts)


@dataclass(frozen=True)
class Member:
    """A hospital and its part in the federated runs of a job."""

    site: str
    part: str
    cases: tuple[int | None, ...]
    """Of each split, as the first run had them."""
    missed: str
    """Rounds without an update of it, of each run that had such; empty where there are none."""


def members(candidate: Candidate, folders: Mapping[str, Sequence[RunFolder]]) -> tuple[Member, ...]:
    """Every hospital that the job's runs know of."""
    runs = [(run, folders[run.name][0]) for run in candidate.own_runs]
    first = runs[0][1]
    counts = dict(count_cases(first))
    return tuple(
        Member(
            one.site,
            one.part.value,
            tuple(counts.get(one.site, (None, None, None))),
            "; ".join(f"{run.name}: {rounds}" for run, folder in runs if (rounds := _missed(folder, one.site))),
        )
        for one in participants(first)
    )


def _missed(folder: RunFolder, site: str) -> str:
    return format_ranges(one.round for one in missing_updates(folder) if one.site == site and one.phase == "train")
