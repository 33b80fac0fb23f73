"""Whether two runs may be put side by side: the same bundle and profile, the same lists, the same labels.

What differs is named, so that no difference between models is shown that is one between what they were tested on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from brats_fl.constants import SPLITS
from brats_fl.errors import RunError
from brats_fl.files import CASE_TABLE_FILE
from brats_fl.reading import Reader
from brats_fl_tools.baseline.command import BASELINE_FILE
from brats_fl_tools.report.case_results import read_evaluation
from brats_fl_tools.report.run_facts import EVALUATION_FACTS, read_facts
from brats_fl_tools.runs.folder import EVALUATION_FILE, RUN_FILE

READER: Final = Reader(RunError, "give the folder of a run or of a baseline that was evaluated")

LABEL_TOLERANCE_ML: Final = 0.01
"""Within this two reference volumes are of one label: tables are written with three decimals or more."""

Hashes = Mapping[str, Mapping[str, str]]
"""Hospital -> split -> SHA-256 of its cases, patients and label conventions."""


@dataclass(frozen=True)
class Basis:
    """What the figures of a run stand on."""

    name: str
    bundle: str
    profile: str
    lists: Hashes
    """Of the hospitals that train, before they were pooled; empty of a mere evaluation."""
    references_ml: Mapping[tuple[str, str, str], float | None]
    """(Hospital, test case, region) -> volume of its label."""


def read_basis(folder: Path) -> Basis:
    """The basis of a run folder, of a baseline's folder, or of an evaluation.

    Raises:
        RunError: It was not evaluated, or a file of it cannot be read.
    """
    facts = read_facts(READER, folder / EVALUATION_FILE, EVALUATION_FACTS)
    results = read_evaluation(folder / CASE_TABLE_FILE)
    references = {
        (result.site, result.case, region): volume
        for result in results
        for region, volume in result.reference_volume_ml.items()
    }
    bundle, profile = (str(facts.get(key)) for key in ("bundle", "profile"))
    return Basis(folder.name, bundle, profile, _lists(folder), references)


def _lists(folder: Path) -> Hashes:
    # A part of a baseline knows its own lists alone, of which the pooled one has other names.
    for path in (folder / BASELINE_FILE, folder.parent / BASELINE_FILE, folder / RUN_FILE):
        if path.is_file():
            return READER.at(dict[str, dict[str, str]], READER.json_object(path), ["lists"], path)
    return {}


def differences(one: Basis, other: Basis) -> list[str]:
    """Why the figures of two runs must not be put side by side, in words; empty where they may.

    A hospital that only one of them trains is no difference: that is what a baseline is for.
    """
    found = [
        f"{what}: {here} and {there}"
        for what, here, there in (("bundle", one.bundle, other.bundle), ("profile", one.profile, other.profile))
        if here != there
    ]
    return [*found, *_splits(one, other), *_tests(one, other), *_labels(one, other)]


def _splits(one: Basis, other: Basis) -> list[str]:
    common = [site for site in one.lists if site in other.lists]
    found = [
        f"splits: {site} has other cases for {split}"
        for site in common
        for split in SPLITS
        if one.lists[site].get(split) != other.lists[site].get(split)
    ]
    if one.lists and other.lists and not common:
        return [f"splits: no hospital is in both ({', '.join(one.lists)} and {', '.join(other.lists)})"]
    return found


def _tests(one: Basis, other: Basis) -> list[str]:
    """Hospitals that both are tested at, on other cases."""
    here, there = _tested(one), _tested(other)
    common = [site for site in here if site in there]
    if not common:
        return [f"test cases: no hospital is in both ({', '.join(here)} and {', '.join(there)})"]
    return [
        f"test cases: {case} of {site} is in one only"
        for site in common
        for case in sorted(here[site] ^ there[site])[:1]
    ]


def _tested(basis: Basis) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for site, case, _ in basis.references_ml:
        found.setdefault(site, set()).add(case)
    return found


def _labels(one: Basis, other: Basis) -> list[str]:
    """The first label that differs: the volume of its reference is in both tables."""
    for key, here in one.references_ml.items():
        there = other.references_ml.get(key, here)
        unlike = (here is None) != (there is None)
        if unlike or (here is not None and there is not None and abs(here - there) > LABEL_TOLERANCE_ML):
            site, case, region = key
            shown = " and ".join("none" if ml is None else f"{ml:.2f} ml" for ml in (here, there))
            return [f"labels: {case} of {site} has {shown} of {region.upper()}"]
    return []


def refuse_to_compare(one: Basis, other: Basis) -> None:
    """Raise ``RunError`` where two runs must not be put side by side, with all that differs."""
    if found := differences(one, other):
        raise RunError(
            f"{one.name} and {other.name} are not compared, for they differ in {'; '.join(found)}; compare runs of one "
            "study, partition, fold and bundle"
        )
