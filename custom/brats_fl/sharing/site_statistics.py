"""Statistics of a hospital's cases that may leave the house: noised histograms over cases, of enough cases only.

A case counts once in each histogram: its four intensity histograms are shares of its brain's voxels, a tumour volume is
one value. Laplace noise on every bin and on the number of cases makes the whole release epsilon-differentially private
for a case that is added or taken away (Dwork and Roth 2014, "The Algorithmic Foundations of Differential Privacy",
theorem 3.6): each of the questions, ``len(FEATURES)`` histograms and a count, gets an equal share of epsilon, and one
case changes each by at most 1. Everything that is sent is computed from this release, whatever a job asks.

A release is kept beside the data list and sent again as long as the scans, the labels and the settings stay the same,
wherever they lie and whatever they are called: asked a hundred times, a hospital gives the same numbers, and its noise
cannot be averaged away. Of two processes that ask at once the second waits for the first, and gets its numbers.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Final

import numpy as np

from brats_fl.cases.cache_folder import FileHashes, content_of
from brats_fl.cases.datalists import Case, as_monai_item, default_cache_dir, read_datalist, scans_of
from brats_fl.cases.scans import read_volumes
from brats_fl.constants import SPLITS
from brats_fl.errors import CaseError, PrivacyError, TooFewCasesError
from brats_fl.files import is_there, locked, write_whole
from brats_fl.privacy.budget import Spending, digests_of, reserve
from brats_fl.reading import Reader
from brats_fl.sharing.case_features import FEATURES, Feature, Histogram, measure_case

RELEASES_FILE: Final = "statistics_releases.json"
"""Beside the data list: what went out, and when."""

LOCK_FILE: Final = f".{RELEASES_FILE}.lock"
"""Beside it: who has it may look for a release and make one."""

MIN_CASES_VARIABLE: Final = "BRATS_FL_STATISTICS_MIN_CASES"
EPSILON_VARIABLE: Final = "BRATS_FL_STATISTICS_EPSILON"

QUESTIONS: Final = len(FEATURES) + 1

ANY_DELTA: Final = 0.5
"""A release has an epsilon without delta, which is the same at every one."""

READER: Final = Reader(
    PrivacyError,
    "it is the record of what went out: restore it from a backup, or remove it and count the statistics that it held "
    "as sent twice",
)


@dataclass(frozen=True)
class Protection:
    """What a hospital asks for before anything goes out; no job can change it."""

    min_cases: int = 5
    """With cases of fewer patients nothing is released."""
    epsilon: float = float(QUESTIONS)
    """Of a release as a whole; by default 1 for each question."""

    @property
    def noise_scale(self) -> float:
        """Of the Laplace noise, in cases."""
        return QUESTIONS / self.epsilon


def read_protection(environ: Mapping[str, str] = os.environ) -> Protection:
    """The hospital's settings, from the environment of its processes.

    Raises:
        PrivacyError: One is not a number of the right kind; nothing goes out then.
    """
    cases, epsilon = environ.get(MIN_CASES_VARIABLE), environ.get(EPSILON_VARIABLE)
    default = Protection()
    protection = Protection(
        default.min_cases if cases is None else int(_number(MIN_CASES_VARIABLE, cases)),
        default.epsilon if epsilon is None else _number(EPSILON_VARIABLE, epsilon),
    )
    if protection.min_cases < 2:
        raise PrivacyError(f"{MIN_CASES_VARIABLE} must be at least 2 (got {cases}): one case is a patient")
    if not 0 < protection.epsilon < float("inf"):
        raise PrivacyError(f"{EPSILON_VARIABLE} must be a finite number above 0 (got {epsilon})")
    return protection


def _number(name: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise PrivacyError(f"{name} must be a number (got {text!r}); mend or unset it") from None


@dataclass(frozen=True)
class Release:
    """What went out, or may: a noised count, and noised histograms that add up to it."""

    of: str
    """Digest of the data and the settings that it was made from."""
    date: str
    epsilon: float
    min_cases: int
    count: float
    histograms: Mapping[str, list[float]] = field(default_factory=dict)

    def mean(self, feature: Feature) -> float:
        """Mean over cases."""
        return float(np.average(feature.middles, weights=self.histograms[feature.name]))

    def deviation(self, feature: Feature) -> float:
        """Standard deviation: of cases, and for intensities of their voxels as well."""
        squares = (feature.middles - self.mean(feature)) ** 2
        return float(np.sqrt(np.average(squares, weights=self.histograms[feature.name])))


def released(datalist: Path, protection: Protection, budget: Path | None = None) -> Release:
    """The hospital's release: the one that was made of these data before, else a new one, which is kept.

    Args:
        datalist: The hospital's.
        protection: Its settings.
        budget: Its privacy budget, which a new release draws on; None where it has none.

    Raises:
        PrivacyBudgetError: A new release would pass the budget.
        TooFewCasesError: There are fewer cases than the hospital asks for.
        PrivacyError: Releases cannot be kept or locked; without that, repeated jobs would wear the noise out.
        CaseError, DataListError: A scan or the data list cannot be used.
    """
    cases = labelled_cases(datalist)
    patients = len({case.patient for case in cases})
    if patients < protection.min_cases:
        raise TooFewCasesError(
            f"{datalist}: labelled cases of {patients} patients; statistics need {protection.min_cases} "
            f"({MIN_CASES_VARIABLE})"
        )
    hashes = FileHashes(Path(default_cache_dir(datalist)))
    path = datalist.parent / RELEASES_FILE
    try:
        with locked(path.with_name(LOCK_FILE)):
            earlier, of = read_releases(path), digest_of(cases, protection, hashes)
            if same := next((release for release in earlier if release.of == of), None):
                return same
            if budget is not None:
                reserve(budget, cost_of(cases, protection, of), ANY_DELTA)
            new = make_release(of, (measure_case(case) for case in cases), protection)
            if digest_of(cases, protection, hashes) != of:
                raise CaseError(f"{datalist}: a scan or label changed while it was read; ask again once they stay")
            write_whole(path, json.dumps([asdict(release) for release in [*earlier, new]], indent=1) + "\n")
            return new
    except OSError as error:
        raise PrivacyError(
            f"{path}: what goes out must be kept, one process at a time, and cannot be ({error}); make its folder "
            "writable, or move the data list to a disk that has locks"
        ) from error


def cost_of(cases: Iterable[Case], protection: Protection, of: str) -> Spending:
    """What a release spends of a privacy budget: its epsilon for each case of the patient who has most of them."""
    cases_of = Counter(case.patient for case in cases)
    most = max(cases_of.values())
    return Spending(f"statistics {of[:16]}", 0, digests_of(cases_of), epsilon=protection.epsilon * most)


def labelled_cases(datalist: Path) -> list[Case]:
    """The cases of all splits that have a label."""
    content = read_datalist(datalist)
    return [case for split in SPLITS for case in content.split(split) if case.label is not None]


def read_releases(path: Path) -> list[Release]:
    """What went out before, oldest first.

    Raises:
        PrivacyError: The file is damaged.
    """
    if not is_there(path):
        return []
    return READER.typed(list[Release], READER.json(path), path)


def digest_of(cases: Iterable[Case], protection: Protection, hashes: FileHashes) -> str:
    """SHA-256 that changes with the bytes of a scan or label, a convention or a setting; not with a name or a place.

    Raises:
        CaseError: A file cannot be read.
    """
    facts: list[Any] = [asdict(protection), [asdict(feature) for feature in FEATURES]]
    facts.append(sorted(_content_of(case, hashes) for case in cases))
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def _content_of(case: Case, hashes: FileHashes) -> str:
    content = content_of(as_monai_item(case), hashes)
    if content is None:
        for _ in read_volumes(case.case, scans_of(case)):
            pass  # it says which file it is, and why
        raise CaseError(f"{case.case}: a file came and went while it was read; ask again when all are in place")
    return content


def make_release(of: str, cases: Iterable[Mapping[str, Histogram]], protection: Protection) -> Release:
    """Sum what cases show, and add noise to it.

    Args:
        of: Digest of what the cases were measured from.
        cases: ``measure_case`` of each.
        protection: The hospital's settings.
    """
    totals = {feature.name: np.zeros(feature.bins) for feature in FEATURES}
    count = 0
    for case in cases:
        count += 1
        for name, histogram in case.items():
            totals[name] += histogram
    rng, scale = np.random.default_rng(secrets.randbits(128)), protection.noise_scale
    noised = max(round(count + float(rng.laplace(0, scale)), 2), 1.0)
    return Release(
        of=of,
        date=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        epsilon=protection.epsilon,
        min_cases=protection.min_cases,
        count=noised,
        histograms={
            name: np.round(nearest_histogram(total + rng.laplace(0, scale, len(total)), noised), 2).tolist()
            for name, total in totals.items()
        },
    )


def nearest_histogram(noised: Histogram, total: float) -> Histogram:
    """The histogram without negative counts, and with the given total, that is nearest to a noised one.

    It costs no privacy, being made of what is released anyway, and takes most of the noise out of empty bins.
    Source: projection onto the simplex, Duchi et al. 2008, doi:10.1145/1390156.1390191, figure 1.
    """
    falling = np.sort(noised)[::-1]
    excess = (np.cumsum(falling) - total) / np.arange(1, len(noised) + 1)
    threshold = excess[np.flatnonzero(falling > excess)[-1]]
    return np.maximum(noised - threshold, 0)
