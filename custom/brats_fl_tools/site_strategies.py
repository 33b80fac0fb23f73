"""Which site a case goes to: plain functions from cases to ``{site: cases}`` that keep patients whole.

A strategy sees labelled cases only. Its result does not depend on the order of the rows, nor on the machine.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

from brats_fl.constants import SITES
from brats_fl.errors import CaseError
from brats_fl_tools.case_table import CaseRow
from brats_fl_tools.institutions import shortened

DEFAULT_SITES = len(SITES)

RULES = {
    "institution": "The largest institutions, by labelled cases, get a site of their own; each further one, "
    "from large to small, goes to the site with the fewest cases so far (ties: name, then lower site).",
    "hospital": "A site for each value of the column hospital.",
    "even": "Patients are shuffled by the seed, those with most cases first, and each goes to the site with "
    "the fewest cases so far (ties: lower site).",
}
"""What a partition says of how it came about."""

# FLARE takes a site's name into folder names, certificates and messages.
_SITE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")


def group_by_patient(rows: Iterable[CaseRow]) -> dict[str, list[CaseRow]]:
    """Patient -> cases, both sorted by name."""
    patients: dict[str, list[CaseRow]] = defaultdict(list)
    for row in sorted(rows, key=lambda row: (row.patient, row.case)):
        patients[row.patient].append(row)
    return dict(patients)


def shuffle_names(names: Iterable[str], seed: int, purpose: str) -> list[str]:
    """Names in the order of a hash of seed, purpose and name.

    A case more or less leaves the order of the others as it was, which no generator does.
    """
    return sorted(names, key=lambda name: hashlib.sha256(f"{seed}/{purpose}/{name}".encode()).digest())


def site_names(count: int) -> list[str]:
    """``hospital-1`` to ``hospital-<count>``."""
    return [f"hospital-{number}" for number in range(1, count + 1)]


def assign_by_institution(rows: Sequence[CaseRow], sites: int = DEFAULT_SITES) -> dict[str, list[CaseRow]]:
    """Cases by institution, merged into ``sites`` sites by the rule in ``RULES``.

    Raises:
        CaseError: A case has no institution, a patient has two, or there are fewer institutions than sites.
    """
    _check_filled(rows, "institution")
    sizes = Counter(row.institution for row in rows)
    if len(sizes) < sites:
        raise CaseError(
            f"{sites} sites need as many institutions, the cases have {len(sizes)} ({shortened(sizes)}); "
            f"give --sites {len(sizes)}, or --strategy even"
        )
    site_of: dict[str, str] = {}
    cases_at = dict.fromkeys(site_names(sites), 0)
    for institution in sorted(sizes, key=lambda name: (-sizes[name], name)):
        # An empty site has the fewest cases, so the first institutions get one each; min takes the first.
        site = min(cases_at, key=lambda name: cases_at[name])
        site_of[institution] = site
        cases_at[site] += sizes[institution]
    return _collect(site_names(sites), rows, {row.case: site_of[row.institution] for row in rows})


def assign_by_hospital(rows: Sequence[CaseRow], sites: int | None = None) -> dict[str, list[CaseRow]]:
    """Cases by their column ``hospital``, which names the sites.

    Raises:
        CaseError: A case has no hospital, a name cannot be a site's, a patient is in two, or ``sites`` is
            another number.
    """
    _check_filled(rows, "hospital")
    names = sorted({row.hospital for row in rows})
    for name in names:
        if not _SITE_NAME.fullmatch(name):
            raise CaseError(f"hospital {name!r} cannot name a site; use letters, digits, '-' and '_' only")
    if sites not in (None, len(names)):
        raise CaseError(
            f"the column hospital names {len(names)} sites, --sites asks for {sites}; leave out --sites or the column"
        )
    return _collect(names, rows, {row.case: row.hospital for row in rows})


def assign_evenly(rows: Sequence[CaseRow], sites: int, seed: int) -> dict[str, list[CaseRow]]:
    """Cases dealt to ``hospital-1`` .. so that sites differ by no more than one patient's cases.

    Raises:
        CaseError: There are fewer patients than sites.
    """
    patients = group_by_patient(rows)
    if len(patients) < sites:
        raise CaseError(f"{sites} sites need as many patients, there are {len(patients)}; give fewer --sites")
    site_of: dict[str, str] = {}
    cases_at = dict.fromkeys(site_names(sites), 0)
    for patient in sorted(shuffle_names(patients, seed, "site"), key=lambda name: -len(patients[name])):
        site = min(cases_at, key=lambda name: cases_at[name])
        cases_at[site] += len(patients[patient])
        site_of.update(dict.fromkeys((row.case for row in patients[patient]), site))
    return _collect(site_names(sites), rows, site_of)


def _check_filled(rows: Iterable[CaseRow], column: str) -> None:
    empty = [row.case for row in rows if not getattr(row, column)]
    if empty:
        raise CaseError(
            f"{len(empty)} cases have no {column} ({shortened(empty)}); fill in that column of the case "
            "table, or give --institutions a table, for BraTS 2020 its name_mapping.csv"
        )


def _collect(sites: Iterable[str], rows: Iterable[CaseRow], site_of: dict[str, str]) -> dict[str, list[CaseRow]]:
    """Site -> cases sorted by name; a patient whom the table puts at two sites is an error."""
    assigned: dict[str, list[CaseRow]] = {site: [] for site in sites}
    for patient, cases in group_by_patient(rows).items():
        of_patient = sorted({site_of[row.case] for row in cases})
        if len(of_patient) > 1:
            raise CaseError(
                f"patient {patient} has cases at {' and '.join(of_patient)}; give a patient's cases one "
                "institution (and hospital)"
            )
        assigned[of_patient[0]] += cases
    return {site: sorted(cases, key=lambda row: row.case) for site, cases in assigned.items()}
