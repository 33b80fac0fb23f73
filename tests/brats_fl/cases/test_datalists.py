from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from brats_fl.cases.datalists import (
    Case,
    DataList,
    as_monai_item,
    find_datalist,
    find_datalists,
    list_sites,
    load_split,
    read_datalist,
    write_datalist,
)
from brats_fl.errors import DataListError

FILES = ["a_t1ce.nii.gz", "a_t1.nii.gz", "a_t2.nii.gz", "a_flair.nii.gz"]


def entry(case: str = "a", **changes: Any) -> dict[str, Any]:
    return {"case": case, "image": FILES, "label": "a_seg.nii.gz", **changes}


def write(folder: Path, content: Any) -> Path:
    path = folder / "datalist.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def error_of(folder: Path, content: Any) -> str:
    path = write(folder, content)
    with pytest.raises(DataListError) as caught:
        read_datalist(path)
    assert str(path) in str(caught.value)
    return str(caught.value)


def test_missing_data_list_is_named_with_the_command_that_makes_one(tmp_path: Path):
    with pytest.raises(DataListError, match=r"none\.json: no such data list; make one with `brats-fl partition`"):
        read_datalist(tmp_path / "none.json")


def test_folder_in_the_place_of_a_data_list_is_told_from_a_damaged_one(tmp_path: Path):
    with pytest.raises(DataListError, match=": is a folder; give the file itself"):
        read_datalist(tmp_path)


@pytest.mark.parametrize(
    ("content", "rule", "mend"),
    [
        ("{", "cannot be read as JSON", "mend it, or make one with `brats-fl partition`"),
        ([], "must hold an object with the keys training, validation, testing", "brats-fl partition"),
        ({"train": []}, "unknown key 'train'", "remove it"),
        ({"training": {}}, "training must be a list of cases", "got dict"),
        ({"training": [3]}, "training[0] must be an object", "with case, image and label"),
        ({"training": [entry(), {"image": FILES}]}, "training[1] has no 'case'", "add it"),
        ({"training": [{"case": "a"}]}, "training[0] has no 'image'", "add it"),
        ({"training": [entry(image=FILES[:3])]}, "(a): image must list 4 files", "in the order t1c, t1n, t2w, t2f"),
        ({"training": [entry(image=[1, 2, 3, 4])]}, "(a): image must list 4 files", "in the order t1c, t1n, t2w, t2f"),
        ({"training": [entry(case="../a")]}, "case must be a name", "without / (got '../a')"),
        ({"training": [entry(case="")]}, "case must be a name", "(got '')"),
        ({"training": [entry(labels="brats1999")]}, "labels must be one of brats2018-2021, ", "(got 'brats1999')"),
        ({"training": [entry(label=None)]}, "a case for training needs a label", "move it to testing or add the label"),
        ({"validation": [entry(label=None)]}, "a case for validation needs a label", "move it to testing"),
        ({"training": [entry(), entry()]}, "case a stands twice in training", "keep one of the two"),
        ({"training": [entry()], "testing": [entry()]}, "case a stands in training and in testing", "keep one"),
        (
            {"training": [entry("a", patient="p")], "validation": [entry("b", patient="p")]},
            "patient p has cases in training and in validation",
            "keep a patient in one split",
        ),
    ],
)
def test_unusable_data_list_is_refused_with_file_rule_and_mend(tmp_path: Path, content: Any, rule: str, mend: str):
    message = error_of(tmp_path, content)

    assert rule in message
    assert mend in message


def test_file_that_is_no_text_is_refused(tmp_path: Path):
    path = tmp_path / "datalist.json"
    path.write_bytes(b"\xff\xfe\x00")

    with pytest.raises(DataListError, match=r"line 1: is no text in UTF-8 \(holds the byte 0xff\)"):
        read_datalist(path)


def test_two_cases_of_one_patient_in_one_split_are_accepted(tmp_path: Path):
    path = write(tmp_path, {"training": [entry("a", patient="p"), entry("b", patient="p")]})

    assert [case.case for case in read_datalist(path).training] == ["a", "b"]


def test_relative_paths_are_relative_to_the_data_list_and_absolute_ones_stay(tmp_path: Path):
    image = ["scans/a_t1ce.nii.gz", "../a_t1.nii.gz", "/data/a_t2.nii.gz", "a_flair.nii.gz"]
    path = write(tmp_path, {"training": [entry(image=image, label="a_seg.nii.gz")]})

    case = read_datalist(path).training[0]

    folder = tmp_path.resolve()
    assert case.image == (
        f"{folder}/scans/a_t1ce.nii.gz",
        f"{folder}/../a_t1.nii.gz",
        "/data/a_t2.nii.gz",
        f"{folder}/a_flair.nii.gz",
    )
    assert case.label == f"{folder}/a_seg.nii.gz"


def test_site_without_a_name_is_called_as_its_folder(tmp_path: Path):
    (tmp_path / "hospital-3").mkdir()

    assert read_datalist(write(tmp_path / "hospital-3", {})).site == "hospital-3"


def test_case_for_testing_needs_no_label(tmp_path: Path):
    path = write(tmp_path, {"testing": [entry(label=None)]})

    assert read_datalist(path).testing[0].label is None


def test_written_data_list_reads_back_the_same(tmp_path: Path):
    image = ("/d/1", "/d/2", "/d/3", "/d/4")
    datalist = DataList(
        site="hospital-1",
        training=(Case("a", "p", image, "/d/s"), Case("b", "p", image, "/d/s", "brats2023")),
        validation=(Case("c", "c", image, "/d/s"),),
        testing=(Case("d", "d", image, None),),
    )
    path = tmp_path / "new" / "folder" / "datalist.json"

    write_datalist(path, datalist)

    assert read_datalist(path) == datalist
    assert [file.name for file in path.parent.iterdir()] == ["datalist.json"]  # no scratch file stays


def test_split_becomes_items_of_a_monai_dataset(tmp_path: Path):
    path = write(tmp_path, {"training": [entry("a"), entry("b")], "testing": [entry("c", label=None)]})

    assert [item["case"] for item in load_split(path, "training")] == ["a", "b"]
    assert load_split(str(path), "testing") == [
        {"case": "c", "image": [f"{tmp_path.resolve()}/{file}" for file in FILES], "labels": "brats2018-2021"}
    ]
    assert as_monai_item(Case("a", "a", ("1", "2", "3", "4"), "seg"))["label"] == "seg"


def test_empty_split_is_refused(tmp_path: Path):
    path = write(tmp_path, {"training": [entry()]})

    with pytest.raises(DataListError, match=r"datalist\.json: validation is empty; at least one case is needed"):
        load_split(path, "validation")


def test_unknown_split_is_refused():
    with pytest.raises(DataListError, match=r"split must be one of training, validation, testing \(got 'test'\)"):
        DataList("hospital-1").split("test")


def places(root: Path) -> tuple[Path, Path, Path]:
    own, kit, sites = (
        root / "own.json",
        root / "kit" / "local" / "datalist.json",
        root / "sites" / "h" / "datalist.json",
    )
    for path in (own, kit, sites):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("{}")
    return own, kit, sites


def test_data_list_is_looked_for_in_the_variable_then_the_kit_then_the_sites_folder(tmp_path: Path):
    own, kit, sites = places(tmp_path)
    environ = {"BRATS_FL_DATALIST": str(own), "BRATS_FL_SITES": str(tmp_path / "sites")}

    assert find_datalist("h", tmp_path / "kit", environ) == own
    del environ["BRATS_FL_DATALIST"]
    assert find_datalist("h", tmp_path / "kit", environ) == kit
    kit.unlink()
    assert find_datalist("h", tmp_path / "kit", environ) == sites
    assert find_datalist("h", None, environ) == sites


def test_variable_that_points_nowhere_is_an_error_and_not_passed_over(tmp_path: Path):
    places(tmp_path)
    environ = {"BRATS_FL_DATALIST": "/nowhere.json", "BRATS_FL_SITES": str(tmp_path / "sites")}

    with pytest.raises(DataListError, match=r"BRATS_FL_DATALIST is set to /nowhere\.json, which is no file; set it to"):
        find_datalist("h", tmp_path / "kit", environ)


def test_error_names_all_three_places_when_none_has_a_data_list(tmp_path: Path):
    with pytest.raises(DataListError) as unset:
        find_datalist("h", None, {})
    with pytest.raises(DataListError) as missing:
        find_datalist("h", tmp_path, {"BRATS_FL_SITES": "/sites"})

    assert str(unset.value) == (
        "h has no data list: BRATS_FL_DATALIST is not set, there is no kit with local/datalist.json, and "
        "BRATS_FL_SITES is not set; write one with `brats-fl partition`"
    )
    assert str(missing.value) == (
        f"h has no data list: BRATS_FL_DATALIST is not set, {tmp_path}/local/datalist.json is not there, and "
        "/sites/h/datalist.json is not there; write one with `brats-fl partition`"
    )


def test_sites_in_hidden_folders_and_in_a_macs_archive_are_none(tmp_path: Path):
    for name in ("hospital-1", "hospital-2", ".snapshot", "__MACOSX", ".ipynb_checkpoints"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "datalist.json").write_text("{}")

    assert [path.parent.name for path in list_sites(tmp_path)] == ["hospital-1", "hospital-2"]
    assert find_datalists(tmp_path) == list_sites(tmp_path)
