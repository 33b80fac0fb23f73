"""Training, validation and testing within a site: patients whole, by a seed, no case in two places."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from brats_fl.cases.datalists import Case, DataList, check_unique
from brats_fl.constants import SPLITS
from brats_fl.errors import DataListError
from brats_fl_tools.data.case_table import CaseRow
from brats_fl_tools.partition.strategies import group_by_patient, shuffle_names, volume_classes

SPLIT_RULE = (
    "Within a site, patients are shuffled by the seed and then drawn so that every stretch of the order holds the "
    "strata in their proportions: the i-th of a stratum's n patients stands at (i - 1/2) / n. The first are for "
    "testing, the next for validation, the rest for training. Each share is rounded to whole patients, at least "
    "one unless it is 0; while none is left for training, the larger of validation and testing gives one up, "
    "validation where they are equal. Thus three patients or more give at least one to each; two give one to "
    "training and one to testing; one is for training."
)
"""What a partition says of its splits."""

VOLUME_STRATA = 3


@dataclass(frozen=True)
class Strata:
    """What testing and validation are to hold in the proportions of the whole."""

    by: str
    """``grade``, ``tumour volume`` or ``nothing``."""
    of_patient: Mapping[str, str]


def choose_strata(rows: Iterable[CaseRow]) -> Strata:
    """Strata of all patients: by grade where all are known, else by thirds of tumour volume where the table has it."""
    patients = group_by_patient(rows)
    if all(row.grade for cases in patients.values() for row in cases):
        # A patient whose time points differ is of the higher grade, which comes first by name.
        return Strata("grade", {name: min(row.grade for row in cases) for name, cases in patients.items()})
    if all(row.tumour_ml is not None for cases in patients.values() for row in cases):
        classes = volume_classes(patients, VOLUME_STRATA)
        return Strata("tumour volume", {name: f"third {k}" for k, names in enumerate(classes, 1) for name in names})
    return Strata("nothing", dict.fromkeys(patients, ""))


def split_site(
    site: str, cases: Iterable[CaseRow], validation: float, test: float, seed: int, strata: Mapping[str, str]
) -> DataList:
    """Data list of a site, its patients dealt to the splits by ``SPLIT_RULE``."""
    patients = group_by_patient(cases)
    order = spread_strata(shuffle_names(patients, seed, "split"), strata)
    for_validation, for_test = split_sizes(len(order), validation, test)
    parts = {
        "testing": order[:for_test],
        "validation": order[for_test : for_test + for_validation],
        "training": order[for_test + for_validation :],
    }
    return DataList(
        site=site,
        **{
            split: tuple(as_case(row) for patient in sorted(parts[split]) for row in patients[patient])
            for split in SPLITS
        },
    )


def spread_strata(order: Sequence[str], strata: Mapping[str, str]) -> list[str]:
    """Patients in an order of which every stretch holds the strata in their proportions; equals stay as they were."""
    members: dict[str, list[str]] = defaultdict(list)
    for patient in order:
        members[strata[patient]].append(patient)
    place = {name: (i + 0.5) / len(names) for names in members.values() for i, name in enumerate(names)}
    return sorted(order, key=lambda name: place[name])


def split_sizes(patients: int, validation: float, test: float) -> tuple[int, int]:
    """How many of a site's patients are for validation and for testing, by ``SPLIT_RULE``.

    Args:
        patients: Number of the site's patients.
        validation: Share for validation; 0 means none.
        test: Share for testing; 0 means none.
    """
    # Half a patient counts as one; round() would take halves to the even number.
    for_validation = max(1, int(patients * validation + 0.5)) if validation > 0 else 0
    for_test = max(1, int(patients * test + 0.5)) if test > 0 else 0
    while for_validation + for_test > max(patients - 1, 0):
        if for_validation >= for_test:
            for_validation -= 1
        else:
            for_test -= 1
    return for_validation, for_test


def as_case(row: CaseRow) -> Case:
    """A row as an entry of a data list."""
    return Case(
        case=row.case,
        patient=row.patient,
        image=tuple(str(file) for file in row.image),
        label=None if row.label is None else str(row.label),
        labels=row.labels,
    )


def check_disjoint(datalists: Iterable[DataList]) -> None:
    """Raise ``DataListError`` where a case or a patient is in two places, of one site or of two."""
    site_of: dict[str, str] = {}
    for datalist in datalists:
        check_unique(Path(datalist.site), datalist)
        for case in (case for split in SPLITS for case in datalist.split(split)):
            for name in (f"case {case.case}", f"patient {case.patient}"):
                if site_of.setdefault(name, datalist.site) != datalist.site:
                    raise DataListError(f"{name} is at {site_of[name]} and at {datalist.site}; keep one of them")
