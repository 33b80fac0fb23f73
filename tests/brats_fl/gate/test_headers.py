"""What the gate finds without reading a voxel."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from tests.conftest import TinySites
from tests.tiny_sites import AFFINE, SHAPE, save, write_tiny_case

from brats_fl.cases.datalists import Case, DataList, read_datalist
from brats_fl.errors import DataListError
from brats_fl.gate import check_case_headers_only, check_headers, refuse_errors
from brats_fl.gate.headers import check_case_headers

BRATS_AFFINE = np.array([[-1.0, 0, 0, 0], [0, -1.0, 0, 239], [0, 0, 1.0, 0], [0, 0, 0, 1]])


@pytest.fixture
def case(tmp_path: Path) -> Case:
    return write_tiny_case(tmp_path / "hospital-1", "case-1")


def rules_of(case: Case) -> dict[str, str]:
    """Rule -> what was found; the tiny cases are in no template space."""
    found = {finding.rule: finding.found for finding in check_case_headers_only(case).findings}
    found.pop("G09-not-template-space", None)
    return found


def with_scan(case: Case, at: int, path: Path) -> Case:
    image = list(case.image)
    image[at] = str(path)
    return replace(case, image=tuple(image))


def test_sound_list_has_no_error(tiny_sites: TinySites):
    sites = tiny_sites({"hospital-1": (3, 1, 1)})

    findings = check_headers(read_datalist(sites / "hospital-1" / "datalist.json"))

    assert {finding.rule for finding in findings} == {"G08-spacing-not-1mm", "G09-not-template-space"}
    refuse_errors(findings)


def test_list_with_a_missing_file_is_refused_with_the_file(case: Case, tmp_path: Path):
    lost = with_scan(case, 2, tmp_path / "absent.nii.gz")

    with pytest.raises(DataListError, match=r"found 1 error, nothing .*\n.*case-1 t2w: G01-file-missing: .*absent"):
        refuse_errors(check_headers(DataList("hospital-1", training=(lost,))))


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
def test_file_that_is_cut_short_is_found_without_reading_its_voxels(case: Case, tmp_path: Path, ending: str):
    path = tmp_path / f"cut{ending}"
    save(np.random.default_rng(0).integers(0, 999, SHAPE).astype(np.int16), path)
    path.write_bytes(path.read_bytes()[:-500])

    # 352 bytes of header and 40 x 48 x 40 voxels of 2 bytes.
    assert "of 153952 bytes" in rules_of(with_scan(case, 0, path))["G03-file-truncated"]


def test_packed_file_with_something_behind_its_voxels_is_whole(case: Case, tmp_path: Path):
    import gzip

    whole = gzip.decompress(Path(case.image[0]).read_bytes())
    path = tmp_path / "longer.nii.gz"
    path.write_bytes(gzip.compress(whole + b"more"))

    assert rules_of(with_scan(case, 0, path)) == {}


@pytest.mark.parametrize("content", [b"", b"\x1f\x8b", b"<html>please log in</html>" * 50])
def test_file_that_is_no_nifti_is_unreadable(case: Case, tmp_path: Path, content: bytes):
    path = tmp_path / "page.nii.gz"
    path.write_bytes(content)

    assert list(rules_of(with_scan(case, 1, path))) == ["G02-file-unreadable"]


def test_4d_file_is_a_scan_only_where_the_list_names_a_volume_of_it(case: Case, tmp_path: Path):
    path = tmp_path / "all.nii.gz"
    save(np.zeros((*SHAPE, 4), np.int16), path)

    assert rules_of(with_scan(case, 0, path))["G04-not-3d"].endswith("(40, 48, 40, 4), and no volume of it is named")
    assert rules_of(with_scan(case, 0, Path(f"{path}#3"))) == {}
    assert "#0 to #3, and #4 is named" in rules_of(with_scan(case, 0, Path(f"{path}#4")))["G04-not-3d"]


def test_scan_of_another_shape_is_told_apart_from_the_majority(case: Case, tmp_path: Path):
    save(np.zeros((40, 48, 38), np.int16), tmp_path / "short.nii")

    findings, _ = check_case_headers(with_scan(case, 0, tmp_path / "short.nii"))
    odd = [finding for finding in findings if finding.rule == "G05-shape-differs"]

    # t1c is the odd one although it comes first: the four others agree.
    assert [(finding.scan, finding.found) for finding in odd] == [("t1c", "shape 40 x 48 x 38, t1n has 40 x 48 x 40")]


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (np.diag([-1.0, -1, 1, 1]), "orientation RAS, t1c has LPS"),
        (np.diag([1.0, 1, 1.5, 1]), "spacing 2 x 2 x 3 mm, t1c has 2 x 2 x 2 mm"),
        (
            np.array([[1.0, 0, 0, 3], [0, 1, 0, 4], [0, 0, 1, 0], [0, 0, 0, 1]]),
            "position is 10 mm away from that of t1c",
        ),
        (
            np.array([[0.8, -0.6, 0, 0], [0.6, 0.8, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]),
            "axes are tilted against those of t1c",
        ),
    ],
)
def test_affine_that_differs_says_in_what(case: Case, tmp_path: Path, change: np.ndarray, found: str):
    # A shift by 3 and 4 voxels of 2 mm is one of 10 mm.
    save(np.zeros(SHAPE, np.int16), tmp_path / "odd.nii", AFFINE @ change)

    assert rules_of(with_scan(case, 3, tmp_path / "odd.nii")) == {"G06-affine-differs": found}


def test_affines_that_differ_by_rounding_agree(case: Case, tmp_path: Path):
    save(np.zeros(SHAPE, np.int16), tmp_path / "rounded.nii", AFFINE + 0.0005)

    assert rules_of(with_scan(case, 3, tmp_path / "rounded.nii")) == {}


@pytest.mark.parametrize(
    ("shape", "affine", "found"),
    [
        ((240, 240, 155), BRATS_AFFINE, None),
        ((120, 120, 78), np.array([[-2, 0, 0, -0.5], [0, -2, 0, 238.5], [0, 0, 2, 0.5], [0, 0, 0, 1.0]]), None),
        ((240, 240, 155), np.eye(4), "orientation RAS, not LPS"),
        ((182, 218, 182), BRATS_AFFINE, "field of view 182 x 218 x 182 mm, not 240 x 240 x 155 mm"),
        (
            (240, 240, 155),
            BRATS_AFFINE + np.eye(4, k=3) * 90,
            "field of view begins at 90.5 x 239.5 x -0.5 mm, not at 0.5 x 239.5 x -0.5 mm",
        ),
    ],
    ids=["brats", "sample at 2 mm", "identity", "mni", "moved"],
)
def test_template_space_is_brats_field_of_view_at_any_voxel_size(
    tmp_path: Path, shape: tuple[int, ...], affine: np.ndarray, found: str | None
):
    path = tmp_path / "scan.nii"
    nib.save(nib.Nifti1Image(np.zeros(shape, np.uint8), affine), path)

    findings = check_case_headers_only(Case("a", "a", (str(path),) * 4)).findings

    assert [finding.found for finding in findings] == ([] if found is None else [found])
