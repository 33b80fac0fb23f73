"""``metrics.json``: the figures of a run on its test cases, and who took part in which round."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from brats_fl.constants import KEY_METRIC, REGIONS
from brats_fl.errors import RunError
from brats_fl.files import CASE_TABLE_FILE
from brats_fl_tools.report.run_folder import CaseResult, RoundRecord, RunFolder

METRICS = ("dice", "hd95_mm")
COLUMNS = (*REGIONS, "mean")
TEST_SPLIT = "testing"
VALIDATION_SPLIT = "validation"


@dataclass(frozen=True)
class Statistic:
    """One metric of one region over cases."""

    mean: float
    median: float
    worst: float
    """The lowest Dice or the largest HD95."""


@dataclass(frozen=True)
class Summary:
    """Figures over a set of cases; each mapping has the keys of ``COLUMNS``, or none without a case."""

    cases: int
    dice: Mapping[str, Statistic]
    hd95_mm: Mapping[str, Statistic]

    def means(self, metric: str) -> dict[str, float | None]:
        """Mean per column of ``COLUMNS``, ``None`` where there is no case."""
        statistics: Mapping[str, Statistic] = getattr(self, metric)
        return {column: statistics[column].mean if column in statistics else None for column in COLUMNS}


@dataclass(frozen=True)
class Scores:
    """A split of a run, summed up over its cases and over its sites."""

    sites: Mapping[str, Summary]
    overall: Summary
    worst_site: str
    best_site: str
    site_gap: float
    """Mean Dice of the best site less that of the worst."""

    def site_mean(self, metric: str) -> dict[str, float]:
        """Mean over the sites that have cases of their means, every site counted once."""
        rows = [summary.means(metric) for summary in self.sites.values() if summary.cases]
        return {column: float(np.mean([row[column] or 0.0 for row in rows])) for column in COLUMNS}


@dataclass(frozen=True)
class MissingUpdate:
    """A round for which a site sent nothing that could be used."""

    phase: str
    round: int
    site: str
    status: str


def summarise(results: Sequence[CaseResult]) -> Summary:
    """Mean, median and worst of Dice and HD95 over scored cases; a case's own mean is over its regions."""
    if not results:
        return Summary(0, {}, {})
    dice, hd95_mm = (
        {column: np.array([result.value(metric, column) for result in results]) for column in COLUMNS}
        for metric in METRICS
    )
    return Summary(
        cases=len(results),
        dice={column: _statistic(values, float(values.min())) for column, values in dice.items()},
        hd95_mm={column: _statistic(values, float(values.max())) for column, values in hd95_mm.items()},
    )


def _statistic(values: npt.NDArray[np.float64], worst: float) -> Statistic:
    return Statistic(float(values.mean()), float(np.median(values)), worst)


def score(run: RunFolder, split: str) -> Scores:
    """Figures of a split over its cases and per site.

    Raises:
        RunError: No case of the split has a reference.
    """
    results = run.scored(split)
    if not results:
        raise RunError(
            f"{run.path / CASE_TABLE_FILE}: has no case of split {split} with a reference; "
            "give the sites' data lists some and run `brats-fl evaluate` again"
        )
    sites = {site: summarise([result for result in results if result.site == site]) for site in run.sites}
    means = {site: summary.dice["mean"].mean for site, summary in sites.items() if summary.cases}
    worst, best = min(means, key=lambda site: means[site]), max(means, key=lambda site: means[site])
    return Scores(sites, summarise(results), worst, best, means[best] - means[worst])


@dataclass(frozen=True)
class Reported:
    """What the hospitals said of the final model on their own validation cases, where their tables stay with them."""

    sites: Mapping[str, Mapping[str, float]]
    """Site -> Dice per column of ``COLUMNS``, mean over its validation cases."""

    def site_mean(self) -> dict[str, float]:
        """Mean over the sites, each counted once."""
        return {column: float(np.mean([dice[column] for dice in self.sites.values()])) for column in COLUMNS}


def read_reported(run: RunFolder) -> Reported:
    """The last evaluation of the final model as the hospitals reported it.

    Raises:
        RunError: No hospital reported one.
    """
    names = {**{region: f"val_dice_{region}" for region in REGIONS}, "mean": KEY_METRIC}
    sites = {
        record.site: {column: record.metrics[name] for column, name in names.items()}
        for record in run.records
        if record.phase == "final" and record.is_ok and set(names.values()) <= set(record.metrics)
    }
    if not sites and not run.is_finished:
        raise RunError(
            f"{run.path}: did not finish, and there is no {CASE_TABLE_FILE}; {describe_state(run)}: go on with "
            f"`brats-fl resume {run.path}`, then report"
        )
    if not sites:
        raise RunError(
            f"{run.path}: no {CASE_TABLE_FILE} there, and no hospital reported on the final model (none has validation "
            "cases); `brats-fl evaluate BUNDLE --model M --sites SITES --out RUN` makes the table"
        )
    return Reported(sites)


def build_reported_metrics(run: RunFolder, reported: Reported) -> dict[str, Any]:
    """Content of ``metrics.json`` of a run without a table of cases: what the hospitals reported, and no distances."""
    unknown = dict.fromkeys(COLUMNS)
    means = {site: dice["mean"] for site, dice in reported.sites.items()}
    worst, best = min(means, key=lambda site: means[site]), max(means, key=lambda site: means[site])
    counts = run.info.get("sites")
    return {
        **_describe(run),
        "split": VALIDATION_SPLIT,
        "sites": {
            site: {
                "cases": counts.get(site, {}).get(VALIDATION_SPLIT) if isinstance(counts, Mapping) else None,
                "dice": dict(reported.sites.get(site, unknown)),
                "hd95_mm": unknown,
            }
            for site in run.sites
        },
        "overall": {
            "dice": reported.site_mean(),
            "hd95_mm": unknown,
            "averaged_over": "hospitals that reported, each counted once",
            "worst_site": worst,
            "best_site": best,
            "site_gap": means[best] - means[worst],
        },
        **_taking_part(run),
    }


def _describe(run: RunFolder) -> dict[str, Any]:
    return {
        "job": run.info.get("job"),
        "bundle": run.info.get("bundle") or run.evaluation.get("bundle"),
        "profile": run.info.get("profile"),
        "rounds": number_of_rounds(run),
    }


def _taking_part(run: RunFolder) -> dict[str, Any]:
    return {"updates_per_site": updates_per_site(run), "missing": [vars(update) for update in missing_updates(run)]}


def train_rounds(run: RunFolder) -> tuple[int, ...]:
    """Numbers of the rounds that have a record, ascending."""
    return tuple(sorted({record.round for record in run.records if record.phase == "train"}))


def training_sites(run: RunFolder) -> tuple[str, ...]:
    """Sites that were to train: those of the run's own list, else those that have a record."""
    listed = run.info.get("sites")
    named = {record.site for record in run.records if record.phase == "train"}
    return tuple(site for site in run.sites if site in named or (isinstance(listed, Mapping) and site in listed))


def missing_updates(run: RunFolder) -> tuple[MissingUpdate, ...]:
    """Every round and site without a usable update, in order; one without any record is ``missing``."""
    trained = {(record.round, record.site): record for record in run.records if record.phase == "train"}
    found = []
    for number in train_rounds(run):
        for site in training_sites(run):
            record = trained.get((number, site), RoundRecord("train", number, site, "missing"))
            if not record.is_ok:
                found.append(MissingUpdate("train", number, site, record.status))
    found += [
        MissingUpdate("final", record.round, record.site, record.status)
        for record in run.records
        if record.phase == "final" and not record.is_ok
    ]
    return tuple(found)


def updates_per_site(run: RunFolder) -> dict[str, int]:
    """Number of rounds with a usable update, per training site."""
    done = [record.site for record in run.records if record.phase == "train" and record.is_ok]
    return {site: done.count(site) for site in training_sites(run)}


def number_of_rounds(run: RunFolder) -> int:
    """Rounds that were asked for, else those that have a record."""
    asked = run.info.get("rounds")
    return asked if isinstance(asked, int) else len(train_rounds(run))


def describe_state(run: RunFolder) -> str | None:
    """How far a run got that did not finish; None of one that did."""
    if run.is_finished:
        return None
    done = run.info.get("rounds_done")
    return f"{done if isinstance(done, int) else len(train_rounds(run))} of {number_of_rounds(run)} rounds were done"


def build_metrics(run: RunFolder, scores: Scores) -> dict[str, Any]:
    """Content of ``metrics.json``: plain numbers, ``None`` where there is no case, never NaN.

    Args:
        run: The run.
        scores: Figures of its test split.
    """
    unscored = sum(result.split == TEST_SPLIT and not result.is_scored for result in run.results)
    return {
        **_describe(run),
        "split": TEST_SPLIT,
        "model_sha256": run.evaluation.get("model_sha256"),
        "sites": {site: _as_json(summary) for site, summary in scores.sites.items()},
        "overall": {
            **_as_json(scores.overall),
            "averaged_over": "all test cases, each counted once",
            "site_mean": {metric: scores.site_mean(metric) for metric in METRICS},
            "worst_site": scores.worst_site,
            "best_site": scores.best_site,
            "site_gap": scores.site_gap,
            "cases_without_reference": unscored,
        },
        **_taking_part(run),
        "other_splits": {split: _as_json(summary) for split, summary in other_splits(run).items()},
    }


def other_splits(run: RunFolder) -> dict[str, Summary]:
    """Figures over all cases of every other split that was evaluated; they are not the headline."""
    splits = {result.split for result in run.results if result.is_scored} - {TEST_SPLIT}
    return {split: summarise(run.scored(split)) for split in sorted(splits)}


def _as_json(summary: Summary) -> dict[str, Any]:
    worst = {
        metric: {column: getattr(summary, metric)[column].worst for column in COLUMNS if summary.cases}
        for metric in METRICS
    }
    median = {
        metric: {column: getattr(summary, metric)[column].median for column in COLUMNS if summary.cases}
        for metric in METRICS
    }
    return {
        "cases": summary.cases,
        **{metric: summary.means(metric) for metric in METRICS},
        "median": median,
        "worst": worst,
    }
