"""An error's threshold lies beyond what a sound case reaches once in a thousand times."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.gate_mutations.__main__ import MARGINS_BEGIN, MARGINS_END, PAGE, measure_sound_cases
from tests.gate_mutations.clean_cases import sample_cases
from tests.gate_mutations.margins import HEURISTICS, draw_margins, find_limit, find_margins, measure_case
from tests.shared_data import needs_real_cases


def test_limit_is_that_of_one_more_number():
    # Mean 1, deviation 1, Student's t of 2 degrees of freedom at 0.999 is 22.327: 1 + 22.327 * sqrt(4 / 3).
    assert find_limit([0.0, 1.0, 2.0]) == pytest.approx(26.781, abs=0.001)


def test_institution_that_is_left_out_is_not_asked():
    cases = [("a", {"order": -2.0}), ("a", {"order": -1.0}), ("b", {"order": 9.0}), ("b", {"order": 10.0})]

    margin = find_margins(cases)["order"]

    assert (margin.cases, margin.worst, margin.left_out) == (4, 10.0, "a")
    assert margin.limit == pytest.approx(find_limit([9.0, 10.0]))


def test_sample_cases_stay_below_every_threshold(tmp_path: Path):
    for clean in sample_cases(tmp_path, 1):
        for name, number in measure_case(clean).items():
            assert number < HEURISTICS[name].threshold, name


def test_documented_limits_are_below_the_thresholds_of_the_gate():
    table = PAGE.read_text(encoding="utf-8").split(MARGINS_BEGIN)[1].split(MARGINS_END)[0]
    rows = [[cell.strip() for cell in line.strip("|\n").split("|")] for line in table.splitlines()[2:]]

    assert [row[1] for row in rows] == [heuristic.measures for heuristic in HEURISTICS.values()]
    for row, heuristic in zip(rows, HEURISTICS.values(), strict=True):
        threshold, worst, limit = float(row[2]), float(row[4]), float(row[5])
        assert threshold == pytest.approx(heuristic.threshold, rel=1e-3)
        assert worst < threshold
        assert limit < threshold


@pytest.mark.slow
@needs_real_cases
def test_margins_are_those_of_the_documentation():
    margins = find_margins(measure_sound_cases())

    assert draw_margins(margins) == PAGE.read_text(encoding="utf-8").split(MARGINS_BEGIN)[1].split(MARGINS_END)[0]
    assert all(margin.limit < HEURISTICS[name].threshold for name, margin in margins.items())
