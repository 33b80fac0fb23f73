"""Tables that tell which institution a case comes from."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.case_rows import make_rows

from brats_fl.errors import CaseError
from brats_fl_tools.data.institutions import assign_origins, read_origins


def test_name_mapping_tells_the_newest_institution_by_any_year_of_id(tmp_path: Path) -> None:
    table = tmp_path / "name_mapping.csv"
    table.write_text(
        "Grade,BraTS_2017_subject_ID,BraTS_2018_subject_ID,BraTS_2019_subject_ID,BraTS_2020_subject_ID\n"
        "HGG,Brats17_TCIA_242_1,Brats18_TCIA08_242_1,BraTS19_TCIA08_242_1,BraTS20_Training_254\n"
        "HGG,NA,NA,NA,BraTS20_Training_336\n"
    )

    origins = read_origins(table)

    assert origins["BraTS20_Training_254"].institution == "TCIA08"
    assert origins["Brats17_TCIA_242_1"].institution == "TCIA08"
    assert origins["BraTS20_Training_336"].institution == "unlisted"


def test_fets_table_fits_cases_of_brats_2021(tmp_path: Path) -> None:
    table = tmp_path / "partitioning_1.csv"
    table.write_bytes(b"Partition_ID,Subject_ID\r\n18,FeTS2022_01341\r\n")

    origins = read_origins(table)

    assert origins["BraTS2021_01341"].institution == "fets-18"
    assert origins["FeTS2022_01341"].institution == "fets-18"


def test_table_takes_the_place_of_the_cases_own_institution(tmp_path: Path) -> None:
    table = tmp_path / "table.csv"
    table.write_text('case,hospital,institution,remark\nA-0,hospital-2,"Clinic, north",x\n')

    (row,) = assign_origins(table, make_rows(A=1), read_origins(table))

    assert (row.institution, row.hospital) == ("Clinic, north", "hospital-2")


def test_case_that_the_table_does_not_name_is_refused(tmp_path: Path) -> None:
    table = tmp_path / "table.csv"
    table.write_text("case,institution\nA-0,A\n")

    with pytest.raises(CaseError, match=r"no institution for 1 of 2 cases \(A-1\)"):
        assign_origins(table, make_rows(A=2), read_origins(table))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "must begin with a line of column names"),
        ("subject,site\na,b\n", r"must have the columns case and institution.*got columns \['subject', 'site'"),
        ("case,institution\na,\n", "line 2: case or institution is empty"),
        ("case,institution\na,X\na,Y\n", "line 3: case a has two different lines"),
    ],
)
def test_spoilt_table_is_refused_with_the_line(tmp_path: Path, content: str, message: str) -> None:
    table = tmp_path / "table.csv"
    table.write_text(content)

    with pytest.raises(CaseError, match=message):
        read_origins(table)
