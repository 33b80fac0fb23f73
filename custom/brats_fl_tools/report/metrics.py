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
from brats_fl_tools.report.case_results import CaseResult
from brats_fl_tools.report.further import Further, summarise_further
from brats_fl_tools.report.participants import (
    describe_state,
    failed_rounds,
    missing_updates,
    number_of_rounds,
    participants,
    rounds_done,
)
from brats_fl_tools.report.privacy import spent_by_hospital
from brats_fl_tools.report.ranking import Ranking, rank
from brats_fl_tools.report.reliability import pool_reliability
from brats_fl_tools.report.run_folder import VALIDATION_SPLIT, RunFolder
from brats_fl_tools.runs.folder import EVALUATION_FILE

METRICS = ("dice", "hd95_mm")
COLUMNS = (*REGIONS, "mean")


@dataclass(frozen=True)
class Statistic:
    """One metric of one region over cases."""

    mean: float
    sd: float | None
    """Standard deviation over the cases, with n - 1; None of a single case."""
    median: float
    worst: float
    """The lowest Dice or the largest HD95."""
    missed: int = 0
    """HD95: how many have the distance that stands for a region in only one of prediction and reference."""


@dataclass(frozen=True)
class Summary:
    """Figures over a set of cases; each mapping has the keys of ``COLUMNS``, or none without a case."""

    cases: int
    dice: Mapping[str, Statistic]
    hd95_mm: Mapping[str, Statistic]
    further: Further

    def values(self, metric: str, statistic: str = "mean") -> dict[str, Any]:
        """A statistic per column of ``COLUMNS``, ``None`` where there is no case."""
        statistics: Mapping[str, Statistic] = getattr(self, metric)
        return {column: getattr(statistics[column], statistic) if column in statistics else None for column in COLUMNS}


@dataclass(frozen=True)
class Scores:
    """A split of a run, summed up over its cases and over its sites."""

    sites: Mapping[str, Summary]
    overall: Summary
    ranking: Ranking | None
    """None unless two hospitals have ``FEWEST_FOR_RANK`` cases."""

    def site_mean(self, metric: str) -> dict[str, float]:
        """Mean over the sites that have cases of their means, every site counted once."""
        rows = [summary.values(metric) for summary in self.sites.values() if summary.cases]
        return {column: float(np.mean([row[column] for row in rows])) for column in COLUMNS}

    def site_sd(self) -> dict[str, float | None]:
        """Standard deviation of the sites' mean Dice over the sites; None of one alone."""
        rows = [summary.values("dice") for summary in self.sites.values() if summary.cases]
        return {column: _sd(np.array([row[column] for row in rows])) for column in COLUMNS}


def summarise(results: Sequence[CaseResult]) -> Summary:
    """Figures of Dice and HD95 over scored cases; a case's own mean is over its regions."""
    if not results:
        return Summary(0, {}, {}, summarise_further(()))
    dice, hd95_mm = (
        {column: np.array([result.value(metric, column) for result in results]) for column in COLUMNS}
        for metric in METRICS
    )
    return Summary(
        cases=len(results),
        dice={column: _statistic(values, float(values.min())) for column, values in dice.items()},
        hd95_mm={
            column: _statistic(values, float(values.max()), count_missed(results, column))
            for column, values in hd95_mm.items()
        },
        further=summarise_further(results),
    )


def count_missed(results: Sequence[CaseResult], column: str) -> int:
    """How often a region, or for ``mean`` any of them, is in only one of prediction and reference."""
    return sum(result.is_missed(region) for result in results for region in REGIONS if column in (region, "mean"))


def _statistic(values: npt.NDArray[np.float64], worst: float, missed: int = 0) -> Statistic:
    return Statistic(float(values.mean()), _sd(values), float(np.median(values)), worst, missed)


def _sd(values: npt.NDArray[np.float64]) -> float | None:
    return float(values.std(ddof=1)) if len(values) > 1 else None


def score(run: RunFolder) -> Scores:
    """Figures of the run's split over its cases and per site.

    Raises:
        RunError: No case of the split has a reference.
    """
    results = run.scored(run.split)
    if not results:
        raise RunError(
            f"{run.path / CASE_TABLE_FILE}: has no case of split {run.split} with a reference; "
            "give the sites' data lists some and run `brats-fl evaluate` again"
        )
    sites = {site: summarise([result for result in results if result.site == site]) for site in run.sites}
    means = {site: summary.dice["mean"].mean for site, summary in sites.items() if summary.cases}
    return Scores(sites, summarise(results), rank(means, {site: summary.cases for site, summary in sites.items()}))


@dataclass(frozen=True)
class Reported:
    """What the hospitals said of the final model on their own validation cases, where their tables stay with them."""

    sites: Mapping[str, Mapping[str, float]]
    """Site -> Dice per column of ``COLUMNS``, mean over its validation cases."""
    cases: Mapping[str, int | None]
    """Site -> its validation cases; None where it kept that to itself."""

    @property
    def ranking(self) -> Ranking | None:
        """As of ``Scores``; None, too, where nobody said over how many cases the means are."""
        return rank({site: dice["mean"] for site, dice in self.sites.items()}, self.cases)

    def site_mean(self) -> dict[str, float | None]:
        """Mean over the sites, each counted once; None where none reported."""
        if not self.sites:
            return dict.fromkeys(COLUMNS)
        return {column: float(np.mean([dice[column] for dice in self.sites.values()])) for column in COLUMNS}


def read_reported(run: RunFolder) -> Reported:
    """The last evaluation of the final model as the hospitals reported it; of a private run nothing.

    Raises:
        RunError: No hospital reported one, though nothing was withheld.
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
    if not sites and not spent_by_hospital(run):
        raise RunError(
            f"{run.path}: no {CASE_TABLE_FILE} there, and no hospital reported on the final model (none has validation "
            "cases); `brats-fl evaluate BUNDLE --model M --sites SITES --out RUN` makes the table"
        )
    return Reported(sites, {site: run.counts.get(site, {}).get(VALIDATION_SPLIT) for site in sites})


def build_reported_metrics(run: RunFolder, reported: Reported) -> dict[str, Any]:
    """Content of ``metrics.json`` of a run without a table of cases: what the hospitals reported, and no distances."""
    unknown = dict.fromkeys(COLUMNS)
    return {
        **_describe(run),
        "split": VALIDATION_SPLIT,
        "sites": {
            site: {
                "cases": run.counts.get(site, {}).get(VALIDATION_SPLIT),
                "dice": dict(reported.sites.get(site, unknown)),
                "hd95_mm": unknown,
            }
            for site in run.sites
        },
        "overall": {
            "dice": reported.site_mean(),
            "hd95_mm": unknown,
            "averaged_over": "hospitals that reported, each counted once",
            **_ranking(reported.ranking),
        },
        **_taking_part(run),
    }


def _ranking(ranking: Ranking | None) -> dict[str, Any]:
    """Null where too few cases stand behind it."""
    return {
        "worst_site": ranking and ranking.worst_site,
        "best_site": ranking and ranking.best_site,
        "site_gap": ranking and ranking.gap,
    }


def _describe(run: RunFolder) -> dict[str, Any]:
    return {
        "job": run.info.get("job"),
        "bundle": run.info.get("bundle") or run.evaluation.get("bundle"),
        "profile": run.info.get("profile") or run.evaluation.get("profile"),
        "rounds": None if run.is_evaluation else number_of_rounds(run),
    }


def _taking_part(run: RunFolder) -> dict[str, Any]:
    found = participants(run)
    return {
        "participants": {
            one.site: {
                "part": one.part.name.lower(),
                "invited": one.invited,
                "rounds": list(one.rounds),
                "test_cases": one.test_cases,
            }
            for one in found
        },
        "rounds_done": rounds_done(run),
        "failed_rounds": list(failed_rounds(run)),
        "updates_per_site": {one.site: len(one.rounds) for one in found if one.invited},
        "missing": [vars(update) for update in missing_updates(run)],
    }


def build_metrics(run: RunFolder, scores: Scores) -> dict[str, Any]:
    """Content of ``metrics.json``: plain numbers, ``None`` where there is no case, never NaN.

    Args:
        run: The run.
        scores: Figures of its split.
    """
    pooled = pool_reliability([(run.path / EVALUATION_FILE, run.evaluation)])
    unscored = sum(result.split == run.split and not result.is_scored for result in run.results)
    return {
        **_describe(run),
        "split": run.split,
        "model_sha256": run.evaluation.get("model_sha256"),
        **({"masks_sha256": run.evaluation["masks_sha256"]} if run.is_rescored else {}),
        "sites": {site: _as_json(summary) for site, summary in scores.sites.items()},
        "overall": {
            **_as_json(scores.overall),
            "averaged_over": f"all {run.case_noun}s, each counted once",
            "site_mean": {metric: scores.site_mean(metric) for metric in METRICS},
            **_ranking(scores.ranking),
            "cases_without_reference": unscored,
        },
        **({} if run.is_evaluation else _taking_part(run)),
        "reliability": {region: one.as_table() for region, one in pooled.items()},
        "other_splits": {split: _as_json(summary) for split, summary in other_splits(run).items()},
    }


def other_splits(run: RunFolder) -> dict[str, Summary]:
    """Figures over all cases of every other split that was evaluated; they are not the headline."""
    splits = {result.split for result in run.results if result.is_scored} - {run.split}
    return {split: summarise(run.scored(split)) for split in sorted(splits)}


def _as_json(summary: Summary) -> dict[str, Any]:
    return {
        "cases": summary.cases,
        **{metric: summary.values(metric) for metric in METRICS},
        "dice_sd": summary.values("dice", "sd"),
        "hd95_mm_median": summary.values("hd95_mm", "median"),
        "missed": {
            region: number for region, number in summary.values("hd95_mm", "missed").items() if region in REGIONS
        },
        "median": {metric: summary.values(metric, "median") for metric in METRICS},
        "worst": {metric: summary.values(metric, "worst") for metric in METRICS},
        **summary.further.as_json(),
    }
