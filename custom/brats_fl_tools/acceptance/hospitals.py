"""Who gains from the federation, who contributes to it, and whose labels look as if they were spoilt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

import numpy as np

from brats_fl_tools.acceptance.case_figures import MEAN, CaseFigures
from brats_fl_tools.acceptance.comparing import models_of, paired_difference
from brats_fl_tools.acceptance.evidence import Candidate
from brats_fl_tools.acceptance.statistics import FEWEST, Estimate, draw_patients
from brats_fl_tools.acceptance.validation import Validated, deviation
from brats_fl_tools.pages.formats import list_words
from brats_fl_tools.study.expansion import FEDERATED

FAR: Final = 0.1
"""Mean Dice that a hospital must be below the others, under every model, to be named: less is how hospitals differ."""

SHARED: Final = (FEDERATED, "central", "leave-one-out")
"""Models that the cases of others trained, too."""


@dataclass(frozen=True)
class Gain:
    """Federated less local model of a hospital, mean Dice of its own test cases; above 0 it gains."""

    site: str
    difference: Estimate


@dataclass(frozen=True)
class Contribution:
    """Federated model less the one without a hospital, mean Dice of the others' test cases; above 0 it helps."""

    site: str
    difference: Estimate


@dataclass(frozen=True)
class Suspect:
    """A hospital that is named, and the signs, as clauses that follow its name."""

    site: str
    signs: tuple[str, ...]


def gains(candidate: Candidate) -> tuple[Gain, ...]:
    """Each hospital that has a local model."""
    local = candidate.baselines.get("local")
    if local is None:
        return ()
    found = [(site, _difference(candidate.federated, local, (site,))) for site in local.sites]
    return tuple(Gain(site, difference) for site, difference in found if difference is not None)


def contributions(candidate: Candidate) -> tuple[Contribution, ...]:
    """Each hospital that was left out once; its interval is one of all hospitals together, so it is wider.

    Without a table of the others' cases, as an earlier version wrote it, there is none.
    """
    found = []
    for site, without in candidate.without.items():
        others = [other for other in without.sites if other != site]
        # Bonferroni: that one of so many intervals misses by chance stays at 5 %.
        difference = _difference(candidate.federated, without, others, 1 - 0.05 / len(candidate.without))
        if difference is not None:
            found.append(Contribution(site, difference))
    return tuple(found)


def _difference(
    one: CaseFigures, other: CaseFigures, sites: Sequence[str], confidence: float = 0.95
) -> Estimate | None:
    keys = [key for key in one.at(sites).keys if key in other.results]
    here, there = one.only(keys), other.only(keys)
    return paired_difference(here.of("dice", MEAN), there.of("dice", MEAN), here.owners, confidence)


def suspects(candidate: Candidate, validated: Mapping[str, Validated] = MappingProxyType({})) -> tuple[Suspect, ...]:
    """Hospitals whose labels someone must look at.

    Four signs, each by an interval of mean Dice over patients:

    * the others do better without it;
    * its own cases score ``FAR`` or more below those of the others under every model, its own included;
    * the same under every model that others trained, too, while its own model fits its cases ``FAR`` better than the
      federated one: it labels by another rule;
    * its validation cases score ``FAR`` or more below or above its own test cases under the federated model: it
      trains by other labels than it is tested by.

    Args:
        candidate: The job.
        validated: Hospital -> its validation of the model that is tested.
    """
    signs: dict[str, list[str]] = {site: [] for site in candidate.federated.sites}
    for one in contributions(candidate):
        if one.difference.is_below:
            text = f"the others' Dice is {-one.difference.value:.3f} higher without it"
            signs.setdefault(one.site, []).append(text)
    models = models_of(candidate)
    fits = {one.site: one.difference for one in gains(candidate)}
    for site in candidate.federated.sites:
        if text := describe_far_below(site, models, fits.get(site)):
            signs[site].append(text)
        off = deviation(site, candidate.federated, validated, FAR, len(candidate.federated.sites))
        if off is not None:
            told = f"its validation cases score {abs(off):.3f} {'above' if off > 0 else 'below'} its own test cases"
            signs[site].append(f"in the rounds {told}: it may train by other labels")
    return tuple(Suspect(site, tuple(found)) for site, found in signs.items() if found)


def describe_far_below(site: str, models: Mapping[str, CaseFigures], gain: Estimate | None) -> str:
    """The second or the third sign in words; empty where there is neither.

    Args:
        site: Hospital.
        models: ``federated`` or a baseline -> figures of all cases under it.
        gain: Federated less local on its own cases.
    """
    below = {kind: is_far_below(figures, site) for kind, figures in models.items()}
    known = [kind for kind, found in below.items() if found is not None]
    if known and all(below[kind] for kind in known):
        return (
            f"its own cases score more than {FAR:g} below those of the others under every model ({list_words(known)})"
        )
    shared = [kind for kind in SHARED if below.get(kind) is not None]
    fits_itself = gain is not None and gain.high is not None and gain.high < -FAR
    if fits_itself and shared and all(below[kind] for kind in shared):
        return (
            f"its own cases score more than {FAR:g} below those of the others under every model that others trained, "
            f"too ({list_words(shared)}), and its own model fits them: it may label by another rule"
        )
    return ""


def is_far_below(figures: CaseFigures, site: str) -> bool | None:
    """Whether a hospital's mean Dice is ``FAR`` or more below that of all others' cases, by the whole interval.

    Patients of both sides are drawn on their own. None where one side has fewer than ``FEWEST`` patients.
    """
    here, there = figures.at([site]), figures.at(other for other in figures.sites if other != site)
    if min(len(set(here.owners)), len(set(there.owners))) < FEWEST:
        return None
    draws = []
    for one in (here, there):
        counts = draw_patients(one.owners)
        draws.append(counts @ one.of("dice", MEAN) / counts.sum(axis=1))
    return bool(np.percentile(draws[0] - draws[1], 97.5) < -FAR)
