"""Which site a case goes to, with numbers that can be redone by hand."""

from __future__ import annotations

import pytest
from tests.case_rows import make_row, make_rows

from brats_fl.errors import CaseError, SiteNameError
from brats_fl_tools.data.case_table import CaseRow
from brats_fl_tools.partition.strategies import (
    assign_by_grade,
    assign_by_hospital,
    assign_by_institution,
    assign_by_size,
    assign_by_volume,
    assign_evenly,
    shuffle_names,
    volume_classes,
)


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
    with pytest.raises(SiteNameError, match=r"column hospital of the case table: FLARE does not bear .* '\.\./x'"):
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


@pytest.mark.parametrize(
    ("cases", "exponent", "sizes"),
    [
        (10, 1.0, [5, 3, 2]),  # shares of 6/11, 3/11 and 2/11: 5.45, 2.73 and 1.82
        (12, 0.0, [4, 4, 4]),
        (14, 2.0, [10, 3, 1]),  # 36/49, 9/49 and 4/49: 10.29, 2.57 and 1.14
    ],
)
def test_sizes_follow_a_power_law(cases: int, exponent: float, sizes: list[int]) -> None:
    assert site_sizes(assign_by_size(make_rows(A=cases), sites=3, seed=0, exponent=exponent)) == sizes


def test_site_too_small_for_a_case_gets_one_from_the_largest() -> None:
    # Shares of 4.3, .07 and .00 of 5 cases, that is 5, 0 and 0 before the two empty sites take one each.
    assert site_sizes(assign_by_size(make_rows(A=5), sites=3, seed=0, exponent=6.0)) == [3, 1, 1]


def test_patients_are_classed_by_their_largest_tumour() -> None:
    volumes = {"a": (5.0,), "b": (1.0, 30.0), "c": (10.0,), "d": (20.0,)}
    patients = {name: [make_row(f"{name}{ml}", tumour_ml=ml) for ml in mls] for name, mls in volumes.items()}

    assert volume_classes(patients, 2) == [["a", "c"], ["d", "b"]]


def test_large_alpha_gives_alike_sites_and_small_alpha_gives_each_class_to_few() -> None:
    rows = [make_row(f"case-{n}", tumour_ml=float(n)) for n in range(100)]

    alike, apart = (assign_by_volume(rows, sites=5, seed=0, alpha=alpha) for alpha in (1e6, 0.01))

    # Five classes of 20 cases, dealt in five equal shares each.
    assert site_sizes(alike) == [20] * 5
    smallest = [sum((row.tumour_ml or 0) < 20 for row in cases) for cases in alike.values()]
    assert smallest == [4] * 5
    assert max(sum((row.tumour_ml or 0) < 20 for row in cases) for cases in apart.values()) >= 19
    assert min(site_sizes(apart)) >= 1


def test_case_without_a_tumour_volume_is_refused() -> None:
    with pytest.raises(CaseError, match=r"1 cases have no tumour_ml \(a\)"):
        assign_by_volume([make_row("a", tumour_ml=None)], sites=1, seed=0, alpha=1.0)


def grade_rows(high: int, low: int) -> list[CaseRow]:
    return [make_row(f"{g}-{n}", grade=g) for g, size in (("HGG", high), ("LGG", low)) for n in range(size)]


@pytest.mark.parametrize(
    ("high", "low", "expected"),
    [
        (24, 6, [0, 2, 4]),  # six low grades in shares of 0, 1/3 and 2/3
        (6, 24, [6, 8, 10]),  # six high grades in shares of 2/3, 1/3 and 0; low grades fill up to ten
    ],
)
def test_low_grades_rise_from_the_first_site_to_the_last_at_equal_sizes(
    high: int, low: int, expected: list[int]
) -> None:
    assigned = assign_by_grade(grade_rows(high, low), sites=3, seed=0)

    assert site_sizes(assigned) == [10, 10, 10]
    assert [sum(row.grade == "LGG" for row in cases) for cases in assigned.values()] == expected


@pytest.mark.parametrize(
    ("rows", "sites", "message"),
    [
        ([make_row("a"), make_row("b", grade="HGG")], 2, r"1 cases have no grade \(a\); fill in .* HGG and LGG"),
        ([make_row("a", grade="WHO 4")], 2, r"case a: grade must be HGG or LGG \(got 'WHO 4'\)"),
        (grade_rows(4, 0), 2, "needs both grades and two sites .*got 4 patients with HGG, 0 with LGG only, 2 sites"),
        (grade_rows(4, 4), 1, "needs both grades and two sites"),
    ],
)
def test_grades_that_do_not_suffice_are_refused(rows: list[CaseRow], sites: int, message: str) -> None:
    with pytest.raises(CaseError, match=message):
        assign_by_grade(rows, sites, seed=0)


def test_another_seed_gives_other_sites() -> None:
    rows = make_rows(A=20)

    assert assign_evenly(rows, 5, seed=0) == assign_evenly(rows, 5, seed=0)
    assert assign_evenly(rows, 5, seed=0) != assign_evenly(rows, 5, seed=1)


def test_one_name_more_leaves_the_order_of_the_others() -> None:
    names = [f"case-{number}" for number in range(20)]

    longer = shuffle_names([*names, "new"], seed=0, purpose="split")

    assert [name for name in longer if name != "new"] == shuffle_names(names, seed=0, purpose="split")
