"""Cases told apart by the size of their tumour and by institution: how good the model is on each kind.

Size is the reference's whole tumour, in classes with fixed limits: those of two reports hold the same tumours, which
terciles of each report's own cases would not.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from statistics import fmean, stdev
from typing import Any, Final

from brats_fl.constants import REGIONS
from brats_fl_tools.data.institutions import read_name
from brats_fl_tools.pages.formats import natural_key
from brats_fl_tools.report.case_results import CaseResult
from brats_fl_tools.report.ranking import FEWEST_FOR_RANK

SIZE_LIMITS_ML: Final = (50.0, 100.0)
"""Between small, medium and large tumours; a tumour of a limit's own size is of the larger class."""

NOT_NAMED: Final = "not named"
"""Institution of a case that nothing tells of."""

MEAN: Final = "mean"
LESION_DICE: Final = "lesion_dice"


@dataclass(frozen=True)
class Figure:
    """A figure over the cases of a group that have it."""

    cases: int
    mean: float
    sd: float | None
    """With n - 1; None of a single case."""
    lowest: float | None = None
    """Lowest and highest are None with fewer than ``FEWEST_FOR_RANK`` cases: which they are is chance."""
    highest: float | None = None


@dataclass(frozen=True)
class Group:
    """Cases of one class or one institution."""

    name: str
    cases: int
    dice: Mapping[str, Figure]
    """``mean`` over the regions, then each region; empty without a case."""
    lesion_dice: Mapping[str, Figure]
    """Region -> lesion-wise Dice; a region that no case has a figure of is absent."""

    @property
    def is_small(self) -> bool:
        """Whether too few cases stand behind it to name its lowest and highest."""
        return self.cases < FEWEST_FOR_RANK


@dataclass(frozen=True)
class Grouping:
    """All cases, parted in one way."""

    title: str
    """By what."""
    heading: str
    """Of the groups' names."""
    groups: tuple[Group, ...]

    @property
    def has_lesions(self) -> bool:
        """Whether any case has lesion-wise figures."""
        return any(group.lesion_dice for group in self.groups)


def group_cases(results: Sequence[CaseResult], institutions: Mapping[str, str]) -> tuple[Grouping, ...]:
    """Scored cases by size of the tumour, and by institution where one is named.

    Args:
        results: The cases.
        institutions: Case -> institution, as a case table names it; else the case's name may tell.
    """
    whose = {result.case: institutions.get(result.case) or read_name(result.case).institution for result in results}
    groupings = [group_by_size(results)] if results else []
    if any(whose.values()):
        groupings.append(group_by_institution(results, whose))
    return tuple(groupings)


def group_by_size(results: Sequence[CaseResult]) -> Grouping:
    """Every class of size, those without a case included; cases whose reference volume is not known come last."""
    limits = (0.0, *SIZE_LIMITS_ML, float("inf"))
    volumes = {id(result): result.reference_volume_ml["wt"] for result in results}
    groups = []
    for low, high in pairwise(limits):
        inside = [result for result in results if (ml := volumes[id(result)]) is not None and low <= ml < high]
        groups.append(_group(_name_class(low, high), inside))
    unknown = [result for result in results if volumes[id(result)] is None]
    return Grouping("size of the tumour", "Whole tumour", (*groups, *([_group("not known", unknown)] * bool(unknown))))


def group_by_institution(results: Sequence[CaseResult], whose: Mapping[str, str]) -> Grouping:
    """Every institution by its name, cases of none last; ``whose`` has each case's, empty where it is not named."""
    names = sorted({name for name in whose.values() if name}, key=natural_key)
    found = {name: [result for result in results if whose[result.case] == name] for name in names}
    rest = [result for result in results if not whose[result.case]]
    groups = [_group(name, cases) for name, cases in found.items()]
    return Grouping("institution", "Institution", (*groups, *([_group(NOT_NAMED, rest)] * bool(rest))))


def _name_class(low: float, high: float) -> str:
    if not low:
        return f"under {high:g} ml"
    return f"{low:g} ml and more" if high == float("inf") else f"{low:g} to under {high:g} ml"


def _group(name: str, results: Sequence[CaseResult]) -> Group:
    dice = {column: _figure(result.value("dice", column) for result in results) for column in (MEAN, *REGIONS)}
    lesions = {region: _figure(_lesion_dice(result, region) for result in results) for region in REGIONS}
    return Group(name, len(results), *({key: one for key, one in part.items() if one} for part in (dice, lesions)))


def _lesion_dice(result: CaseResult, region: str) -> float | None:
    return result.further[LESION_DICE][region] if LESION_DICE in result.further else None


def _figure(values: Iterable[float | None]) -> Figure | None:
    known = [value for value in values if value is not None]
    if not known:
        return None
    ends = (min(known), max(known)) if len(known) >= FEWEST_FOR_RANK else (None, None)
    return Figure(len(known), fmean(known), stdev(known) if len(known) > 1 else None, *ends)


def as_json(groupings: Iterable[Grouping]) -> dict[str, Any]:
    """For ``metrics.json`` and ``acceptance.json``."""
    return {
        f"by_{grouping.title.partition(' ')[0]}": {
            group.name: {
                "cases": group.cases,
                "dice": {column: asdict(one) for column, one in group.dice.items()},
                "lesion_dice": {region: asdict(one) for region, one in group.lesion_dice.items()},
            }
            for group in grouping.groups
        }
        for grouping in groupings
    }
