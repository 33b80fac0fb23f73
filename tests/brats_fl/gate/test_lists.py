"""What stands twice: in a list, between splits, between hospitals."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from brats_fl.cases.datalists import Case, DataList
from brats_fl.cases.grids import Grid
from brats_fl.gate.lists import entries_of, find_copies, find_odd_spacings, find_repeats


def make(name: str, patient: str = "") -> Case:
    return Case(name, patient or name, tuple(f"/d/{name}_{k}.nii.gz" for k in range(4)), f"/d/{name}_seg.nii.gz")


def repeats(*datalists: DataList) -> list[tuple[str, str, str, str]]:
    return [(f.rule, f.site, f.case, f.found) for f in find_repeats(entries_of(datalists))]


def test_different_cases_repeat_nothing():
    assert repeats(DataList("a", training=(make("1"), make("2"))), DataList("b", testing=(make("3"),))) == []


def test_two_time_points_of_a_patient_may_be_in_one_split():
    assert repeats(DataList("a", training=(make("1", "p"), make("2", "p")))) == []


def test_case_in_two_splits_is_found_once_and_not_again_as_patient_or_scan():
    assert repeats(DataList("a", training=(make("1"),), testing=(make("1"),))) == [
        ("G11-case-twice", "a", "1", "is also in training")
    ]


def test_case_at_two_hospitals_is_found_at_the_second():
    assert repeats(DataList("a", training=(make("1"),)), DataList("b", training=(make("1"),))) == [
        ("G11-case-twice", "b", "1", "is also in training of a")
    ]


def test_patient_in_two_splits_and_at_two_hospitals_is_found():
    lists = (
        DataList("a", training=(make("1", "p"),), validation=(make("2", "p"),)),
        DataList("b", training=(make("3", "p"),)),
    )

    assert repeats(*lists) == [
        ("G12-patient-twice", "a", "2", "patient p is also in training, as 1"),
        ("G12-patient-twice", "b", "3", "patient p is also in training of a, as 1"),
    ]


def test_file_of_two_cases_is_found_through_a_link(tmp_path: Path):
    real = tmp_path / "scan.nii"
    real.touch()
    (tmp_path / "link.nii").symlink_to(real)
    first = Case("1", "1", (str(real), "/d/a", "/d/b", "/d/c"))
    second = Case("2", "2", ("/d/d", str(tmp_path / "link.nii"), "/d/e", "/d/f"))

    assert repeats(DataList("a", training=(first, second))) == [
        ("G13-scan-twice", "a", "2", "link.nii is also listed for 1")
    ]


def test_volumes_of_a_4d_file_are_scans_of_their_own():
    assert repeats(DataList("a", training=(Case("1", "1", tuple(f"/d/a.nii.gz#{k}" for k in range(4))),))) == []


def test_file_listed_for_two_modalities_is_found():
    assert repeats(DataList("a", training=(Case("1", "1", ("/d/a", "/d/a", "/d/b", "/d/c")),))) == [
        ("G13-scan-twice", "a", "1", "a is also listed for another modality of the case")
    ]


def test_scan_that_shows_the_same_is_found_in_another_case_only():
    entries = entries_of([DataList("a", training=(make("1"),)), DataList("b", training=(make("2"),))])
    looks = {("a", "1"): {"t1c": b"x", "t1n": b"x"}, ("b", "2"): {"t1c": b"y", "t2w": b"x"}}

    assert [(f.site, f.case, f.found) for f in find_copies(entries, looks)] == [
        ("b", "2", "t2w shows the same as scans of 1, in training of a")
    ]


def test_spacing_is_said_once_for_all_cases_that_share_it():
    entries = entries_of([DataList("a", training=(make("1"), make("2"), make("3")))])
    grids = {
        ("a", "1"): Grid((2, 2, 2), np.diag([2.0, 2, 2, 1])),
        ("a", "2"): Grid((2, 2, 2), np.diag([1.0, 1, 1.05, 1])),
        ("a", "3"): Grid((2, 2, 2), np.diag([2.0, 2, 2, 1])),
    }

    assert [(f.case, f.found) for f in find_odd_spacings(entries, grids)] == [
        ("", "2 of 3 cases have voxels of 2 x 2 x 2 mm, such as 1")
    ]
