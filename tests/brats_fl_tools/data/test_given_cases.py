"""Cases come from a data list, a case table or a folder of scans, and need no label."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from tests.conftest import TinySites
from tests.tiny_sites import SUFFIXES, write_tiny_case

from brats_fl.cases.datalists import read_datalist
from brats_fl.errors import CaseError, DataListError
from brats_fl_tools.data.case_table import CaseRow, write_case_table
from brats_fl_tools.data.given_cases import describe_strangers, read_given


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for case in ("P_001", "P_002"):
        write_tiny_case(tmp_path / "data", case)
    (tmp_path / "data" / "P_002" / "P_002_seg.nii.gz").unlink()
    return tmp_path / "data"


def test_folder_gives_its_cases_with_a_label_where_there_is_one(folder: Path):
    (given,) = read_given(folder)

    first, second = given.datalist.testing
    assert (given.datalist.site, first.case, second.case) == ("data", "P_001", "P_002")
    assert first.image == tuple(f"{folder}/P_001/P_001_{suffix}.nii.gz" for suffix in SUFFIXES.values())
    assert first.label == f"{folder}/P_001/P_001_seg.nii.gz"
    assert second.label is None
    assert given.beside.parent == folder


def test_case_with_a_scan_missing_is_a_fault_and_not_in_the_list(folder: Path):
    (folder / "P_001" / "P_001_t2.nii.gz").unlink()

    (given,) = read_given(folder)

    assert [case.case for case in given.datalist.testing] == ["P_002"]
    ((case, why),) = given.faults
    assert case == "P_001"
    assert "t2w is missing" in why


def test_label_of_a_layout_that_does_not_tell_its_values_is_left_out_with_the_question(folder: Path):
    for case in ("P_001", "P_002"):
        (folder / case).rename(folder / case.replace("P_", "BraTS-PED-00"))
    for path in list(folder.rglob("*.nii.gz")):
        kind = {"t1ce": "t1c", "t1": "t1n", "t2": "t2w", "flair": "t2f", "seg": "seg"}[path.name[6:-7]]
        path.rename(path.with_name(f"{path.parent.name}-{kind}.nii.gz"))

    (given,) = read_given(folder)

    assert [case.label for case in given.datalist.testing] == [None, None]
    ((case, why),) = given.label_faults
    assert case.startswith("BraTS-PED-00001")
    assert "since 2024" in why
    assert "import the folder with --labels" in why


def test_case_table_gives_its_rows(folder: Path, tmp_path: Path):
    (case, _) = read_given(folder)[0].datalist.testing
    row = CaseRow("P_001", "patient-1", tuple(map(Path, case.image)), None, "brats2023", (40, 48, 40), (2.0, 2.0, 2.0))
    write_case_table(tmp_path / "cases.csv", [row])

    (given,) = read_given(tmp_path / "cases.csv")

    assert given.datalist.testing == (replace(case, patient="patient-1", label=None, labels="brats2023"),)


def test_data_list_and_folder_of_sites_give_their_lists(tiny_sites: TinySites):
    sites = tiny_sites({"hospital-1": (1, 0, 0), "hospital-2": (0, 0, 1)})
    paths = [sites / name / "datalist.json" for name in ("hospital-1", "hospital-2")]

    assert [given.datalist for given in read_given(sites)] == [read_datalist(path) for path in paths]
    assert [given.beside for given in read_given(paths[0])] == paths[:1]


def test_mapping_describes_a_folder_of_another_layout(tmp_path: Path):
    write_tiny_case(tmp_path / "data", "P_001")
    folder = tmp_path / "data" / "P_001"
    for modality, suffix in SUFFIXES.items():
        (folder / f"P_001_{suffix}.nii.gz").rename(folder / f"{modality} of today.nii.gz")
    patterns = {modality: f"{{patient}}/{modality}*.nii.gz" for modality in SUFFIXES}
    (tmp_path / "mapping.json").write_text(json.dumps({**patterns, "labels": "brats2023"}))

    (given,) = read_given(tmp_path / "data", tmp_path / "mapping.json")

    assert [(case.case, case.label, case.labels) for case in given.datalist.testing] == [("P_001", None, "brats2023")]
    with pytest.raises(CaseError, match="is no folder; --mapping describes the folders of one"):
        read_given(tmp_path / "mapping.json", tmp_path / "mapping.json")


def test_place_that_is_not_there_is_refused(tmp_path: Path):
    with pytest.raises(DataListError, match="no such file or folder; give a data list, a case table or a folder"):
        read_given(tmp_path / "none")


def test_folder_without_a_case_says_what_is_there(tmp_path: Path):
    (tmp_path / "brain.nii.gz").touch()

    with pytest.raises(DataListError, match=r"and no case; 1 NIfTI files have other names, such as .*brain\.nii\.gz"):
        read_given(tmp_path)


def test_files_that_belong_to_no_case_are_named_beside_the_cases(folder: Path):
    for file in list((folder / "P_002").iterdir()):
        file.rename(file.with_name(file.name.replace("P_002_", "T1-weighted\n")))

    (given,) = read_given(folder)

    assert [case.case for case in given.datalist.testing] == ["P_001"]
    told = describe_strangers(given.strangers)
    assert told.startswith("warning: 4 NIfTI files belong to no case: ")
    assert told.isprintable()


def test_scan_in_place_of_the_folder_of_its_case_is_told_as_that(folder: Path):
    scan = folder / "P_001" / "P_001_t1.nii.gz"

    with pytest.raises(DataListError, match=r"P_001_t1\.nii\.gz: is one scan; give the folder that holds the four"):
        read_given(scan)
