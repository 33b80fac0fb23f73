"""Which cases are pictured, what is said of them, and how many bytes it may take."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tests.run_folders import Row, write_run, write_scans

from brats_fl.constants import ED, ET, REGIONS
from brats_fl_tools.pages.pictures import FALSE_ALARM, HIT, MISS
from brats_fl_tools.report.case_results import CaseResult
from brats_fl_tools.report.overlays import MOST_CASES, OpenCase, choose_cases, draw_case, draw_overlays
from brats_fl_tools.report.run_folder import read_run


def result(case: str, dice: float = 0.5) -> CaseResult:
    """A test case of one Dice."""
    figures, unit = dict.fromkeys(REGIONS, dice), dict.fromkeys(REGIONS, 1.0)
    return CaseResult(case, "hospital-1", "testing", figures, unit, unit, unit)


def opened(reference: np.ndarray, prediction: np.ndarray) -> OpenCase:
    """A case of voxels of 1 mm by 1 mm by 10 mm, its scans grey."""
    grey = np.full(reference.shape, 0.5, np.float32)
    return OpenCase({"t2f": grey, "t1c": grey}, reference, prediction, (1.0, 1.0, 10.0))


def test_up_to_twelve_cases_all_are_shown_and_of_a_hundred_the_lowest_middle_and_highest() -> None:
    cases = [result(f"case-{place:03}", place / 100) for place in range(100)]

    assert [case.case for _, case in choose_cases(cases[:MOST_CASES])] == [case.case for case in cases[:MOST_CASES]]
    chosen = choose_cases(cases)
    places = [*range(6), 48, 49, 50, 97, 98, 99]
    assert [case.case for _, case in chosen] == [f"case-{place:03}" for place in places]
    assert {role: case.case for role, case in chosen if role} == {
        "Worst": "case-000",
        "Typical": "case-049",  # the lower of the two in the middle
        "Best": "case-099",
    }


@pytest.mark.parametrize("count", [13, 14, 15, 16])
def test_one_case_more_than_can_be_shown_still_shows_twelve_different_ones(count: int) -> None:
    chosen = choose_cases([result(f"case-{place:03}", place / 100) for place in range(count)])

    assert len({case.case for _, case in chosen}) == MOST_CASES
    assert [role for role, _ in chosen if role] == ["Worst", "Typical", "Best"]


def test_volumes_say_how_much_was_hit_missed_and_wrongly_marked() -> None:
    reference, prediction = np.zeros((10, 10, 10), np.uint8), np.zeros((10, 10, 10), np.uint8)
    reference[0:4, 0, 0], reference[4, 0, 0] = ED, ET
    prediction[2:6, 0, 0] = ED  # two voxels of oedema right, one of what enhances called oedema, one of nothing

    agreement_ml = draw_case(opened(reference, prediction), "", result("a")).agreement_ml

    # a voxel has 10 mm3, 0.01 ml
    assert agreement_ml["wt"] == pytest.approx({HIT: 0.03, MISS: 0.02, FALSE_ALARM: 0.01})
    assert agreement_ml["et"] == pytest.approx({HIT: 0.0, MISS: 0.01, FALSE_ALARM: 0.0})


def test_case_is_cut_through_its_largest_error_and_its_largest_tumour() -> None:
    reference, prediction = np.zeros((60, 60, 10), np.uint8), np.zeros((60, 60, 10), np.uint8)
    reference[20:30, 20:30, 3] = prediction[20:30, 20:30, 3] = ED  # found
    prediction[40:45, 40:45, 7] = ET  # not there

    rows = draw_case(opened(reference, prediction), "", result("a")).rows

    assert [row.title for row in rows] == [
        "Largest error: axial slice 8 of 10",
        "Largest tumour: axial slice 4 of 10",
        "Largest error: coronal slice 41 of 60",
        "Largest tumour: coronal slice 21 of 60",
    ]
    assert [panel.title for panel in rows[0].panels] == [
        "FLAIR",
        "FLAIR, whole tumour",
        "T1c, tumour core",
        "T1c, enhancing tumour",
    ]
    assert rows[0].panels[3].alt.endswith("hit 0.0 cm², miss 0.0 cm² and false alarm 0.2 cm²")  # 25 mm2


def test_perfect_case_has_no_slice_of_an_error_and_an_empty_one_has_its_middle() -> None:
    reference = np.zeros((60, 60, 10), np.uint8)
    empty = draw_case(opened(reference, reference), "", result("a")).rows
    reference[20:30, 20:30, 3] = ED
    perfect = draw_case(opened(reference, reference), "", result("a")).rows

    assert [row.title for row in perfect] == [
        "Largest tumour: axial slice 4 of 10",
        "Largest tumour: coronal slice 21 of 60",
    ]
    assert [row.title for row in empty] == ["No tumour: axial slice 6 of 10", "No tumour: coronal slice 31 of 60"]


def test_false_alarm_in_a_case_without_tumour_is_said_to_be_one() -> None:
    reference, prediction = np.zeros((60, 60, 10), np.uint8), np.zeros((60, 60, 10), np.uint8)
    prediction[20:30, 20:30, 3] = ET

    rows = draw_case(opened(reference, prediction), "", result("a")).rows

    assert rows[0].title == "Largest error, no tumour in the reference: axial slice 4 of 10"


def test_pictures_stop_at_their_bytes_and_those_with_a_role_come_first(tmp_path: Path) -> None:
    rows: list[Row] = [
        (f"c{place}", "hospital-1", "testing", (place / 10,) * 3, (1.0, 1.0, 1.0)) for place in range(1, 6)
    ]
    run = write_run(tmp_path / "run", rows=rows, sites_dir=str(tmp_path / "sites"))
    write_scans(tmp_path / "sites", run, rows)
    whole = draw_overlays(read_run(run))
    assert [overlay.result.case for overlay in whole.shown] == ["c1", "c2", "c3", "c4", "c5"]
    assert whole.notes == ()
    of_one = max(overlay.bytes for overlay in whole.shown)

    cut = draw_overlays(read_run(run), most_bytes=3 * of_one)

    assert [overlay.role for overlay in cut.shown] == ["Worst", "Typical", "Best"]
    assert sum(overlay.bytes for overlay in cut.shown) <= 3 * of_one
    assert "Only 3 cases shown: the pictures of one more would pass" in cut.notes[0]
