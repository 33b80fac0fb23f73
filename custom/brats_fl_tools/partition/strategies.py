"""Which site a case goes to: plain functions from cases to ``{site: cases}`` that keep patients whole.

A strategy sees labelled cases only. Its result does not depend on the order of the rows, nor on the machine.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from brats_fl.constants import SITES
from brats_fl.errors import CaseError
from brats_fl.names import check_site_names
from brats_fl_tools.data.case_table import GRADES, CaseRow
from brats_fl_tools.data.institutions import shortened

DEFAULT_SITES = len(SITES)
VOLUME_CLASSES = 5

_DEALT = "goes to the site that is furthest below its target (ties: lower site)"
_FILLED = "a site that is left empty then takes the last patient of the site with most patients"

RULES = {
    "institution": "The largest institutions, by labelled cases, get a site of their own; each further one, "
    "from large to small, goes to the site with the fewest cases so far (ties: name, then lower site).",
    "hospital": "A site for each value of the column hospital.",
    "even": "Patients are shuffled by the seed, those with most cases first, and each goes to the site with "
    "the fewest cases so far (ties: lower site).",
    "size": "Site k is to have a share of the cases in proportion to k to the power of minus the exponent. Patients "
    f"are shuffled by the seed, and each {_DEALT}; {_FILLED}.",
    "dirichlet": f"Patients are put into {VOLUME_CLASSES} classes of equal size by the volume of their largest tumour. "
    "For each class, from small to large, the sites' shares are drawn from a symmetric Dirichlet distribution with "
    "parameter alpha (NumPy's RandomState with the seed); its patients are shuffled by the seed, and each "
    f"{_DEALT}; {_FILLED}.",
    "grade": "Sites are of equal size. The rarer grade is dealt in shares that rise by equal steps from none at one "
    "end to most at the other: hospital-1 has most HGG, the last most LGG; the commoner grade fills up. Patients are "
    f"shuffled by the seed, and each {_DEALT}; a patient with an HGG case is HGG.",
    "scanner": "As even. Then the scans are altered, hospital-1's not at all and the last one's by the whole shift, in "
    "equal steps: gamma, blur, shading and noise.",
}
"""What a partition says of how it came about."""


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
        CaseError: A case has no hospital, a patient is in two, or ``sites`` is another number.
        SiteNameError: A name cannot be a site's.
    """
    _check_filled(rows, "hospital")
    names = sorted({row.hospital for row in rows})
    check_site_names(names, "column hospital of the case table")
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
    patients = _enough_patients(rows, sites)
    order = sorted(shuffle_names(patients, seed, "site"), key=lambda name: -len(patients[name]))
    targets = dict.fromkeys(site_names(sites), len(rows) / sites)
    return _place(_deal(order, patients, targets), patients, site_names(sites))


def assign_by_size(rows: Sequence[CaseRow], sites: int, seed: int, exponent: float) -> dict[str, list[CaseRow]]:
    """Cases dealt so that the sites' sizes follow a power law: site k has k^-exponent times the cases of the first.

    Raises:
        CaseError: There are fewer patients than sites.
    """
    patients = _enough_patients(rows, sites)
    weights = [number**-exponent for number in range(1, sites + 1)]
    targets = _shares(site_names(sites), weights, len(rows))
    site_of = _deal(shuffle_names(patients, seed, "site"), patients, targets)
    return _place(_fill_empty(site_of, patients, site_names(sites)), patients, site_names(sites))


def assign_by_volume(rows: Sequence[CaseRow], sites: int, seed: int, alpha: float) -> dict[str, list[CaseRow]]:
    """Cases dealt so that the sites' mixes of tumour volumes follow a Dirichlet distribution.

    Args:
        rows: Cases with ``tumour_ml``.
        sites: Number of sites.
        seed: Of the draw and of the shuffle.
        alpha: > 0; large gives sites that are alike, small gives sites that see one class of tumours each.

    Raises:
        CaseError: A case has no volume, or there are fewer patients than sites.

    Source: Hsu et al. 2019, arXiv 1909.06335, with classes of volume for the labels of an image.
    """
    _check_filled(rows, "tumour_ml")
    patients = _enough_patients(rows, sites)
    # RandomState's streams are frozen, those of default_rng are not (NEP 19): a manifest must outlive NumPy's versions.
    draw = np.random.RandomState(seed)
    site_of: dict[str, str] = {}
    for members in volume_classes(patients, VOLUME_CLASSES):
        shares = draw.dirichlet([alpha] * sites).tolist()
        cases = sum(len(patients[name]) for name in members)
        targets = _shares(site_names(sites), shares, cases)
        site_of |= _deal(shuffle_names(members, seed, "site"), patients, targets)
    return _place(_fill_empty(site_of, patients, site_names(sites)), patients, site_names(sites))


def volume_classes(patients: Mapping[str, Sequence[CaseRow]], classes: int) -> list[list[str]]:
    """Patients in classes of equal size, from small to large tumours; of a patient the largest counts."""
    order = sorted(patients, key=lambda name: (max(row.tumour_ml or 0 for row in patients[name]), name))
    return [[name for i, name in enumerate(order) if i * classes // len(order) == k] for k in range(classes)]


def assign_by_grade(rows: Sequence[CaseRow], sites: int, seed: int) -> dict[str, list[CaseRow]]:
    """Cases dealt to sites of equal size whose mix goes from most HGG at ``hospital-1`` to most LGG at the last.

    Raises:
        CaseError: A case's grade is not known, all are of one grade, or there are fewer patients than sites, or fewer
            than two sites.
    """
    _check_filled(rows, "grade")
    for row in rows:
        if row.grade not in GRADES:
            raise CaseError(f"case {row.case}: grade must be {' or '.join(GRADES)} (got {row.grade!r})")
    patients, names = _enough_patients(rows, sites), site_names(sites)
    high = [name for name, cases in patients.items() if any(row.grade == "HGG" for row in cases)]
    low = [name for name in patients if name not in high]
    if not (high and low) or sites < 2:
        raise CaseError(
            f"--strategy grade needs both grades and two sites (got {len(high)} patients with HGG, {len(low)} with "
            f"LGG only, {sites} sites); give --strategy even"
        )
    # The rarer grade is at most half of all: its largest share, twice its mean, is no more than a site holds.
    rare, common, steps = (low, high, range(sites)) if len(low) <= len(high) else (high, low, range(sites)[::-1])
    targets = _shares(names, list(steps), sum(len(patients[name]) for name in rare))
    site_of = _deal(shuffle_names(rare, seed, "site"), patients, targets)
    room = {site: len(rows) / sites - sum(len(patients[p]) for p, s in site_of.items() if s == site) for site in names}
    return _place(site_of | _deal(shuffle_names(common, seed, "site"), patients, room), patients, names)


def _enough_patients(rows: Sequence[CaseRow], sites: int) -> dict[str, list[CaseRow]]:
    patients = group_by_patient(rows)
    if len(patients) < sites:
        raise CaseError(f"{sites} sites need as many patients, there are {len(patients)}; give fewer --sites")
    return patients


def _shares(names: Sequence[str], weights: Sequence[float], cases: int) -> dict[str, float]:
    return {name: cases * weight / sum(weights) for name, weight in zip(names, weights, strict=True)}


def _deal(
    order: Iterable[str], patients: Mapping[str, Sequence[CaseRow]], targets: Mapping[str, float]
) -> dict[str, str]:
    """Patient -> site: each in turn goes to the site that is furthest below its target of cases."""
    site_of: dict[str, str] = {}
    missing = dict(targets)
    for patient in order:
        site = max(missing, key=lambda name: missing[name])  # the first of equals
        missing[site] -= len(patients[patient])
        site_of[patient] = site
    return site_of


def _place(
    site_of: Mapping[str, str], patients: Mapping[str, Sequence[CaseRow]], sites: Iterable[str]
) -> dict[str, list[CaseRow]]:
    """Site -> cases sorted by name, from patient -> site."""
    cases: dict[str, list[CaseRow]] = {site: [] for site in sites}
    for patient, site in site_of.items():
        cases[site] += patients[patient]
    return {site: sorted(rows, key=lambda row: row.case) for site, rows in cases.items()}


def _fill_empty(
    site_of: Mapping[str, str], patients: Mapping[str, Sequence[CaseRow]], sites: Iterable[str]
) -> dict[str, str]:
    """Assignment in which every site has a patient; an empty one takes the last of the site with most patients."""
    filled = dict(site_of)
    for site in sites:
        if site not in filled.values():
            sizes = Counter(filled.values())
            largest = min(sizes, key=lambda name: (-sizes[name], name))
            filled[[patient for patient, at in filled.items() if at == largest][-1]] = site
    return filled


def _check_filled(rows: Iterable[CaseRow], column: str) -> None:
    empty = [row.case for row in rows if getattr(row, column) in ("", None)]
    if empty:
        mend = {
            "institution": ", or give --institutions a table, for BraTS 2020 its name_mapping.csv",
            "grade": ", or import again with the folders HGG and LGG or with name_mapping.csv among the files",
        }.get(column, "")
        raise CaseError(
            f"{len(empty)} cases have no {column} ({shortened(empty)}); fill in that column of the case table{mend}"
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
