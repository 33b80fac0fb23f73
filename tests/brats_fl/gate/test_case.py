"""All rules for a case and for a list, on files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tests.tiny_sites import SHAPE, save

from brats_fl.cases.datalists import Case, DataList
from brats_fl.constants import MODALITIES
from brats_fl.gate import check_case, check_list
from brats_fl.gate.lists import entries_of
from brats_fl_tools.sample import SampleCase, make_case


@pytest.fixture(scope="module")
def made() -> SampleCase:
    return make_case(0, 1, 1, 4.0)


def write(folder: Path, made: SampleCase, name: str = "case-1") -> Case:
    folder.mkdir(parents=True, exist_ok=True)
    for modality, voxels in made.images.items():
        save(voxels, folder / f"{modality}.nii.gz", made.affine)
    save(made.seg, folder / "seg.nii.gz", made.affine)
    image = tuple(str(folder / f"{modality}.nii.gz") for modality in MODALITIES)
    return Case(name, name, image, str(folder / "seg.nii.gz"))


def test_clean_case_has_no_finding_and_is_described(tmp_path: Path, made: SampleCase):
    verdict = check_case(write(tmp_path, made))

    assert verdict.findings == []
    assert verdict.grid is not None
    assert verdict.grid.shape == (60, 60, 39)
    assert set(verdict.looks) == set(MODALITIES)


def test_case_without_label_is_checked_for_the_rest(tmp_path: Path, made: SampleCase):
    case = replace(write(tmp_path, made), label=None)
    save(np.zeros((60, 60, 39), np.int16), Path(case.image[1]), made.affine)

    assert [(f.rule, f.scan) for f in check_case(case).findings] == [("G22-constant", "t1n")]


def test_case_without_a_readable_scan_has_its_files_named(tmp_path: Path):
    case = Case("a", "a", tuple(str(tmp_path / f"{name}.nii") for name in MODALITIES))

    assert [f.scan for f in check_case(case).findings] == list(MODALITIES)


def test_checksum_behind_the_last_voxel_is_looked_at(tmp_path: Path, made: SampleCase):
    case = write(tmp_path, made)
    path = Path(case.image[2])
    content = bytearray(path.read_bytes())
    content[-8] ^= 1  # the first byte of the CRC-32 (RFC 1952)
    path.write_bytes(content)

    (finding,) = check_case(case).findings

    assert (finding.rule, finding.scan) == ("G02-file-unreadable", "t2w")
    assert "CRC check failed" in finding.found


def test_volumes_of_a_4d_file_are_checked_like_files_of_their_own(tmp_path: Path, made: SampleCase):
    case = write(tmp_path, made)
    save(np.stack(list(made.images.values()), axis=3), tmp_path / "all.nii.gz", made.affine)
    in_one_file = replace(case, image=tuple(f"{tmp_path}/all.nii.gz#{k}" for k in range(4)))
    swapped = replace(in_one_file, image=tuple(in_one_file.image[k] for k in (0, 1, 3, 2)))

    assert check_case(in_one_file).findings == []
    assert [f.rule for f in check_case(swapped).findings] == ["G26-modalities-swapped"]


def test_label_that_lies_wrong_does_not_make_the_scans_look_wrong(tmp_path: Path, made: SampleCase):
    case = write(tmp_path, made)
    save(made.seg[::-1], Path(str(case.label)), made.affine)

    # 6 % of it is outside the brain, too; nothing is said of modalities or of the label's parts.
    assert [f.rule for f in check_case(case).findings] == ["G46-label-outside-brain", "G47-label-not-on-image"]


def test_scans_of_other_shapes_are_not_compared(tmp_path: Path, made: SampleCase):
    case = write(tmp_path, made)
    save(np.arange(np.prod(SHAPE), dtype=np.int32).reshape(SHAPE) % 997, Path(case.image[0]), made.affine)

    assert [(f.rule, f.scan) for f in check_case(case).findings] == [("G05-shape-differs", "t1c")]


def test_copy_under_another_name_is_found_between_hospitals(tmp_path: Path, made: SampleCase):
    first, second = write(tmp_path / "1", made), write(tmp_path / "2", made, "case-2")
    entries = entries_of([DataList("a", training=(first,)), DataList("b", testing=(second,))])

    findings = [f for f in check_list(entries, [check_case(e.case) for e in entries]) if f.rule[:3] != "G08"]

    assert [(f.rule, f.site, f.case) for f in findings] == [("G13-scan-twice", "b", "case-2")]
    assert findings[0].found == "t1c, t1n, t2w, t2f show the same as scans of case-1, in training of a"
