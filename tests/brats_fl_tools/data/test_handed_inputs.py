"""Small inputs that users had and that were once handled wrongly, each with what is right."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from tests.shared_data import SHARED, needs

from brats_fl.cases.datalists import as_monai_item, read_datalist
from brats_fl.cases.folders import FAULT, find_cases
from brats_fl.cases.transforms import LoadCased
from brats_fl.errors import CaseError
from brats_fl_tools.data.import_cases import import_cases

CASES = SHARED / "cases"

pytestmark = needs(CASES)


def by_import(folder: Path) -> None:
    if faults := import_cases(folder).faults:
        raise faults[0]


def by_inference(folder: Path) -> None:
    for item in find_cases(folder):
        if FAULT in item:
            raise CaseError(item[FAULT])
        LoadCased()(item)


SOUND = ("flat-folder", "label-volume-0", "upper-case-extension", "unreadable-subfolder", "inference-overwrites-label")
"""What made these hard is not in their scans; label-volume-0 has files of shape (60, 60, 39, 1)."""

FAULTY = [
    ("mixed-patients-inference", by_import, "P_002_t1.nii.gz is not named after its folder"),
    ("mixed-patients-inference", by_inference, "P_002_t1.nii.gz is not named after its folder"),
    ("odd-one-blamed", by_import, "t1c: position is 0.005 mm away from that of t1n ("),
    ("odd-one-blamed", by_inference, "t1c: position is 0.005 mm away from that of t1n ("),
    ("rgb-scan", by_import, "P_001_t1ce.nii.gz holds RGB values, not one real number a voxel"),
    ("rgb-scan", by_inference, "P_001_t1ce.nii.gz holds RGB values, not one real number a voxel"),
    ("background-not-zero", by_inference, "G31-not-stripped: around the brain is 12, not 0"),
    ("batch-one-bad", by_inference, " is cut short"),
]


@pytest.mark.parametrize("name", SOUND)
@pytest.mark.parametrize("read", [by_import, by_inference])
def test_sound_input_is_read(name: str, read: Callable[[Path], None]):
    read(CASES / name / "data")


@pytest.mark.parametrize(("name", "read", "problem"), FAULTY)
def test_faulty_input_is_refused_with_what_is_wrong_with_it(name: str, read: Callable[[Path], None], problem: str):
    with pytest.raises(CaseError) as caught:
        read(CASES / name / "data")

    assert problem in str(caught.value)


def test_data_list_that_names_volumes_is_read_as_the_files_are():
    item = as_monai_item(read_datalist(CASES / "label-volume-0" / "datalist.json").training[0])

    assert LoadCased()(item)["label"].shape == (1, 60, 60, 39)
