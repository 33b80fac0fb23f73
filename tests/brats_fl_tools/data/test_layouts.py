"""What is in a folder means the same to the import and to the bundles' inference: one table for both.

Inference needs no label, and passes over what is wrong with one; all else that the import refuses it refuses, too.
"""

from __future__ import annotations

import gzip
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from brats_fl.cases.folders import FAULT, find_cases
from brats_fl.cases.layouts import join_namesakes, search
from brats_fl.errors import CaseError, DataListError
from brats_fl_tools.data.import_cases import import_cases

SCAN = nib.Nifti1Image(np.zeros((4, 5, 6), np.int16), np.diag([-1.0, -1.0, 1.0, 1.0])).to_bytes()
OF_FOUR = nib.Nifti1Image(np.zeros((4, 5, 6, 4), np.int16), np.diag([-1.0, -1.0, 1.0, 1.0])).to_bytes()
BRATS_2020 = ("_t1ce", "_t1", "_t2", "_flair")
BRATS_2023 = ("-t1c", "-t1n", "-t2w", "-t2f")


def put(file: Path, content: bytes = SCAN) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(gzip.compress(content, 1) if file.name.lower().endswith(".gz") else content)
    return file


def put_case(folder: Path, *labels: str, suffixes: tuple[str, ...] = BRATS_2020, ending: str = ".nii.gz") -> Path:
    for suffix in (*suffixes, *labels):
        put(folder / f"{folder.name}{suffix}{ending}")
    return folder


# --- What both take ---


def plain(root: Path) -> None:
    put_case(root / "P_001", "_seg")


def of_2023(root: Path) -> None:
    put_case(root / "P_001", "-seg", suffixes=BRATS_2023)


def without_a_label(root: Path) -> None:
    put_case(root / "P_001", ending=".nii")


def deep_below(root: Path) -> None:
    put_case(root / "download" / "HGG" / "P_001", "_seg")


def in_capitals(root: Path) -> None:
    put_case(root / "P_001", "_seg", ending=".NII.GZ")


def of_mixed_case(root: Path) -> None:
    put_case(root / "P_001", "_Seg", suffixes=("_T1ce", "_t1", "_T2", "_FLAIR"), ending=".Nii.Gz")


def with_a_waste_bin(root: Path) -> None:
    folder = put_case(root / "P_001", "_seg")
    shutil.copytree(folder, root / "$RECYCLE.BIN" / "S-1-5" / "P_001")


def case_355(root: Path) -> None:
    put_case(root / "BraTS20_Training_355")
    put(root / "BraTS20_Training_355" / "W39_1998.09.19_Segm.nii")


def with_a_macs_shadows(root: Path) -> None:
    folder = put_case(root / "P_001", "_seg")
    shutil.copytree(folder, root / "__MACOSX" / "P_001")
    (folder / "._P_001_t1.nii.gz").write_bytes(b"shadow")


def with_snapshots(root: Path) -> None:
    folder = put_case(root / "P_001", "_seg")
    shutil.copytree(folder, root / ".snapshot" / "daily.1" / "P_001")


def with_a_link_to_it(root: Path) -> None:
    (root / "A_latest").symlink_to(put_case(root / "P_001", "_seg"))


def of_the_decathlon(root: Path) -> None:
    put(root / "imagesTs" / "P_001.nii.gz", OF_FOUR)
    put(root / "imagesTs" / "._P_001.nii.gz")
    labels = {"0": "background", "1": "edema", "2": "non-enhancing tumor", "3": "enhancing tumour"}
    modality = {"0": "FLAIR", "1": "T1w", "2": "t1gd", "3": "T2w"}
    (root / "dataset.json").write_text(json.dumps({"modality": modality, "labels": labels}))


@pytest.mark.parametrize(
    "make",
    [
        *(plain, of_2023, without_a_label, deep_below, in_capitals, case_355, with_a_macs_shadows, with_snapshots),
        *(with_a_link_to_it, of_the_decathlon, of_mixed_case, with_a_waste_bin),
    ],
)
def test_case_is_found_by_import_and_inference_alike(tmp_path: Path, make: Callable[[Path], None]):
    make(tmp_path)

    survey, items = import_cases(tmp_path), find_cases(tmp_path)

    assert survey.faults == ()
    assert [row.case for row in survey.rows] in (["P_001"], ["BraTS20_Training_355"])
    assert [item["case"] for item in items] == [row.case for row in survey.rows]
    assert [item["image"] for item in items] == [[str(scan) for scan in row.image] for row in survey.rows]
    assert [item["labels"] for item in items] == [row.labels for row in survey.rows]


# --- What both refuse ---


def of_two_patients(root: Path) -> None:
    folder = put_case(root / "P_001", suffixes=("_t1ce", "_t2", "_flair"))
    put(folder / "P_002_t1.nii.gz")


def named_after_another(root: Path) -> None:
    put_case(root / "P_002").rename(root / "P_001")


def of_two_layouts(root: Path) -> None:
    put_case(put_case(root / "P_001"), suffixes=BRATS_2023)


def without_a_modality(root: Path) -> None:
    put_case(root / "P_001", suffixes=("_t1ce", "_t1", "_t2"))


def with_a_modality_twice(root: Path) -> None:
    put(put_case(root / "P_001") / "P_001_t2.nii")


def there_twice(root: Path) -> None:
    put_case(root / "HGG" / "P_001")
    put_case(root / "LGG" / "P_001")


def of_many_in_one_folder(root: Path) -> None:
    for case in ("P_002", "P_003"):
        for suffix in BRATS_2020:
            put(root / "P_001" / f"{case}{suffix}.nii.gz")


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (of_two_patients, "{root}/P_001/P_002_t1.nii.gz is not named after its folder; put P_001_t1.nii.gz there"),
        (named_after_another, "P_002_t1ce.nii.gz is not named after its folder; put P_001_t1ce.nii.gz there"),
        (
            of_two_layouts,
            "the folder holds files of two layouts, P_001_flair.nii.gz and P_001-t1c.nii.gz; keep",
        ),
        (without_a_modality, "t2f is missing; P_001_flair.nii or .nii.gz must be in {root}/P_001"),
        (with_a_modality_twice, "t2w has 2 candidates, P_001_t2.nii and P_001_t2.nii.gz; keep one of them"),
        (there_twice, "is there 2 times ({root}/HGG/P_001, {root}/LGG/P_001); keep one of them"),
        (of_many_in_one_folder, "t1c has 2 candidates, P_002_t1ce.nii.gz and P_003_t1ce.nii.gz; keep one of them"),
    ],
)
def test_case_that_the_import_refuses_is_not_segmented(tmp_path: Path, make: Callable[[Path], None], problem: str):
    make(tmp_path)

    (fault,) = import_cases(tmp_path).faults
    (item,) = find_cases(tmp_path)

    assert item == {"case": "P_001", FAULT: "; ".join(str(fault).replace("P_001: ", "").splitlines())}
    assert f"P_001: {problem.format(root=tmp_path)}" in str(fault).replace(f"{tmp_path}/P_001/P_002_t1ce", "P_002_t1ce")


def test_case_that_is_wrong_costs_inference_no_other(tmp_path: Path):
    for number in (1, 3):
        put_case(tmp_path / f"P_00{number}", suffixes=("_t1ce", "_t1", "_t2"))
    put_case(tmp_path / "P_002")

    items = find_cases(tmp_path)

    assert [(item["case"], FAULT in item) for item in items] == [("P_001", True), ("P_002", False), ("P_003", True)]


# --- Labels, which inference does not look at ---


def with_two_labels(root: Path) -> None:
    put(put_case(root / "P_001", "_seg") / "P_001_seg.nii")


def with_a_label_of_another_layout(root: Path) -> None:
    put(put_case(root / "P_001", suffixes=BRATS_2023) / "P_001_seg.nii.gz")


def with_an_unknown_file(root: Path) -> None:
    put(put_case(root / "P_001") / "P_001_unet.nii.gz")


def with_masks_of_an_earlier_run(root: Path) -> None:
    put_case(root / "P_001", "_seg")
    put(root / "masks" / "P_001_seg.nii.gz")


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (with_two_labels, "seg has 2 candidates, P_001_seg.nii and P_001_seg.nii.gz; keep one of them"),
        (with_a_label_of_another_layout, "the folder holds files of two layouts"),
        (with_an_unknown_file, "no label is named P_001_seg, but P_001_unet.nii.gz is there; name it so if it is the"),
        (with_masks_of_an_earlier_run, "has no scan beside it; put P_001_t1ce.nii.gz and the others there, or move it"),
    ],
)
def test_label_that_the_import_refuses_does_not_keep_a_case_from_being_segmented(
    tmp_path: Path, make: Callable[[Path], None], problem: str
):
    make(tmp_path)

    (fault,) = import_cases(tmp_path).faults

    assert problem in str(fault)
    assert [item["case"] for item in find_cases(tmp_path)] == ["P_001"]


# --- Folders ---


def test_case_may_be_the_folder_that_one_stands_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(put_case(tmp_path / "P_001"))

    assert [item["case"] for item in find_cases(".")] == ["P_001"]


def test_folder_without_a_case_says_what_is_there_and_what_was_looked_for(tmp_path: Path):
    put(tmp_path / "brain.nii.gz")

    with pytest.raises(
        DataListError, match=r"1 NIfTI files have other names, such as .*brain\.nii\.gz\. Looked for: Br"
    ):
        find_cases(tmp_path)
    with pytest.raises(CaseError, match=r"no case found; 1 NIfTI files have other names, .*describe it with --mapping"):
        import_cases(tmp_path)


LOOK = """
import sys
from pathlib import Path
from brats_fl.cases.layouts import search
for case in search(Path(sys.argv[1])).cases:
    print(case.case, *case.problems)
"""


def test_folder_that_may_not_be_looked_into_is_a_case_that_cannot_be_used(tmp_path: Path):
    put_case(tmp_path / "P_001", "_seg")
    closed = put_case(tmp_path / "P_002", "_seg")
    command = [sys.executable, "-c", LOOK, str(tmp_path)]
    if os.geteuid() == 0:  # root reads everything, unless it lays that right down
        if not shutil.which("setpriv"):
            pytest.skip("root without setpriv cannot lay down its right to read everything")
        rights = "-dac_override,-dac_read_search"
        command = ["setpriv", "--bounding-set", rights, "--inh-caps", rights, *command]
    closed.chmod(0)
    try:
        found = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    finally:
        closed.chmod(0o755)

    assert found[0] == "P_001"
    assert found[1].startswith(f"P_002 {closed} cannot be looked into (Permission denied); give this user the right")


def test_namesakes_are_one_case_that_cannot_be_used(tmp_path: Path):
    there_twice(tmp_path)
    put_case(tmp_path / "A")

    found = search(tmp_path).cases
    joined = join_namesakes(found)

    assert [case.case for case in found] == ["A", "P_001", "P_001"]
    assert [(case.case, len(case.files)) for case in joined] == [("A", 4), ("P_001", 0)]


@pytest.mark.parametrize("odd", ["a\nb", "a\x1b[31mb", os.fsdecode(b"a\xe4b")])
@pytest.mark.parametrize("of_folder", [True, False])
def test_name_that_is_no_line_of_text_makes_a_case_that_cannot_be_used(tmp_path: Path, odd: str, of_folder: bool):
    put_case(tmp_path / "P_001")
    if of_folder:
        put_case(tmp_path / odd / "P_002")
    else:
        put_case(tmp_path / odd)

    first, second = sorted(search(tmp_path).cases, key=lambda case: bool(case.problems))

    assert (first.case, first.problems) == ("P_001", ())
    assert second.case.isprintable()
    assert not second.files
    assert all("which is no text; rename it" in problem and problem.isprintable() for problem in second.problems)
    assert second.problems


def test_mask_alone_below_an_odd_name_is_no_case_that_lacks_scans(tmp_path: Path):
    put_case(tmp_path / "P_001", "_seg")
    (tmp_path / "a\nb").mkdir()
    (tmp_path / "P_001" / "P_001_seg.nii.gz").rename(tmp_path / "a\nb" / "P_001_seg.nii.gz")

    assert [item for item in find_cases(tmp_path) if FAULT in item] == []


def test_namesakes_of_which_one_has_an_odd_folder_are_told_in_text(tmp_path: Path):
    put_case(tmp_path / "P_001")
    put_case(tmp_path / os.fsdecode(b"a\xe4b") / "P_001")

    (item,) = find_cases(tmp_path)

    assert "is there 2 times" in item[FAULT]
    assert item[FAULT].isprintable()
