"""Which site a case goes to, with numbers that can be redone by hand."""

from __future__ import annotations

from pathlib import Path

import pytest

from brats_fl.constants import MODALITIES
from brats_fl.errors import CaseError
from brats_fl_tools.case_table import CaseRow
from brats_fl_tools.site_strategies import (
    assign_by_hospital,
    assign_by_institution,
    assign_evenly,
    shuffle_names,
)


def make_row(case: str, institution: str = "", patient: str = "", hospital: str = "", label: bool = True) -> CaseRow:
    folder = Path("/scans", case)
    return CaseRow(
        case=case,
        patient=patient or case,
        image=tuple(folder / f"{modality}.nii" for modality in MODALITIES),
        label=folder / "seg.nii" if label else None,
        labels="brats2018-2021",
        shape=(4, 5, 6),
        spacing_mm=(1.0, 1.0, 1.0),
        institution=institution,
        hospital=hospital,
    )


def make_rows(**sizes: int) -> list[CaseRow]:
    """``A=2`` gives the cases A-0 and A-1 of institution A."""
    return [make_row(f"{name}-{number}", name) for name, size in sizes.items() for number in range(size)]


def site_sizes(assigned: dict[str, list[CaseRow]]) -> list[int]:
    return [len(cases) for cases in assigned.values()]


def institutions_of(assigned: dict[str, list[CaseRow]]) -> dict[str, set[str]]:
    return {site: {row.institution for row in cases} for site, cases in assigned.items()}


def test_small_institutions_go_one_by_one_to_the_site_with_the_fewest_cases() -> None:
    rows = make_rows(A=9, B=6, C=4, D=3, E=1)

    # A, B and C have a site each with 9, 6 and 4 cases; D goes to the 4, making 7; E goes to the 6, making 7.
    assigned = assign_by_institution(rows, sites=3)

    assert institutions_of(assigned) == {
        "hospital-1": {"A"},
        "hospital-2": {"B", "E"},
        "hospital-3": {"C", "D"},
    }
    assert site_sizes(assigned) == [9, 7, 7]


def test_institutions_of_equal_size_are_taken_by_name() -> None:
    assigned = assign_by_institution(make_rows(Z=2, A=2), sites=2)

    assert institutions_of(assigned) == {"hospital-1": {"A"}, "hospital-2": {"Z"}}


def test_fewer_institutions_than_sites_are_refused_with_the_mend() -> None:
    with pytest.raises(CaseError, match=r"the cases have 2 \(A, B\); give --sites 2, or --strategy even"):
        assign_by_institution(make_rows(A=3, B=3), sites=5)


def test_case_without_institution_is_refused_by_name() -> None:
    rows = [*make_rows(A=2), make_row("orphan")]

    with pytest.raises(CaseError, match=r"1 cases have no institution \(orphan\)"):
        assign_by_institution(rows, sites=1)


def test_patient_at_two_sites_is_refused() -> None:
    rows = [make_row("first", "A", patient="p"), make_row("second", "B", patient="p")]

    with pytest.raises(CaseError, match="patient p has cases at hospital-1 and hospital-2"):
        assign_by_institution(rows, sites=2)


def test_sites_take_the_names_of_the_hospital_column() -> None:
    rows = [make_row("a", hospital="north"), make_row("b", hospital="south"), make_row("c", hospital="north")]

    assigned = assign_by_hospital(rows)

    assert {site: [row.case for row in cases] for site, cases in assigned.items()} == {
        "north": ["a", "c"],
        "south": ["b"],
    }


def test_hospital_that_cannot_name_a_folder_is_refused() -> None:
    with pytest.raises(CaseError, match=r"hospital '\.\./x' cannot name a site"):
        assign_by_hospital([make_row("a", hospital="../x")])


def test_number_of_sites_other_than_the_hospitals_is_refused() -> None:
    with pytest.raises(CaseError, match="names 1 sites, --sites asks for 2"):
        assign_by_hospital([make_row("a", hospital="north")], sites=2)


def test_even_sites_differ_by_one_case_at_most() -> None:
    assert site_sizes(assign_evenly(make_rows(A=10, B=3), sites=5, seed=0)) == [3, 3, 3, 2, 2]


def test_even_sites_keep_a_patients_time_points_together() -> None:
    rows = [make_row(f"p{patient}-{time}", patient=f"p{patient}") for patient in range(6) for time in range(2)]

    assigned = assign_evenly(rows, sites=3, seed=0)

    assert site_sizes(assigned) == [4, 4, 4]
    assert [len({row.patient for row in cases}) for cases in assigned.values()] == [2, 2, 2]


def test_fewer_patients_than_sites_are_refused() -> None:
    with pytest.raises(CaseError, match="5 sites need as many patients, there are 3"):
        assign_evenly(make_rows(A=3), sites=5, seed=0)


def test_another_seed_gives_other_sites() -> None:
    rows = make_rows(A=20)

    assert assign_evenly(rows, 5, seed=0) == assign_evenly(rows, 5, seed=0)
    assert assign_evenly(rows, 5, seed=0) != assign_evenly(rows, 5, seed=1)


def test_one_name_more_leaves_the_order_of_the_others() -> None:
    names = [f"case-{number}" for number in range(20)]

    longer = shuffle_names([*names, "new"], seed=0, purpose="split")

    assert [name for name in longer if name != "new"] == shuffle_names(names, seed=0, purpose="split")
