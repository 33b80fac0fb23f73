"""What a stress says in figures: ``stress.csv``, a row a case, grade and region, and ``stress.json``, the means."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean, median, quantiles
from typing import Any, Final

import numpy as np

from brats_fl.constants import REGIONS
from brats_fl.errors import RunError
from brats_fl.files import write_whole
from brats_fl.reading import Reader
from brats_fl_tools.report.comparison import FEWEST_FOR_INTERVAL, bootstrap_interval
from brats_fl_tools.stress.plan import AS_IT_IS, DEGRADATIONS, Grade, severity
from brats_fl_tools.stress.records import Score

TABLE_FILE: Final = "stress.csv"
SUMMARY_FILE: Final = "stress.json"
PAGE_FILE: Final = "stress.html"
RESULTS: Final = (TABLE_FILE, SUMMARY_FILE, PAGE_FILE)

COLUMNS: Final = ("degradation", "grade", "site", "case", "region", "dice", "hd95_mm")

MEAN: Final = "mean"
"""Beside the regions: the mean of the three, of each case."""

FALL: Final = 0.05
"""Loss of mean Dice that is called a fall."""

READER: Final = Reader(RunError, "write it again with `brats-fl stress`")


@dataclass(frozen=True)
class Scored:
    """A case in one grade."""

    site: str
    case: str
    score: Score

    def dice(self, column: str) -> float:
        """Dice of a region, or the mean of the regions."""
        return fmean(self.score.dice.values()) if column == MEAN else self.score.dice[column]


@dataclass(frozen=True)
class GradeFigures:
    """A grade over all cases; Dice by region and ``mean``."""

    degradation: str
    grade: str
    strength: float
    dice: Mapping[str, float]
    """Means."""
    dice_middle_half: Mapping[str, tuple[float, ...]]
    """Lower and upper quartile over the cases."""
    hd95_mm_median: Mapping[str, float]
    loss: float
    """Mean Dice of the scans as they are less that of this grade."""
    loss_interval: tuple[float, ...] | None
    """95 % interval of the loss, cases resampled; None where they are too few for one."""
    cases_that_fall: int
    """Cases whose mean Dice is more than ``FALL`` lower."""


@dataclass(frozen=True)
class Summary:
    """Content of ``stress.json``."""

    model: str
    models_sha256: Mapping[str, str]
    bundle: str
    profile: str
    postprocessing: Mapping[str, Any]
    split: str
    sites: Mapping[str, int]
    """Cases of each."""
    cases: int
    synthetic_cases: int
    seen_in_training: tuple[str, ...] | None
    """Cases that the model was trained or chosen on; None where its run does not tell."""
    grades: tuple[GradeFigures, ...]
    finished: str
    versions: Mapping[str, str]
    machine: Mapping[str, Any]
    commit: str | None = None


def read_summary(path: Path) -> Summary:
    """A ``stress.json``.

    Raises:
        RunError: It is missing, damaged or none.
    """
    return READER.typed(Summary, READER.json_object(path), path)


def write_summary(path: Path, summary: Summary) -> None:
    """Write ``stress.json``; the file appears whole or not at all."""
    write_whole(path, json.dumps(asdict(summary), indent=1) + "\n")


def write_table(path: Path, results: Iterable[Scored]) -> None:
    """Write ``stress.csv``; Dice to 5 digits, HD95 in mm to 3, as in ``evaluation.csv``."""
    table = io.StringIO()
    writer = csv.writer(table)
    writer.writerow(COLUMNS)
    for one in results:
        score = one.score
        for region in REGIONS:
            figures = (f"{score.dice[region]:.5f}", f"{score.hd95_mm[region]:.3f}")
            writer.writerow([score.degradation, score.grade, one.site, one.case, region, *figures])
    write_whole(path, table.getvalue())


def summarise(results: Sequence[Scored], plan: Mapping[Grade, float]) -> tuple[GradeFigures, ...]:
    """Figures of each grade of the plan, in its order."""
    by_grade: dict[Grade, list[Scored]] = {grade: [] for grade in plan}
    for one in results:
        by_grade[Grade(one.score.degradation, one.score.grade)].append(one)
    return tuple(_figures(grade, plan[grade], by_grade[grade], by_grade[AS_IT_IS]) for grade in plan)


def _figures(grade: Grade, strength: float, here: Sequence[Scored], as_it_is: Sequence[Scored]) -> GradeFigures:
    before = {(one.site, one.case): one.dice(MEAN) for one in as_it_is}
    losses = np.array([before[one.site, one.case] - one.dice(MEAN) for one in here])
    dice = {column: [one.dice(column) for one in here] for column in (*REGIONS, MEAN)}
    return GradeFigures(
        *grade,
        strength,
        dice={column: fmean(values) for column, values in dice.items()},
        dice_middle_half={column: _quartiles(values) for column, values in dice.items()},
        hd95_mm_median={region: median(one.score.hd95_mm[region] for one in here) for region in REGIONS},
        loss=float(losses.mean()),
        loss_interval=bootstrap_interval(losses) if len(losses) >= FEWEST_FOR_INTERVAL and grade != AS_IT_IS else None,
        cases_that_fall=int((losses > FALL).sum()),
    )


def _quartiles(values: Sequence[float]) -> tuple[float, float]:
    if len(values) == 1:
        return values[0], values[0]
    low, _, high = quantiles(values, n=4, method="inclusive")
    return low, high


def of_degradation(grades: Iterable[GradeFigures], name: str) -> list[GradeFigures]:
    """Grades of one degradation."""
    return [one for one in grades if one.degradation == name]


def degradations_in(grades: Iterable[GradeFigures]) -> list[str]:
    """Names of the degradations that were made, in the order of their table."""
    made = {one.degradation for one in grades}
    return [name for name in DEGRADATIONS if name in made]


def first_falls(grades: Iterable[GradeFigures]) -> list[GradeFigures]:
    """Of one degradation the mildest grades whose mean Dice is more than ``FALL`` lower.

    All that are as mild as each other: each missing modality, one more shape of gamma.
    """
    falling = [(severity(DEGRADATIONS[one.degradation], one.strength), one) for one in grades if one.loss > FALL]
    mildest = min((how for how, _ in falling), default=0.0)
    return [one for how, one in falling if how == mildest]
