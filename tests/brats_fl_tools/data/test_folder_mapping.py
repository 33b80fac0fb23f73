"""A hospital's own folder, described by a mapping file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from brats_fl.errors import CaseError
from brats_fl_tools.data.folder_mapping import read_mapping
from brats_fl_tools.data.import_cases import import_, import_cases

PATTERNS = {
    "t1c": "{patient}/{time_point}/t1_post.nii.gz",
    "t1n": "{patient}/{time_point}/t1_pre.nii.gz",
    "t2w": "{patient}/{time_point}/t2_*.nii.gz",
    "t2f": "{patient}/{time_point}/flair.nii.gz",
    "seg": "{patient}/{time_point}/tumour.nii.gz",
    "labels": "brats2023",
}
FILES = ("t1_post", "t1_pre", "t2_tse", "flair", "tumour")


def write_mapping(folder: Path, **changes: Any) -> Path:
    content = {key: value for key, value in {**PATTERNS, **changes}.items() if value is not None}
    (folder / "mapping.json").write_text(json.dumps(content))
    return folder / "mapping.json"


def write_file(file: Path, volumes: int | None = None) -> None:
    shape = (3, 3, 3) if volumes is None else (3, 3, 3, volumes)
    file.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(np.full(shape, 3, np.int16), np.eye(4)), file)


def write_visit(folder: Path) -> Path:
    for name in FILES:
        write_file(folder / f"{name}.nii.gz")
    return folder


def test_visits_of_a_patient_are_cases_of_one_patient(tmp_path: Path) -> None:
    write_visit(tmp_path / "data" / "P01" / "2019-03")
    second = write_visit(tmp_path / "data" / "P01" / "2020-11").resolve()

    rows = import_cases(tmp_path / "data", write_mapping(tmp_path)).rows

    assert [(row.case, row.patient, row.time_point) for row in rows] == [
        ("P01_2019-03", "P01", "2019-03"),
        ("P01_2020-11", "P01", "2020-11"),
    ]
    assert rows[1].image == tuple(second / f"{name}.nii.gz" for name in ("t1_post", "t1_pre", "t2_tse", "flair"))
    assert rows[1].label == second / "tumour.nii.gz"
    assert rows[1].labels == "brats2023"
    assert rows[1].tumour_ml == 0.027  # all 27 voxels of 1 mm


def test_placeholder_that_stands_twice_must_stand_for_the_same(tmp_path: Path) -> None:
    patterns = {name: f"{{case}}/{{case}}_{name}.nii.gz" for name in ("t1c", "t1n", "t2w", "t2f")}
    for name in patterns:
        write_file(tmp_path / "data" / "A" / f"A_{name}.nii.gz")
        write_file(tmp_path / "data" / "A" / f"B_{name}.nii.gz")

    (row,) = import_cases(tmp_path / "data", write_mapping(tmp_path, **patterns, seg=None)).rows

    assert row.case == "A"
    assert row.label is None


def test_volume_of_a_4d_file_is_named_by_its_number(tmp_path: Path) -> None:
    write_file(tmp_path / "data" / "A.nii.gz", volumes=4)
    patterns = {name: f"{{case}}.nii.gz#{k}" for k, name in enumerate(("t1c", "t1n", "t2w", "t2f"))}

    (row,) = import_cases(tmp_path / "data", write_mapping(tmp_path, **patterns, seg=None)).rows

    assert [file.name for file in row.image] == ["A.nii.gz#0", "A.nii.gz#1", "A.nii.gz#2", "A.nii.gz#3"]
    assert row.shape == (3, 3, 3)


def test_file_that_is_missing_or_there_twice_is_a_fault_of_its_case(tmp_path: Path) -> None:
    (write_visit(tmp_path / "data" / "P01" / "2019") / "flair.nii.gz").unlink()
    write_file(tmp_path / "data" / "P01" / "2019" / "t2_space.nii.gz")

    (fault,) = import_cases(tmp_path / "data", write_mapping(tmp_path)).faults

    assert "P01_2019: t2w has 2 candidates, t2_space.nii.gz and t2_tse.nii.gz" in str(fault)
    assert "P01_2019: t2f is missing; '{patient}/{time_point}/flair.nii.gz' finds no file of this case" in str(fault)


def test_folder_where_the_mapping_fits_nothing_is_refused(tmp_path: Path) -> None:
    write_visit(tmp_path / "data")

    with pytest.raises(CaseError, match=r"no case found\. Looked for: what .*mapping\.json describes"):
        import_cases(tmp_path / "data", write_mapping(tmp_path))


def test_file_that_two_patterns_fit_is_a_fault_of_its_case(tmp_path: Path) -> None:
    for name in ("t1c", "t2w", "t2f"):
        write_file(tmp_path / "data" / "A" / f"{name}.nii.gz")
    patterns = {name: f"{{case}}/{name}.nii.gz" for name in ("t1c", "t2w", "t2f")}

    (fault,) = import_cases(
        tmp_path / "data", write_mapping(tmp_path, **patterns, t1n="{case}/t1*.nii.gz", seg=None)
    ).faults

    assert str(fault) == "A: t1c and t1n are the same file, t1c.nii.gz; mend the pattern of one"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"flair": "x"}, "unknown key 'flair'; a mapping has t1c, t1n, t2w, t2f, seg, labels: remove it"),
        ({"t2f": None}, "has no 't2f'; add it"),
        ({"labels": None}, "has no 'labels'; add it"),
        ({"labels": "brats1999"}, r"labels must be one of .*\(got 'brats1999'\)"),
        ({"t1c": 3}, "must hold an object of texts"),
        ({"t1c": "{subject}/t1.nii.gz"}, r"t1c has the placeholder \{subject\}; there are case, patient, time_point"),
        ({"t2w": "t2.nii.gz"}, r"t2w has neither \{case\} nor \{patient\}"),
        ({"t1c": "/data/{case}/t1.nii.gz"}, r"t1c must be a path beneath the folder of the import, .*absolute"),
        ({"t1c": "~/{case}/t1.nii.gz"}, r"t1c must be a path beneath .* \(got '~/\{case\}/t1\.nii\.gz'\)"),
        ({"t1c": "../{case}/t1.nii.gz"}, r"t1c must be a path beneath the folder of the import, without \.\."),
        ({"t1c": "{case}\\t1.nii.gz"}, "t1c must be a path beneath the folder of the import, with / between folders"),
        ({"seg": "{case}/seg.nii.gz "}, "seg must be a path beneath the folder of the import, without blanks"),
        ({"t2w": "{patient}/t2.nii.gz"}, "t2w has other placeholders than t1c; all patterns need the same"),
    ],
)
def test_mapping_that_cannot_be_used_is_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(CaseError, match=message):
        read_mapping(write_mapping(tmp_path, **changes))


def test_mapping_that_is_no_json_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mapping.json").write_text("t1c = 1")

    with pytest.raises(CaseError, match="cannot be read as JSON"):
        read_mapping(tmp_path / "mapping.json")


def test_convention_on_the_command_line_beside_a_mapping_is_wrong_usage(tmp_path: Path) -> None:
    app = typer.Typer()
    app.command()(import_)
    arguments = [str(tmp_path), "--out", "t.csv", "--mapping", "m.json", "--labels", "brats2023"]

    assert CliRunner().invoke(app, arguments).exit_code == 2
