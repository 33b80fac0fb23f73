"""Fingerprints: one scan has one fingerprint however it is saved, two scans have two, and none without a good key."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from tests.shared_data import REAL_CASES, needs_real_cases
from tests.tiny_sites import AFFINE, SHAPE, save, write_tiny_case

from brats_fl.cases.datalists import Case
from brats_fl.cases.folders import find_cases
from brats_fl.constants import MODALITIES
from brats_fl.errors import CaseError, PrivacyError
from brats_fl.sharing.fingerprints import BITS, check_key, describe_scan, fingerprint_case, fingerprint_scan
from brats_fl_tools.sample import make_case

KEY = bytes(range(100, 132))


@pytest.fixture(scope="module")
def scan() -> tuple[np.ndarray, np.ndarray]:
    made = make_case(0, 2, 1, 4.0)
    return made.images["t2w"], made.affine


def brain_of(voxels: np.ndarray) -> np.ndarray:
    return voxels != 0


def z_scored(voxels: np.ndarray) -> np.ndarray:
    values = voxels.astype(np.float64)
    brain = brain_of(voxels)
    values[brain] = (values[brain] - values[brain].mean()) / values[brain].std()
    return values


@pytest.mark.parametrize(
    "change",
    [
        lambda v: v.astype(np.float64),
        lambda v: v.astype(np.float32) * np.float32(0.001),
        lambda v: v.astype(np.int32) * 7,
        lambda v: v.astype(np.float32) * 2 + 500,  # the background too
        z_scored,
    ],
    ids=["float64", "a thousandth", "seven times", "another origin", "z-scored"],
)
def test_scan_on_another_scale_or_type_is_the_same(scan, change):
    voxels, affine = scan

    assert fingerprint_scan(change(voxels), affine, KEY) == fingerprint_scan(voxels, affine, KEY)


def test_scan_in_ras_is_the_same(scan):
    image = nib.as_closest_canonical(nib.Nifti1Image(*scan))

    assert nib.aff2axcodes(scan[1]) == ("L", "P", "S")
    assert describe_scan(np.asanyarray(image.dataobj), image.affine) == describe_scan(*scan)


def test_scan_in_a_smaller_or_larger_field_of_view_is_the_same(scan):
    voxels, affine = scan
    smaller, larger = affine.copy(), affine.copy()
    smaller[:3, 3] += affine[:3, :3] @ [5, 3, 0]
    larger[:3, 3] -= affine[:3, :3] @ [7, 0, 2]

    assert describe_scan(voxels[5:-4, 3:-3], smaller) == describe_scan(voxels, affine)
    assert describe_scan(np.pad(voxels, ((7, 0), (0, 6), (2, 3))), larger) == describe_scan(voxels, affine)


def test_scans_of_other_patients_and_other_modalities_differ():
    cases = [make_case(0, hospital, index, 4.0) for hospital, index in ((1, 1), (1, 2), (4, 1))]
    looks = [describe_scan(made.images[name], made.affine) for made in cases for name in MODALITIES]

    assert all(len(look) == BITS // 8 == 12 for look in looks)
    assert len(set(looks)) == 12


@needs_real_cases
def test_real_scan_saved_anew_is_the_same_and_another_patient_s_is_not(tmp_path: Path):
    items = find_cases(REAL_CASES)[::6]
    cases = [Case(item["case"], item["case"], tuple(item["image"])) for item in items]
    image = nib.load(cases[0].image[3])
    values = np.asarray(image.dataobj, np.float32) * np.float32(0.37)
    nib.save(nib.Nifti1Image(values, image.affine), tmp_path / "anew.nii")
    anew = replace(cases[0], image=(*cases[0].image[:3], str(tmp_path / "anew.nii")))

    fingerprints = [set(fingerprint_case(case, KEY)) for case in cases]

    assert all(first.isdisjoint(second) for first, second in combinations(fingerprints, 2))
    assert set(fingerprint_case(anew, KEY)) == fingerprints[0]


def test_case_has_four_sorted_fingerprints_that_depend_on_the_key(tmp_path: Path):
    case = write_tiny_case(tmp_path, "case-1")
    first, second = fingerprint_case(case, KEY), fingerprint_case(case, KEY[::-1])

    assert len(first) == 4
    assert list(first) == sorted(first)
    assert all(len(value) == 64 and set(value) <= set("0123456789abcdef") for value in first)
    assert set(first).isdisjoint(second)


def test_volumes_of_a_4d_file_have_the_fingerprints_of_files_of_their_own(tmp_path: Path):
    case = write_tiny_case(tmp_path, "case-1")
    save(np.stack([np.asarray(nib.load(file).dataobj) for file in case.image], axis=3), tmp_path / "all.nii.gz")
    in_one_file = replace(case, image=tuple(f"{tmp_path}/all.nii.gz#{k}" for k in range(4)))

    assert fingerprint_case(in_one_file, KEY) == fingerprint_case(case, KEY)


@pytest.mark.parametrize(
    ("key", "message"),
    [
        (b"", "has 0 bytes; it must have at least 32 random ones"),
        (KEY[:31], "has 31 bytes; it must have at least 32 random ones"),
        (b"hospital" * 8, "has only 8 different bytes and is not random"),
    ],
)
def test_key_that_can_be_guessed_is_refused(tmp_path: Path, key: bytes, message: str):
    with pytest.raises(PrivacyError, match=message):
        check_key(key)
    with pytest.raises(PrivacyError, match=message):
        fingerprint_case(Case("a", "a", ("/absent",) * 4), key)


def test_scan_that_shows_nothing_has_no_fingerprint(tmp_path: Path):
    case = write_tiny_case(tmp_path, "case-1")
    voxels = np.zeros(SHAPE, np.int16)
    voxels[20, 24, 20] = 7
    save(voxels, Path(case.image[2]))

    with pytest.raises(CaseError, match=r"case-1: t2w: shows no brain: .*; replace the scan \(.*_t2\.nii\.gz\)"):
        fingerprint_case(case, KEY)


def test_scan_that_is_not_finite_has_no_fingerprint(scan):
    voxels = scan[0].astype(np.float32)
    voxels[tuple(size // 2 for size in voxels.shape)] = np.nan

    with pytest.raises(CaseError, match="holds NaN or infinite values"):
        describe_scan(voxels, AFFINE)
