"""Who gets which case: a partition's options, and the data lists that follow from them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from brats_fl.cases.datalists import DataList
from brats_fl.errors import CaseError
from brats_fl_tools.data.case_table import CaseRow
from brats_fl_tools.partition.splits import as_case, check_disjoint, choose_strata, split_site
from brats_fl_tools.partition.strategies import (
    DEFAULT_SITES,
    RULES,
    assign_by_grade,
    assign_by_hospital,
    assign_by_institution,
    assign_by_size,
    assign_by_volume,
    assign_evenly,
)


class Strategy(str, Enum):
    """How cases are dealt to sites."""

    INSTITUTION = "institution"
    EVEN = "even"
    SIZE = "size"
    DIRICHLET = "dirichlet"
    GRADE = "grade"
    SCANNER = "scanner"


@dataclass(frozen=True)
class Options:
    """All that a partition depends on besides the cases."""

    strategy: Strategy
    sites: int | None = None
    """Number of sites; five, or one for each value of the column ``hospital``, where None."""
    seed: int = 0
    validation: float = 0.2
    """Share of a site's patients for validation."""
    test: float = 0.2
    """Share of a site's patients for testing."""
    exponent: float = 1.0
    """Of the power law of ``size``."""
    alpha: float = 0.5
    """Of the Dirichlet distribution of ``dirichlet``."""
    shift: float = 1.0
    """How far ``scanner`` alters the last site's scans."""
    leave_out: str | None = None
    """Site all of whose cases are for testing."""


OWN_STRATEGY = {"exponent": Strategy.SIZE, "alpha": Strategy.DIRICHLET, "shift": Strategy.SCANNER}
"""Option -> the only strategy that it goes with."""

# Below 0.01 all of a draw's gamma variates may underflow to 0, and shares would be 0 / 0.
RANGES = {
    "exponent": (0.0, 10.0),
    "alpha": (0.01, 1000.0),
    "shift": (0.1, 2.0),
    "validation": (0.0, 1.0),
    "test": (0.0, 1.0),
    "seed": (0, 2**32 - 1),
    "sites": (1, 1000),
}
"""Option -> smallest and largest value that it may have."""


def option_fault(options: Options) -> tuple[str, str] | None:
    """Name of an option that is out of its range, and the rule that it breaks."""
    for name, (lowest, highest) in RANGES.items():
        value = getattr(options, name)
        if value is not None and not lowest <= value <= highest:
            return name, f"must be {lowest:g} to {highest:g} (got {value:g})"
    if options.validation + options.test >= 1:
        return "test", f"must be below 1 together with validation (got {options.validation:g} and {options.test:g})"
    return None


@dataclass(frozen=True)
class Partition:
    """Who has which case, and how that came about."""

    datalists: tuple[DataList, ...]
    """One for each site, sorted by site, the one left out among them."""
    cases: dict[str, list[CaseRow]]
    """Site -> its cases."""
    rule: str
    strata: str
    """What the splits were stratified by."""
    unlabelled: tuple[str, ...]
    """Cases without a label, which no hospital gets."""
    shifts: dict[str, float]
    """Site -> how far its scans are to be altered; only sites where they are."""
    leave_out: str | None

    def institutions(self, site: str) -> dict[str, int]:
        """Institution -> cases, of a site."""
        return dict(sorted(Counter(row.institution or "unknown" for row in self.cases[site]).items()))


def partition_cases(rows: Sequence[CaseRow], options: Options) -> Partition:
    """Deal labelled cases to sites, and each site's to training, validation and testing.

    Args:
        rows: Cases; their order does not matter.
        options: Within their ranges.

    Raises:
        CaseError: The cases do not suffice for the sites, have no labels, or lack what the strategy needs; or there is
            no such site to leave out.
    """
    labelled = [row for row in rows if row.label is not None]
    if not labelled:
        raise CaseError(f"none of the {len(rows)} cases has a label; a hospital's list needs labelled cases")
    rule, assigned = assign(labelled, options)
    strata = choose_strata(labelled)
    datalists = [
        split_site(site, cases, options.validation, options.test, options.seed, strata.of_patient)
        for site, cases in assigned.items()
    ]
    check_disjoint(datalists)
    if options.leave_out is not None:
        datalists = _leave_out(options.leave_out, datalists, assigned)
    return Partition(
        datalists=tuple(datalists),
        cases=assigned,
        rule=RULES[rule],
        strata=strata.by,
        unlabelled=tuple(sorted(row.case for row in rows if row.label is None)),
        shifts=_shifts(list(assigned), options.shift) if options.strategy is Strategy.SCANNER else {},
        leave_out=options.leave_out,
    )


def assign(rows: Sequence[CaseRow], options: Options) -> tuple[str, dict[str, list[CaseRow]]]:
    """Name of the rule, and the cases of each site by it."""
    sites, seed = options.sites or DEFAULT_SITES, options.seed
    if options.strategy is Strategy.INSTITUTION and any(row.hospital for row in rows):
        return "hospital", assign_by_hospital(rows, options.sites)
    assigned = {
        Strategy.INSTITUTION: lambda: assign_by_institution(rows, sites),
        Strategy.EVEN: lambda: assign_evenly(rows, sites, seed),
        Strategy.SIZE: lambda: assign_by_size(rows, sites, seed, options.exponent),
        Strategy.DIRICHLET: lambda: assign_by_volume(rows, sites, seed, options.alpha),
        Strategy.GRADE: lambda: assign_by_grade(rows, sites, seed),
        Strategy.SCANNER: lambda: assign_evenly(rows, sites, seed),
    }[options.strategy]()
    return options.strategy.value, assigned


def _leave_out(site: str, datalists: list[DataList], assigned: dict[str, list[CaseRow]]) -> list[DataList]:
    if site not in assigned or len(assigned) < 2:
        raise CaseError(f"--leave-out {site}: must be one of two or more sites (there are {', '.join(assigned)})")
    testing = DataList(site, testing=tuple(as_case(row) for row in assigned[site]))
    return [testing if datalist.site == site else datalist for datalist in datalists]


def _shifts(sites: Sequence[str], shift: float) -> dict[str, float]:
    """Sites whose scans are altered, in equal steps up to ``shift`` at the last; the first's are not."""
    return {site: shift * number / (len(sites) - 1) for number, site in enumerate(sites) if number}
