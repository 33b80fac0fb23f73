from __future__ import annotations

import json
from pathlib import Path

import pytest

from brats_fl.cases.folders import find_cases
from brats_fl.errors import CaseError, DataListError

BRATS_2020 = ("_t1ce", "_t1", "_t2", "_flair")
BRATS_2023 = ("-t1c", "-t1n", "-t2w", "-t2f")


def make_case(folder: Path, suffixes: tuple[str, ...] = BRATS_2020, ending: str = ".nii.gz") -> Path:
    folder.mkdir(parents=True)
    for suffix in suffixes:
        (folder / f"{folder.name}{suffix}{ending}").touch()
    return folder


def test_cases_of_both_layouts_come_in_the_order_of_their_names(tmp_path: Path):
    make_case(tmp_path / "b", BRATS_2023, ".nii.gz")
    make_case(tmp_path / "a", BRATS_2020, ".nii")

    items = find_cases(str(tmp_path))

    assert items == [
        {"case": "a", "image": [f"{tmp_path}/a/a{s}.nii" for s in BRATS_2020], "labels": "brats2018-2021"},
        {"case": "b", "image": [f"{tmp_path}/b/b{s}.nii.gz" for s in BRATS_2023], "labels": "brats2023"},
    ]


def test_case_is_found_however_deep_and_a_label_does_not_disturb(tmp_path: Path):
    folder = make_case(tmp_path / "download" / "HGG" / "a")
    (folder / "a_seg.nii.gz").touch()

    assert [item["case"] for item in find_cases(tmp_path)] == ["a"]


def test_folder_may_itself_be_the_case(tmp_path: Path):
    assert [item["case"] for item in find_cases(make_case(tmp_path / "a"))] == ["a"]


def test_folder_that_is_missing_or_holds_no_case_is_refused(tmp_path: Path):
    with pytest.raises(DataListError, match="no such folder; set dataset_dir"):
        find_cases(tmp_path / "none")
    with pytest.raises(DataListError, match=r"holds no case\. Looked for: BraTS 2018 to 2021"):
        find_cases(tmp_path)


def make_msd(folder: Path, modality: dict[str, str] | None = None) -> Path:
    for name in ("imagesTr/BRATS_001", "imagesTs/BRATS_485", "imagesTr/._BRATS_001"):
        file = folder / f"{name}.nii.gz"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    content = {
        "modality": modality or {"0": "FLAIR", "1": "T1w", "2": "t1gd", "3": "T2w"},
        "labels": {"0": "background", "1": "edema", "2": "non-enhancing tumor", "3": "enhancing tumour"},
    }
    (folder / "dataset.json").write_text(json.dumps(content))
    return folder


def test_volumes_of_a_decathlon_file_come_in_the_order_of_the_modalities(tmp_path: Path):
    make_msd(tmp_path / "Task01_BrainTumour")

    items = find_cases(tmp_path)

    file = f"{tmp_path}/Task01_BrainTumour/imagesTr/BRATS_001.nii.gz"
    assert [item["case"] for item in items] == ["BRATS_001", "BRATS_485"]
    assert items[0]["image"] == [f"{file}#2", f"{file}#1", f"{file}#3", f"{file}#0"]  # t1c, t1n, t2w, t2f
    assert items[0]["labels"] == "msd-task01"


def test_decathlon_folder_of_another_task_is_refused(tmp_path: Path):
    make_msd(tmp_path, {"0": "CT"})

    with pytest.raises(CaseError, match=r"dataset\.json: modality must name t1gd, t1w, t2w, flair, .*\(got ct\)"):
        find_cases(tmp_path)
