"""``brats-fl import`` on downloads made by hand: what it finds, and what it says of what it refuses."""

from __future__ import annotations

import csv
import gzip
import re
from functools import cache
from pathlib import Path

import nibabel
import numpy as np
import pytest
import typer
from tests.shared_data import REAL_CASES, needs_real_cases
from typer.testing import CliRunner, Result

from brats_fl.errors import CaseError
from brats_fl_tools.data.case_table import read_case_table
from brats_fl_tools.data.import_cases import import_, import_cases

SUFFIXES = ("t1", "t1ce", "t2", "flair", "seg")

app = typer.Typer()
app.command()(import_)


@cache
def nifti(shape: tuple[int, ...] = (4, 5, 6), spacing_mm: float = 1.0, values: tuple[float, ...] = ()) -> bytes:
    """A NIfTI file of zeros, but for the values, which are its first voxels."""
    affine = np.diag([-spacing_mm, -spacing_mm, spacing_mm, 1.0])
    voxels = np.zeros(shape, np.int16 if all(value == int(value) for value in values) else np.float32)
    voxels.flat[: len(values)] = values
    return bytes(nibabel.Nifti1Image(voxels, affine).to_bytes())


def write_scan(file: Path, content: bytes = b"") -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    content = content or nifti()
    file.write_bytes(gzip.compress(content, 1) if file.suffix == ".gz" else content)
    return file


def write_case(
    folder: Path, ending: str = ".nii", without: tuple[str, ...] = (), values: tuple[float, ...] = (1, 2, 4)
) -> Path:
    for suffix in SUFFIXES:
        if suffix not in without:
            write_scan(folder / f"{folder.name}_{suffix}{ending}", nifti(values=values if suffix == "seg" else ()))
    return folder


def write_case_2023(folder: Path, values: tuple[float, ...] = (1, 2, 3)) -> Path:
    for suffix in ("t1n", "t1c", "t2w", "t2f", "seg"):
        write_scan(folder / f"{folder.name}-{suffix}.nii.gz", nifti(values=values if suffix == "seg" else ()))
    return folder


def run_import(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def records(table: Path) -> list[dict[str, str]]:
    with table.open(newline="") as file:
        return list(csv.DictReader(file))


def only_fault(data_dir: Path) -> str:
    survey = import_cases(data_dir)
    assert len(survey.faults) == 1
    return str(survey.faults[0])


def test_files_are_put_into_the_columns_of_their_modalities(tmp_path: Path) -> None:
    write_case(tmp_path / "data" / "BraTS2021_00000", ".nii.gz")

    result = run_import(tmp_path / "data", "--out", tmp_path / "cases.csv")

    assert result.exit_code == 0
    assert records(tmp_path / "cases.csv") == [
        {
            "case": "BraTS2021_00000",
            "patient": "BraTS2021_00000",
            "time_point": "",
            "institution": "",
            "grade": "",
            "labels": "brats2018-2021",
            "t1c": "data/BraTS2021_00000/BraTS2021_00000_t1ce.nii.gz",
            "t1n": "data/BraTS2021_00000/BraTS2021_00000_t1.nii.gz",
            "t2w": "data/BraTS2021_00000/BraTS2021_00000_t2.nii.gz",
            "t2f": "data/BraTS2021_00000/BraTS2021_00000_flair.nii.gz",
            "seg": "data/BraTS2021_00000/BraTS2021_00000_seg.nii.gz",
            "tumour_ml": "0.003",
            "shape": "4x5x6",
            "spacing_mm": "1x1x1",
        }
    ]


def test_name_and_folder_tell_institution_patient_and_grade(tmp_path: Path) -> None:
    write_case(tmp_path / "HGG" / "Brats18_TCIA01_201_1")
    write_case(tmp_path / "HGG" / "Brats18_TCIA01_201_2")
    write_case(tmp_path / "deeper" / "LGG" / "BraTS19_2013_0_1")

    rows = import_cases(tmp_path).rows

    assert [(row.case, row.institution, row.patient, row.time_point, row.grade) for row in rows] == [
        ("BraTS19_2013_0_1", "2013", "BraTS19_2013_0", "1", "LGG"),
        ("Brats18_TCIA01_201_1", "TCIA01", "Brats18_TCIA01_201", "1", "HGG"),
        ("Brats18_TCIA01_201_2", "TCIA01", "Brats18_TCIA01_201", "2", "HGG"),
    ]


def test_case_of_2023_has_its_own_names_convention_patient_and_time_point(tmp_path: Path) -> None:
    folder = write_case_2023(tmp_path / "BraTS-GLI-00005-001").resolve()

    (row,) = import_cases(tmp_path).rows

    assert (row.patient, row.time_point, row.labels) == ("BraTS-GLI-00005", "001", "brats2023")
    assert row.image == tuple(folder / f"BraTS-GLI-00005-001-{name}.nii.gz" for name in ("t1c", "t1n", "t2w", "t2f"))
    assert row.tumour_ml == 0.003  # three voxels of 1 mm


def test_natural_partitioning_beside_cases_of_fets_tells_the_institution(tmp_path: Path) -> None:
    write_case(tmp_path / "FeTS21_Training_001", ".nii.gz")
    (tmp_path / "partitioning_1.csv").write_text("Partition_ID,Subject_ID\n7,FeTS21_Training_001\n")
    (tmp_path / "partitioning_2.csv").write_text("Partition_ID,Subject_ID\n19,FeTS21_Training_001\n")

    (row,) = import_cases(tmp_path).rows

    assert (row.institution, row.labels) == ("fets-7", "brats2018-2021")


def test_name_mapping_beside_the_cases_tells_institution_and_grade(tmp_path: Path) -> None:
    write_case(tmp_path / "training" / "BraTS20_Training_001")
    (tmp_path / "training" / "name_mapping.csv").write_text(
        "Grade,BraTS_2017_subject_ID,BraTS_2018_subject_ID,BraTS_2019_subject_ID,BraTS_2020_subject_ID\n"
        "LGG,Brats17_TCIA_242_1,Brats18_TCIA08_242_1,NA,BraTS20_Training_001\n"
    )

    (row,) = import_cases(tmp_path).rows

    assert (row.institution, row.grade) == ("TCIA08", "LGG")


def test_label_of_case_355_is_found_under_its_odd_name(tmp_path: Path) -> None:
    case = write_case(tmp_path / "BraTS20_Training_355", without=("seg",))
    odd = write_scan(case / "W39_1998.09.19_Segm.nii")

    (row,) = import_cases(tmp_path).rows

    assert row.label == odd.resolve()


def test_odd_label_beside_a_regular_one_is_ambiguous(tmp_path: Path) -> None:
    case = write_case(tmp_path / "BraTS20_Training_355")
    write_scan(case / "W39_1998.09.19_Segm.nii")

    assert "seg has 2 candidates" in only_fault(tmp_path)


def test_case_without_label_is_kept_with_an_empty_seg(tmp_path: Path) -> None:
    write_case(tmp_path / "BraTS20_Validation_001", without=("seg",))

    (row,) = import_cases(tmp_path).rows

    assert row.label is None


def test_label_under_an_unknown_name_is_a_fault_and_not_an_unlabelled_case(tmp_path: Path) -> None:
    case = write_case(tmp_path / "BraTS20_Training_007", without=("seg",))
    write_scan(case / "corrected_mask.nii")

    assert "no label is named BraTS20_Training_007_seg, but" in only_fault(tmp_path)


def test_nii_beside_nii_gz_of_one_modality_is_ambiguous(tmp_path: Path) -> None:
    case = write_case(tmp_path / "BraTS20_Training_001")
    write_scan(case / "BraTS20_Training_001_t2.nii.gz")

    fault = only_fault(tmp_path)

    assert "t2w has 2 candidates, BraTS20_Training_001_t2.nii and BraTS20_Training_001_t2.nii.gz" in fault


def test_one_case_in_two_folders_is_a_fault_that_names_both(tmp_path: Path) -> None:
    write_case(tmp_path / "a" / "BraTS20_Training_001")
    write_case(tmp_path / "b" / "BraTS20_Training_001")

    fault = only_fault(tmp_path)

    assert "is there 2 times" in fault
    assert str(tmp_path / "a") in fault
    assert str(tmp_path / "b") in fault


def test_file_of_another_case_in_the_folder_is_a_fault(tmp_path: Path) -> None:
    case = write_case(tmp_path / "BraTS20_Training_001", without=("flair",))
    write_scan(case / "BraTS20_Training_002_flair.nii")

    assert "BraTS20_Training_002_flair.nii is not named after its folder" in only_fault(tmp_path)


def test_shape_other_than_the_others_is_a_fault_with_both_shapes(tmp_path: Path) -> None:
    case = write_case(tmp_path / "BraTS20_Training_001")
    write_scan(case / "BraTS20_Training_001_t2.nii", nifti((4, 5, 7)))

    assert "t2w: shape 4 x 5 x 7, t1c has 4 x 5 x 6 (" in only_fault(tmp_path)


def test_affine_other_than_the_others_is_a_fault(tmp_path: Path) -> None:
    case = write_case(tmp_path / "BraTS20_Training_001")
    write_scan(case / "BraTS20_Training_001_seg.nii", nifti(spacing_mm=1.5))

    assert "seg: spacing 1.5 x 1.5 x 1.5 mm, t1c has 1 x 1 x 1 mm (" in only_fault(tmp_path)


def test_four_dimensional_scan_is_a_fault(tmp_path: Path) -> None:
    case = write_case(tmp_path / "BraTS20_Training_001")
    write_scan(case / "BraTS20_Training_001_t2.nii", nifti((4, 5, 6, 2)))

    assert "BraTS20_Training_001_t2.nii has shape (4, 5, 6, 2), and no volume of it is named" in only_fault(tmp_path)


@pytest.mark.parametrize("content", [b"", b"no scan at all", nifti()[:200]])
def test_unreadable_file_is_a_fault_that_names_it(tmp_path: Path, content: bytes) -> None:
    case = write_case(tmp_path / "BraTS20_Training_001")
    (case / "BraTS20_Training_001_t2.nii").write_bytes(content)

    assert "BraTS20_Training_001_t2.nii cannot be read as NIfTI" in only_fault(tmp_path)


def test_nii_gz_with_a_damaged_stream_is_a_fault_that_names_it(tmp_path: Path) -> None:
    case = write_case(tmp_path / "BraTS20_Training_001", ".nii.gz")
    # Ten bytes of gzip header, then a block of the type that deflate reserves.
    damaged = gzip.compress(nifti())[:10] + b"\xff" * 100
    (case / "BraTS20_Training_001_t2.nii.gz").write_bytes(damaged)

    assert "BraTS20_Training_001_t2.nii.gz cannot be read as NIfTI" in only_fault(tmp_path)


def test_nii_that_is_cut_short_is_a_fault_with_both_sizes(tmp_path: Path) -> None:
    case = write_case(tmp_path / "BraTS20_Training_001")
    write_scan(case / "BraTS20_Training_001_t2.nii", nifti()[:-1])

    # 352 bytes of header and 4 * 5 * 6 voxels of 2 bytes.
    assert "is cut short: it holds 591 of 592 bytes" in only_fault(tmp_path)


def test_label_whose_end_is_missing_is_a_fault(tmp_path: Path) -> None:
    case = write_case(tmp_path / "BraTS20_Training_001", ".nii.gz")
    for suffix in SUFFIXES:
        write_scan(case / f"BraTS20_Training_001_{suffix}.nii.gz", nifti((50, 50, 50)))
    noise = np.random.default_rng(0).integers(0, 3, (50, 50, 50), np.int16)
    label = gzip.compress(nifti((50, 50, 50))[:352] + noise.tobytes())
    (case / "BraTS20_Training_001_seg.nii.gz").write_bytes(label[: len(label) // 2])

    # Its header is whole. Voxels of 2 bytes, packed evenly: about half of the 250,352 can still be read.
    found = re.search(r"BraTS20_Training_001_seg.nii.gz is cut short: it holds (\d+) of 250352", only_fault(tmp_path))
    assert found is not None
    assert 100_000 < int(found[1]) < 150_000


def test_fraction_in_a_label_is_a_fault(tmp_path: Path) -> None:
    write_case(tmp_path / "BraTS20_Training_001", values=(1, 1.5))

    assert "holds 1.5 in 1 voxel; a label's values are whole numbers" in only_fault(tmp_path)


def test_label_of_floats_that_are_whole_but_for_rounding_is_read(tmp_path: Path) -> None:
    write_case(tmp_path / "BraTS20_Training_001", values=(1.0004, 3.9992, 2, 0.0003))

    survey = import_cases(tmp_path)

    assert survey.label_values == {"brats2018-2021": (1, 2, 4)}
    assert survey.rows[0].tumour_ml == 0.003  # of the four voxels one is 0


def test_label_3_in_a_layout_before_2023_is_a_fault_that_names_the_conventions_it_fits(tmp_path: Path) -> None:
    write_case(tmp_path / "BraTS20_Training_001", values=(1, 3))

    assert (
        "BraTS20_Training_001_seg.nii holds the label value 3, brats2018-2021 has 0, 1, 2, 4 only; "
        "if all labels follow brats2023 or msd-task01, say so with --labels or in the mapping; else mend the label"
    ) in only_fault(tmp_path)


def test_label_4_in_the_layout_of_2023_is_a_fault_that_may_be_a_cavity(tmp_path: Path) -> None:
    write_case_2023(tmp_path / "BraTS-GLI-00005-001", values=(1, 2, 3, 4))

    fault = only_fault(tmp_path)

    assert "holds the label value 4, brats2023 has 0, 1, 2, 3 only; no convention has it" in fault
    assert "may be a resection cavity" in fault


def test_convention_that_the_user_gives_counts_and_is_stated(tmp_path: Path) -> None:
    write_case(tmp_path / "data" / "BraTS20_Training_001", values=(1, 3))

    result = run_import(tmp_path / "data", "--out", tmp_path / "cases.csv", "--labels", "brats2023")

    assert result.exit_code == 0
    assert records(tmp_path / "cases.csv")[0]["labels"] == "brats2023"
    assert result.stdout.endswith("label convention brats2023: 1 cases, label values found: 1, 3\n")


def test_convention_that_the_labels_do_not_bear_out_is_refused(tmp_path: Path) -> None:
    write_case(tmp_path / "data" / "BraTS20_Training_001")

    result = run_import(tmp_path / "data", "--out", tmp_path / "cases.csv", "--labels", "brats2023")

    assert "holds the label value 4, brats2023 has 0, 1, 2, 3 only" in str(result.exception)


def test_two_conventions_in_one_table_are_asked_about(tmp_path: Path) -> None:
    write_case(tmp_path / "data" / "BraTS20_Training_001")
    write_case_2023(tmp_path / "data" / "BraTS-GLI-00005-001")
    table = tmp_path / "cases.csv"

    refused = run_import(tmp_path / "data", "--out", table)

    assert str(refused.exception).splitlines()[1:] == [
        "brats2018-2021: BraTS20_Training_001",
        "brats2023: BraTS-GLI-00005-001",
    ]
    assert "give --allow-mixed-labels" in str(refused.exception)
    assert not table.exists()
    assert run_import(tmp_path / "data", "--out", table, "--allow-mixed-labels").exit_code == 0
    assert [record["labels"] for record in records(table)] == ["brats2023", "brats2018-2021"]


def test_folder_with_files_of_two_layouts_is_a_fault(tmp_path: Path) -> None:
    case = write_case(tmp_path / "BraTS20_Training_001")
    write_scan(case / "BraTS20_Training_001-t1c.nii.gz")

    assert "the folder holds files of two layouts, BraTS20_Training_001_flair.nii and" in only_fault(tmp_path)


def test_unknown_convention_is_wrong_usage(tmp_path: Path) -> None:
    assert run_import(tmp_path, "--out", tmp_path / "cases.csv", "--labels", "brats1999").exit_code == 2


def test_every_faulty_case_is_listed_and_nothing_is_written(tmp_path: Path) -> None:
    write_case(tmp_path / "data" / "BraTS20_Training_001")
    write_case(tmp_path / "data" / "BraTS20_Training_002", without=("t1", "t2"))
    write_case(tmp_path / "data" / "BraTS20_Training_003", without=("flair",))

    result = run_import(tmp_path / "data", "--out", tmp_path / "cases.csv")

    assert isinstance(result.exception, CaseError)
    assert str(result.exception).splitlines() == [
        "2 of 3 cases are faulty, nothing was written; mend them, or leave them out with --skip-faulty",
        *(
            f"BraTS20_Training_{number}: {modality} is missing; BraTS20_Training_{number}_{older}.nii or "
            f".nii.gz must be in {tmp_path / 'data' / f'BraTS20_Training_{number}'}"
            for number, modality, older in (
                ("002", "t1n", "t1"),
                ("002", "t2w", "t2"),
                ("003", "t2f", "flair"),
            )
        ),
    ]
    assert not (tmp_path / "cases.csv").exists()


def test_skip_faulty_writes_the_sound_cases_and_names_the_others(tmp_path: Path) -> None:
    write_case(tmp_path / "data" / "BraTS20_Training_001")
    write_case(tmp_path / "data" / "BraTS20_Training_002", without=("t1",))

    result = run_import(tmp_path / "data", "--out", tmp_path / "cases.csv", "--skip-faulty")

    assert result.exit_code == 0
    assert "1 of 2 cases are faulty and left out" in result.stderr
    assert "BraTS20_Training_002: t1n is missing" in result.stderr
    assert [record["case"] for record in records(tmp_path / "cases.csv")] == ["BraTS20_Training_001"]


def test_skip_faulty_does_not_write_an_empty_table(tmp_path: Path) -> None:
    write_case(tmp_path / "data" / "BraTS20_Training_002", without=("t1",))

    result = run_import(tmp_path / "data", "--out", tmp_path / "cases.csv", "--skip-faulty")

    assert isinstance(result.exception, CaseError)
    assert not (tmp_path / "cases.csv").exists()


def test_folder_without_cases_is_refused_with_the_layout_and_a_file_that_was_seen(tmp_path: Path) -> None:
    write_scan(tmp_path / "p1" / "post_contrast.nii.gz")

    with pytest.raises(CaseError, match=r"1 NIfTI files .*post_contrast\.nii\.gz\. Looked for: BraTS 2018 to 2021"):
        import_cases(tmp_path)


def test_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CaseError, match="no such folder"):
        import_cases(tmp_path / "absent")


def test_shadow_files_of_a_mac_archive_are_passed_over(tmp_path: Path) -> None:
    case = write_case(tmp_path / "BraTS20_Training_001")
    (case / "._BraTS20_Training_001_t1.nii").write_bytes(b"shadow")
    write_scan(tmp_path / "__MACOSX" / "BraTS20_Training_001" / "BraTS20_Training_001_t1.nii", b"shadow")

    survey = import_cases(tmp_path)

    assert [row.case for row in survey.rows] == ["BraTS20_Training_001"]
    assert not survey.faults


def test_link_back_up_does_not_make_cases_twice(tmp_path: Path) -> None:
    case = write_case(tmp_path / "BraTS20_Training_001")
    (case / "up").symlink_to(tmp_path)

    assert len(import_cases(tmp_path).rows) == 1


def test_existing_table_is_replaced_with_force_only(tmp_path: Path) -> None:
    write_case(tmp_path / "data" / "BraTS20_Training_001")
    table = tmp_path / "cases.csv"
    table.write_text("mine")

    refused = run_import(tmp_path / "data", "--out", table)

    assert "give --force to replace it" in str(refused.exception)
    assert table.read_text() == "mine"
    assert run_import(tmp_path / "data", "--out", table, "--force").exit_code == 0
    assert len(records(table)) == 1


def test_scans_elsewhere_are_written_as_absolute_paths(tmp_path: Path) -> None:
    write_case(tmp_path / "data" / "BraTS20_Training_001")

    run_import(tmp_path / "data", "--out", tmp_path / "tables" / "cases.csv")

    path = records(tmp_path / "tables" / "cases.csv")[0]["t1c"]
    assert path == str(tmp_path / "data" / "BraTS20_Training_001" / "BraTS20_Training_001_t1ce.nii")


def test_table_moved_with_its_scans_is_read_as_before(tmp_path: Path) -> None:
    write_case(tmp_path / "here" / "BraTS20_Training_001")
    run_import(tmp_path / "here", "--out", tmp_path / "here" / "cases.csv")
    (tmp_path / "here").rename(tmp_path / "there")

    (row,) = read_case_table(tmp_path / "there" / "cases.csv")

    assert all(file.is_file() for file in row.image)
    assert row.shape == (4, 5, 6)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("t1c,", "t1x,", "column 't1c' is missing"),
        ("brats2018-2021", "brats1999", "labels must be one of .*got 'brats1999'"),
        ("4x5x6", "4x5", "shape and spacing_mm must be like"),
        ("BraTS20_Training_001,BraTS20", ",BraTS20", "line 2: case is empty"),
    ],
)
def test_spoilt_table_is_refused_with_the_place(tmp_path: Path, old: str, new: str, message: str) -> None:
    table = tmp_path / "cases.csv"
    write_case(tmp_path / "BraTS20_Training_001")
    run_import(tmp_path, "--out", table)
    table.write_text(table.read_text().replace(old, new, 1))

    with pytest.raises(CaseError, match=message):
        read_case_table(table)


def test_case_that_stands_twice_in_the_table_is_refused(tmp_path: Path) -> None:
    table = tmp_path / "cases.csv"
    write_case(tmp_path / "BraTS20_Training_001")
    run_import(tmp_path, "--out", table)
    table.write_text(table.read_text() + table.read_text().splitlines()[1] + "\n")

    with pytest.raises(CaseError, match="case BraTS20_Training_001 stands 2 times"):
        read_case_table(table)


@pytest.mark.parametrize("mark", [";", "\t"])
def test_table_that_a_spreadsheet_saved_is_read_as_it_was(tmp_path: Path, mark: str) -> None:
    table = tmp_path / "cases.csv"
    write_case(tmp_path / "BraTS20_Training_001")
    run_import(tmp_path, "--out", table)
    rows = read_case_table(table)
    lines = [mark.join(f'"{field}"' for field in line.split(",")) for line in table.read_text().splitlines()]

    table.write_bytes("\r\n".join([*lines, mark * lines[0].count(mark), ""]).encode("utf-8-sig"))

    assert read_case_table(table) == rows

    table.write_bytes("\r\n".join([f"sep={mark}", *lines, ""]).encode("utf-8-sig"))

    assert read_case_table(table) == rows


def test_names_of_columns_may_be_in_capitals_and_each_is_there_once(tmp_path: Path) -> None:
    table = tmp_path / "cases.csv"
    write_case(tmp_path / "BraTS20_Training_001")
    run_import(tmp_path, "--out", table)
    names, values = table.read_text().splitlines()
    table.write_text(f"{names.upper()},Hospital\n{values},north\n")

    assert [(row.case, row.hospital) for row in read_case_table(table)] == [("BraTS20_Training_001", "north")]

    table.write_text(f"{names},Case\n{values},other\n")
    with pytest.raises(CaseError, match="column case is there twice, in other capitals; keep one"):
        read_case_table(table)


@pytest.mark.parametrize("encoding", ["latin-1", "utf-16"])
def test_table_that_is_not_in_utf_8_is_refused_with_what_to_save_it_as(tmp_path: Path, encoding: str) -> None:
    table = tmp_path / "cases.csv"
    write_case(tmp_path / "BraTS20_Training_001")
    run_import(tmp_path, "--out", table)
    table.write_bytes(table.read_text().replace("BraTS20", "M\u00fcller").encode(encoding))

    with pytest.raises(CaseError, match=r"cases\.csv, line \d: is no text in UTF-8 .*; save it as CSV in UTF-8"):
        read_case_table(table)


def test_decimal_comma_of_a_spreadsheet_is_refused_and_not_read_as_another_number(tmp_path: Path) -> None:
    table = tmp_path / "cases.csv"
    write_case(tmp_path / "BraTS20_Training_001")
    run_import(tmp_path, "--out", table)
    names, values = (line.split(",") for line in table.read_text().splitlines())
    values[names.index("tumour_ml")] = "12,5"
    table.write_text(";".join(names) + "\n" + ";".join(values) + "\n")

    with pytest.raises(CaseError, match=r"line 2: tumour_ml must be a number with a decimal point, .* \(got '12,5'\)"):
        read_case_table(table)


def test_label_of_two_cases_in_the_table_is_refused(tmp_path: Path) -> None:
    table = tmp_path / "cases.csv"
    for number in (1, 2):
        write_case(tmp_path / f"BraTS20_Training_00{number}")
    run_import(tmp_path, "--out", table)
    table.write_text(table.read_text().replace("002/BraTS20_Training_002_seg", "001/BraTS20_Training_001_seg"))

    with pytest.raises(CaseError, match=r"file .*BraTS20_Training_001_seg\.nii stands 2 times; keep one row of it"):
        read_case_table(table)


def test_help_begins_with_what_is_written() -> None:
    assert "Write OUT, a table of the cases beneath DATA_DIR" in run_import("--help").stdout


@needs_real_cases
def test_thirteen_real_cases_are_found_on_one_grid_each() -> None:
    survey = import_cases(REAL_CASES)

    assert not survey.faults
    assert len(survey.rows) == 13
    assert {(row.shape, row.spacing_mm) for row in survey.rows} == {((240, 240, 155), (1.0, 1.0, 1.0))}
    assert sum(row.institution == "TCIA01" for row in survey.rows) == 3
    assert survey.label_values == {"brats2018-2021": (1, 2, 4)}
    # 11738 necrotic, 12836 oedema and 32731 enhancing voxels of 1 mm.
    assert survey.rows[0].tumour_ml == 57.305
