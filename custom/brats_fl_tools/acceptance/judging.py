"""The verdict on a study: go, no go, undecided, against thresholds that were written before its runs.

A threshold is met when the whole interval of its figure is on the right side of it, missed when the whole interval is
on the wrong side. Between them it is undecided, and the patients that it would take are told.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from brats_fl.constants import REGIONS
from brats_fl_tools.acceptance.case_figures import MEAN, CaseFigures
from brats_fl_tools.acceptance.comparing import paired_difference
from brats_fl_tools.acceptance.evidence import Candidate
from brats_fl_tools.acceptance.hospitals import Suspect
from brats_fl_tools.acceptance.statistics import (
    FEWEST,
    Estimate,
    cases_needed,
    estimate,
    mean_of,
    median_of,
    ratio_of,
)
from brats_fl_tools.pages.formats import REGION_NAMES, format_count, list_words
from brats_fl_tools.study.thresholds import Thresholds

State = Literal["met", "missed", "undecided"]
Word = Literal["go", "no go", "undecided"]


@dataclass(frozen=True)
class Part:
    """A figure that a threshold is held against: of all cases, of a hospital or of a region."""

    of: str
    """Which hospital or region; empty of all cases."""
    found: Estimate | None
    state: State
    patients_needed: int | None
    """That would decide, if figure and spread stay as they are; None where it is decided, or none would."""


@dataclass(frozen=True)
class Finding:
    """A threshold, and what was found."""

    key: str
    asked: str
    parts: tuple[Part, ...]
    why: str = ""
    """Why it cannot be judged."""

    @property
    def state(self) -> State:
        """Met where all parts meet it, missed where one misses it."""
        states = {part.state for part in self.parts}
        if "missed" in states:
            return "missed"
        return "met" if states == {"met"} else "undecided"

    @property
    def deciding(self) -> tuple[Part, ...]:
        """Parts that keep it from being met; all of one that is."""
        return tuple(part for part in self.parts if part.state == self.state)


@dataclass(frozen=True)
class Judgement:
    """A federated job, on one partition, against all thresholds."""

    job: str
    """What the study calls it."""
    name: str
    """The same, with the partition where there are several."""
    findings: tuple[Finding, ...]
    suspects: tuple[Suspect, ...]

    @property
    def word(self) -> Word:
        """No go with a hospital whose labels look spoilt, or a threshold missed; go with all of them met."""
        states = {finding.state for finding in self.findings}
        if self.suspects or "missed" in states:
            return "no go"
        return "go" if states == {"met"} else "undecided"


def judge_estimate(of: str, found: Estimate | None, limit: float, least: bool) -> Part:
    """Whether the whole interval of a figure is on one side of a limit.

    Args:
        of: Which hospital or region; empty of all cases.
        found: The figure; without an interval it is undecided.
        limit: Of the threshold.
        least: Whether the figure must be at least so much; else at most.
    """
    if found is None or found.low is None or found.high is None:
        return Part(of, found, "undecided", FEWEST)
    good, bad = (found.low >= limit, found.high < limit) if least else (found.high <= limit, found.low > limit)
    if good or bad:
        return Part(of, found, "met" if good else "missed", None)
    return Part(of, found, "undecided", cases_needed(found, limit))


def judge_thresholds(asked: Thresholds, candidate: Candidate) -> tuple[Finding, ...]:
    """Every threshold that is asked for, in the order of the file's keys."""
    figures, baselines = candidate.federated, candidate.baselines
    judges: dict[str, Callable[[float], Finding]] = {
        "least_mean_dice": lambda limit: _least_mean(figures, limit),
        "least_worst_site_dice": lambda limit: _least_worst(figures, limit),
        "least_share_of_central": lambda limit: _least_share(figures, baselines.get("central"), limit),
        "above_local": lambda _: _above_local(figures, baselines.get("local")),
        "most_hd95_mm": lambda limit: _most_hd95(figures, limit),
        "most_volume_bias_ml": lambda limit: _most_bias(figures, limit),
    }
    limits = {key: getattr(asked, key) for key in judges}
    return tuple(judges[key](limit) for key, limit in limits.items() if limit not in (None, False))


def _mean(figures: CaseFigures) -> Estimate | None:
    return estimate(figures.owners, mean_of(figures.of("dice", MEAN)))


def _least_mean(figures: CaseFigures, limit: float) -> Finding:
    part = judge_estimate("", _mean(figures), limit, least=True)
    return Finding("least_mean_dice", f"mean Dice at least {limit:g}", (part,))


def _least_worst(figures: CaseFigures, limit: float) -> Finding:
    parts = [judge_estimate(site, _mean(figures.at([site])), limit, least=True) for site in figures.sites]
    return Finding("least_worst_site_dice", f"mean Dice of every hospital at least {limit:g}", tuple(parts))


def _least_share(figures: CaseFigures, central: CaseFigures | None, limit: float) -> Finding:
    asked = f"mean Dice at least {limit:g} of the model of all lists pooled"
    if central is None:
        return Finding("least_share_of_central", asked, (), "the study has no finished central baseline")
    here, there = _same_cases(figures, central)
    if not there.of("dice", MEAN).any():
        return Finding("least_share_of_central", asked, (), "the pooled model finds nothing, or shares no test case")
    share = estimate(here.owners, ratio_of(here.of("dice", MEAN), there.of("dice", MEAN)))
    return Finding("least_share_of_central", asked, (judge_estimate("", share, limit, least=True),))


def _above_local(figures: CaseFigures, local: CaseFigures | None) -> Finding:
    asked = "no hospital does better with the model of its own cases alone"
    if local is None:
        return Finding("above_local", asked, (), "the study has no finished local baseline")
    here, there = _same_cases(figures, local)
    parts = []
    for site in here.sites:
        one, other = here.at([site]), there.at([site])
        found = paired_difference(one.of("dice", MEAN), other.of("dice", MEAN), one.owners)
        parts.append(judge_estimate(site, found, 0.0, least=True))
    return Finding("above_local", asked, tuple(parts))


def _most_hd95(figures: CaseFigures, limit: float) -> Finding:
    parts = [
        judge_estimate(REGION_NAMES[region], estimate(figures.owners, median_of(figures.of("hd95_mm", region))), limit,
                       least=False)
        for region in REGIONS
    ]  # fmt: skip
    return Finding("most_hd95_mm", f"median HD95 of every region at most {limit:g} mm", tuple(parts))


def _most_bias(figures: CaseFigures, limit: float) -> Finding:
    parts = []
    for region in REGIONS:
        values = figures.of("volume_bias_ml", region)
        known = ~np.isnan(values)
        owners = [owner for owner, is_known in zip(figures.owners, known.tolist(), strict=True) if is_known]
        parts.append(judge_bias(REGION_NAMES[region], estimate(owners, mean_of(values[known])), limit))
    return Finding("most_volume_bias_ml", f"mean difference of a region's volume at most {limit:g} ml", tuple(parts))


def judge_bias(of: str, found: Estimate | None, limit: float) -> Part:
    """Whether a difference lies between minus and plus a limit: by its interval as a whole, or wholly outside."""
    upper = judge_estimate(of, found, limit, least=False)
    lower = judge_estimate(of, found, -limit, least=True)
    if "missed" in (upper.state, lower.state):
        return upper if upper.state == "missed" else lower
    if upper.state == lower.state == "met":
        return upper
    needed = [part.patients_needed for part in (upper, lower) if part.state == "undecided"]
    known = [number for number in needed if number is not None]
    return Part(of, found, "undecided", max(known) if len(known) == len(needed) else None)


def _same_cases(one: CaseFigures, other: CaseFigures) -> tuple[CaseFigures, CaseFigures]:
    keys = [key for key in one.keys if key in other.results]
    return one.only(keys), other.only(keys)


@dataclass(frozen=True)
class Verdict:
    """What the report says first."""

    word: Word | None
    """None without thresholds, unless a hospital is named."""
    why: tuple[str, ...]
    """Sentences."""
    judgements: tuple[Judgement, ...]


def pass_verdict(judgements: Sequence[Judgement], has_thresholds: bool, left_out: Sequence[str]) -> Verdict:
    """The verdict on a study: of its best job, where nothing is missing.

    Args:
        judgements: Of each federated job and partition; a job must stand on all of its partitions.
        has_thresholds: Whether there are any; without them nothing but a hospital that is named makes a verdict.
        left_out: Runs that are not in the figures: with one the verdict is undecided at best.
    """
    named = _name_suspects(judgements)
    if not has_thresholds:
        none = "No verdict: the study has no thresholds, and what is good enough must be said before the runs."
        return Verdict("no go" if named else None, (*named, none), tuple(judgements))
    words = words_of_jobs(judgements)
    word: Word = "no go"
    if not named and "go" in words.values():
        word = "undecided" if left_out else "go"
    elif not named and "undecided" in words.values():
        word = "undecided"
    why = [*named, *_name_jobs(words)]
    why += [sentence for judgement in judgements for sentence in describe(judgement)]
    if left_out:
        why.append(
            f"{format_count(len(left_out), 'run')} of the study {'is' if len(left_out) == 1 else 'are'} not in the "
            f"figures ({list_words(left_out)}): without all of them the verdict is undecided at best."
        )
    return Verdict(word, tuple(why), tuple(judgements))


def words_of_jobs(judgements: Iterable[Judgement]) -> dict[str, Word]:
    """Job -> its verdict: the worst of its partitions."""
    of_job: dict[str, set[Word]] = {}
    for judgement in judgements:
        of_job.setdefault(judgement.job, set()).add(judgement.word)
    order: tuple[Word, ...] = ("no go", "undecided", "go")
    return {job: next(word for word in order if word in found) for job, found in of_job.items()}


def _name_jobs(words: Mapping[str, Word]) -> list[str]:
    """Which of several jobs passes; a choice among them is not to be made by these test cases."""
    if len(words) < 2:
        return []
    told = "; ".join(f"{job}: {word}" for job, word in words.items())
    return [f"{told}. The verdict is that of the best; choose among jobs by validation cases, not by these figures."]


def _name_suspects(judgements: Iterable[Judgement]) -> list[str]:
    """A sentence for each hospital that is named, with all signs that any job shows."""
    signs: dict[str, dict[str, list[str]]] = {}
    for judgement in judgements:
        for suspect in judgement.suspects:
            for sign in suspect.signs:
                signs.setdefault(suspect.site, {}).setdefault(sign, []).append(judgement.name)
    told = {site: [f"{sign} ({list_words(names)})" for sign, names in found.items()] for site, found in signs.items()}
    return [f"Look at the labels of {site}: {'; '.join(texts)}." for site, texts in told.items()]


def describe(judgement: Judgement) -> list[str]:
    """Sentences on a job: what it misses, what is undecided and what would decide it, or that it meets all."""
    missed = [finding for finding in judgement.findings if finding.state == "missed"]
    open_ = [finding for finding in judgement.findings if finding.state == "undecided"]
    if not missed and not open_:
        return [f"{judgement.name} meets all thresholds of the file, {len(judgement.findings)}."]
    sentences = []
    if missed:
        texts = [f"{finding.asked}{_name_parts(finding)}" for finding in missed]
        sentences.append(f"{judgement.name} misses: {'; '.join(texts)}.")
    if open_:
        texts = [f"{finding.asked}{_name_parts(finding)} ({describe_need(finding)})" for finding in open_]
        sentences.append(f"{judgement.name} leaves undecided: {'; '.join(texts)}.")
    return sentences


def _name_parts(finding: Finding) -> str:
    named = [part.of for part in finding.deciding if part.of]
    return f", for {list_words(named)}" if named else ""


def describe_need(finding: Finding) -> str:
    """What would decide a threshold."""
    if finding.why:
        return finding.why
    open_ = [part for part in finding.parts if part.state == "undecided"]
    if any(part.found is None or part.found.low is None for part in open_):
        return f"fewer than {FEWEST} patients: at least {FEWEST} are needed"
    if any(part.patients_needed is None for part in open_):
        return "the figure is at the limit: no number of patients would decide"
    most = max(open_, key=lambda part: part.patients_needed or 0)
    assert most.found is not None
    where = f"for {most.of} " if most.of else ""
    return f"{where}about {most.patients_needed} patients would decide, there are {most.found.patients}"
