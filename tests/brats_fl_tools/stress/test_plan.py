"""What is asked for is made; what there is not is told with what there is."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from brats_fl_tools.stress.plan import AS_IT_IS, DEGRADATIONS, Grade, make_plan, severity

REPOSITORY = Path(__file__).parents[3]


def test_plan_is_the_scans_as_they_are_once_and_every_grade_of_every_degradation():
    plan = make_plan()

    assert next(iter(plan)) == AS_IT_IS
    assert len(plan) == 1 + sum(len(one.strengths) for one in DEGRADATIONS.values())
    assert plan[Grade("noise", "0.5")] == 0.5
    assert plan[Grade("missing", "t2f")] == 3


def test_every_degradation_has_three_or_four_grades_within_its_limits_other_than_the_neutral_one():
    for one in DEGRADATIONS.values():
        assert len(one.strengths) in (3, 4)
        assert list(one.strengths) == sorted(set(one.strengths))
        assert all(one.limits[0] <= strength <= one.limits[1] for strength in one.strengths)
        assert one.neutral not in one.strengths


def test_only_some_degradations_are_made_in_the_order_of_the_table():
    assert [grade for grade in make_plan("blur, noise") if grade.grade in ("2", "0.25", "none")] == [
        AS_IT_IS,
        Grade("noise", "0.25"),
        Grade("blur", "2"),
    ]


def test_grades_of_ones_own_take_the_place_of_a_degradations_and_name_what_is_made():
    assert make_plan(grades=["noise=2,0.1"]) == {AS_IT_IS: 0, Grade("noise", "0.1"): 0.1, Grade("noise", "2"): 2}
    assert make_plan(grades=["missing=t2f,t1c"]) == {
        AS_IT_IS: 0,
        Grade("missing", "t1c"): 0,
        Grade("missing", "t2f"): 3,
    }
    assert len(make_plan("noise,blur", ["noise=2"])) == 1 + 1 + len(DEGRADATIONS["blur"].strengths)


@pytest.mark.parametrize(
    ("only", "grades", "message"),
    [
        ("noise,fog", (), r"no degradation 'fog'; there are noise, bias, blur, gamma, shift, resolution, missing"),
        ("", (), "no degradation ''"),
        (None, ["fog=1"], "no degradation 'fog'"),
        (None, ["noise"], "--grades must be NAME=STRENGTH,STRENGTH"),
        (None, ["noise=11"], r"grade of noise must be a number from 0 to 10 \(× the brain's SD\)"),
        (None, ["noise=-1"], "grade of noise must be a number from 0 to 10"),
        (None, ["noise=nan"], "grade of noise must be a number from 0 to 10"),
        (None, ["noise=much"], r"\(got 'much'\)"),
        (None, ["noise="], r"\(got ''\)"),
        (None, ["bias=1"], "other than 1, which changes nothing"),
        (None, ["missing=t1"], r"grade of missing must be one of t1c, t1n, t2w, t2f \(got 't1'\)"),
        ("blur", ["noise=1"], "--only leaves noise out"),
    ],
)
def test_what_there_is_not_is_refused(only: str | None, grades: list[str], message: str):
    with pytest.raises(ValueError, match=message):
        make_plan(only, grades)


def test_severity_is_the_distance_from_a_scan_as_it_is():
    assert severity(DEGRADATIONS["gamma"], 0.7) == pytest.approx(0.3)
    assert severity(DEGRADATIONS["gamma"], 2.0) == 1.0
    assert severity(DEGRADATIONS["missing"], 0) == severity(DEGRADATIONS["missing"], 3)  # none is milder than another


def test_grades_in_the_documentation_are_those_that_are_made():
    text = (REPOSITORY / "docs" / "stress.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \| [^|]* \| [^|]* \| ([^|]*) \|", text, re.MULTILINE)

    assert dict(rows) == {name: ", ".join(map(one.label, one.strengths)) for name, one in DEGRADATIONS.items()}
    assert f"in {sum(len(one.strengths) for one in DEGRADATIONS.values())} degraded ways" in text
