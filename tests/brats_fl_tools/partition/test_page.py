"""The page of a partition, and the intensities on it."""

from __future__ import annotations

import re
from pathlib import Path

import nibabel
import numpy as np
import pytest
from tests.tiny_sites import SHAPE, write_tiny_case
from tests.tiny_sites import save as tiny_save

from brats_fl.cases.datalists import Case, write_datalist
from brats_fl.errors import CaseError
from brats_fl_tools.data.import_cases import import_cases
from brats_fl_tools.partition.intensities import EDGES, measure, measure_case
from brats_fl_tools.partition.manifest import build_manifest
from brats_fl_tools.partition.page import render_page
from brats_fl_tools.partition.plan import Options, Strategy, partition_cases


def save(voxels: object, file: Path) -> Path:
    nibabel.save(nibabel.Nifti1Image(np.asarray(voxels, np.int16), np.eye(4)), file)
    return file


def test_brightness_is_the_brains_and_the_histogram_a_density() -> None:
    voxels = np.zeros((70, 10, 10))
    voxels[:35], voxels[35:63] = 100, 300  # 7 in 10 of the volume is 0 or 100

    measured = measure(voxels)

    assert measured.median == 100
    assert float(np.sum(measured.density * np.diff(EDGES))) == pytest.approx(1)
    assert np.count_nonzero(measured.density) == 2


def test_volume_of_a_4d_file_is_measured_by_itself(tmp_path: Path) -> None:
    volumes = [np.full((8, 8, 8), 10 + k + np.arange(8)) for k in (0, 100, 0, 0)]
    file = save(np.stack(volumes, axis=3), tmp_path / "a.nii.gz")

    measured = measure_case(Case("a", "a", tuple(f"{file}#{k}" for k in range(4))))

    assert measured["t1n"].median == measured["t1c"].median + 100


def test_scan_without_a_brain_is_refused(tmp_path: Path) -> None:
    case = write_tiny_case(tmp_path, "case-1")
    tiny_save(np.zeros(SHAPE, np.int16), Path(case.image[2]))

    with pytest.raises(CaseError, match=r"case-1: t2w: G22-constant: every voxel is 0 \(.*_t2\.nii"):
        measure_case(case)


def test_page_tells_what_the_hospitals_look_like_and_needs_no_other_file(tmp_path: Path) -> None:
    for n in range(6):
        write_tiny_case(tmp_path / "HGG", f"case-{n}")
    rows = import_cases(tmp_path / "HGG").rows
    options = Options(Strategy.EVEN, sites=2, leave_out="hospital-2")
    partition = partition_cases(rows, options)
    for datalist in partition.datalists:
        write_datalist(tmp_path / datalist.site / "datalist.json", datalist)
    manifest = build_manifest(options, partition, rows, Path("cases.csv"), None)

    page = render_page(partition, manifest, {site: tmp_path / site for site in partition.cases})

    assert re.search(r"hospital-1</th><td>1</td><td>1</td><td>1</td><td>3</td>", page)
    assert re.search(r'hospital-2 <span class="badge">left out</span></th><td>0</td><td>0</td><td>3</td>', page)
    assert manifest["study_sha256"] in page
    assert page.count("<svg ") == 7  # cases, grades, volumes, four modalities
    assert "case-0" not in page
    assert not re.search(r'(src|href)="(?!#|data:)', page)
