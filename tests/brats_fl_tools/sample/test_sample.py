"""Sample hospitals: the same files for a seed, BraTS's layout, a tumour in every brain, sites that differ."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from brats_fl.cases.datalists import read_datalist
from brats_fl.constants import MODALITIES, SITES
from brats_fl.errors import BratsFLError
from brats_fl_tools.data.case_table import check_files, read_case_table
from brats_fl_tools.own_folders import claim
from brats_fl_tools.sample import SampleCase, make_case, sample, write_sample
from brats_fl_tools.sample import write as writing
from brats_fl_tools.sample.fields import Grid, smooth_field
from brats_fl_tools.sample.tumour import LATE_MM, arrival_mm
from brats_fl_tools.sample.write import plan_entries

# 4 mm voxels: a case takes a fifth of a second, and the same code draws it.
COARSE_MM = 4.0


@cache
def coarse_case(seed: int, hospital: int, index: int) -> SampleCase:
    return make_case(seed, hospital, index, COARSE_MM)


@pytest.fixture(scope="module")
def high_grade() -> SampleCase:
    return make_case(seed=0, hospital=1, index=1, spacing_mm=2.0)


@pytest.fixture(scope="module")
def sites(tmp_path_factory: pytest.TempPathFactory) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(writing, "SPACING_MM", COARSE_MM)
        return write_sample(tmp_path_factory.mktemp("sample") / "sites", 3, 7, False, lambda line: None)


def files_of(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_case_is_the_same_on_every_call():
    first, second = coarse_case(3, 2, 1), make_case(3, 2, 1, COARSE_MM)

    np.testing.assert_array_equal(first.seg, second.seg)
    for modality in MODALITIES:
        np.testing.assert_array_equal(first.images[modality], second.images[modality])


@pytest.mark.parametrize("other", [(4, 2, 1), (3, 1, 1), (3, 2, 2)])
def test_another_seed_hospital_or_number_is_another_case(other: tuple[int, int, int]):
    first, second = coarse_case(3, 2, 1), coarse_case(*other)

    assert np.mean((first.images["t1n"] > 0) != (second.images["t1n"] > 0)) > 0.005
    assert np.any(first.seg != second.seg)


def test_case_has_the_field_of_view_of_brats_at_2_mm(high_grade: SampleCase):
    # 240 / 2, 240 / 2, 155 / 2 rounded up; the first 2 mm voxel covers the first two 1 mm voxels, 0 and 1.
    assert high_grade.seg.shape == (120, 120, 78)
    np.testing.assert_array_equal(
        high_grade.affine, [[-2, 0, 0, -0.5], [0, -2, 0, 238.5], [0, 0, 2, 0.5], [0, 0, 0, 1]]
    )


def test_full_size_grid_is_that_of_brats():
    grid = Grid(1.0)

    assert grid.shape == (240, 240, 155)
    np.testing.assert_array_equal(grid.affine, [[-1, 0, 0, 0], [0, -1, 0, 239], [0, 0, 1, 0], [0, 0, 0, 1]])


def test_scans_share_one_brain_and_are_zero_outside(high_grade: SampleCase):
    brain = high_grade.images["t1c"] > 0

    for modality in MODALITIES:
        scan = high_grade.images[modality]
        assert scan.dtype == np.int16
        np.testing.assert_array_equal(scan > 0, brain)
        assert scan.min() == 0
    assert np.all(brain[high_grade.seg > 0])
    # 1 to 2 litres of 8 mm³ voxels, and air on every side of the head but below.
    assert 1.0 < brain.sum() * 8 / 1e6 < 2.0
    assert not brain[0].any()
    assert not brain[:, 0].any()
    assert not brain[..., -1].any()


def test_high_grade_case_has_all_labels_and_low_grade_none_that_enhances(high_grade: SampleCase):
    low_grade = coarse_case(0, 4, 1)

    assert np.unique(high_grade.seg).tolist() == [0, 1, 2, 4]
    assert np.unique(low_grade.seg).tolist() == [0, 1, 2]
    assert (high_grade.grade, low_grade.grade) == ("HGG", "LGG")


def test_tumour_parts_look_as_radiology_describes_them(high_grade: SampleCase):
    scans, seg = high_grade.images, high_grade.seg
    healthy = (scans["t1n"] > 0) & (seg == 0)

    def brightness(modality: str, part: np.ndarray) -> float:
        return float(np.median(scans[modality][part]) / np.median(scans[modality][healthy]))

    assert brightness("t1c", seg == 4) > 1.2  # the rim takes up contrast agent
    assert brightness("t1c", seg == 1) < 0.9  # the necrotic core does not
    assert brightness("t2w", seg == 1) > 1.5  # and is watery
    assert brightness("t2f", seg == 2) > 1.2  # oedema shines in FLAIR
    white = np.percentile(scans["t1n"][healthy], 80)
    assert np.median(scans["t1n"][seg == 2]) < white  # and darkens white matter in T1


def test_no_threshold_on_flair_finds_the_tumour(high_grade: SampleCase):
    flair = high_grade.images["t2f"]
    tumour = high_grade.seg > 0
    levels = np.percentile(flair[flair > 0], np.arange(50, 100))

    dice = max(2 * np.sum(tumour & (flair > t)) / (np.sum(tumour) + np.sum(flair > t)) for t in levels)

    assert 0.3 < dice < 0.9


def test_other_grid_shows_the_same_patient(high_grade: SampleCase):
    fine, coarse = high_grade, coarse_case(0, 1, 1)

    # A voxel of 4 mm is a block of 2 × 2 × 2; the corner one of each block is within 1.8 mm of its centre.
    brain, coarse_brain = fine.images["t1n"][::2, ::2, ::2] > 0, coarse.images["t1n"] > 0
    assert 2 * np.sum(brain & coarse_brain) / (brain.sum() + coarse_brain.sum()) > 0.95
    ratio = np.median(coarse.images["t1n"][coarse_brain]) / np.median(fine.images["t1n"][fine.images["t1n"] > 0])
    assert 0.9 < ratio < 1.1


def test_hospitals_differ_in_the_scale_of_intensity():
    bright, dark = (coarse_case(0, hospital, 1).images["t1n"] for hospital in (4, 3))

    assert np.median(bright[bright > 0]) > 5 * np.median(dark[dark > 0])


@pytest.mark.parametrize("numbers", [(-1, 1, 1, 2.0), (0, 6, 1, 2.0), (0, 1, 0, 2.0), (0, 1, 1, 0.5)])
def test_number_out_of_range_is_refused(numbers: tuple[int, int, int, float]):
    with pytest.raises(ValueError, match="got"):
        make_case(*numbers)


def test_smooth_field_has_mean_0_deviation_1_and_is_smooth():
    field = smooth_field(np.random.default_rng(0), Grid(4.0), lattice_mm=20.0)

    assert abs(field.mean()) < 0.15
    assert 0.85 < field.std() < 1.15
    # 4 mm is a fifth of the lattice: neighbours are nearly equal.
    assert np.abs(np.diff(field, axis=0)).max() < 1.5


def test_front_goes_round_a_wall_and_slows_where_the_cost_is_high():
    cost = np.ones((1, 3, 5), np.float32)
    cost[0, 0, 2] = 9
    within = np.ones((1, 3, 5), bool)
    within[0, 1:, 2] = False  # only the costly voxel joins the two sides
    start = np.full((1, 3, 5), LATE_MM, np.float32)
    start[0, 0, 0] = 0

    time = arrival_mm(start, cost, within, step_mm=2.0)

    # Steps of 2 mm at the mean cost of their ends: 1, then (1 + 9) / 2, then (9 + 1) / 2.
    np.testing.assert_allclose(time[0, 0], [0, 2, 12, 22, 24], rtol=1e-6)
    assert time[0, 1, 2] == np.float32(LATE_MM)


def test_hospitals_have_a_case_more_or_fewer_and_every_split():
    entries = plan_entries(6)

    assert [sum(e.site == site for e in entries) for site in SITES] == [6, 7, 5, 6, 7]
    for site, count in zip(SITES, (4, 5, 3, 4, 5), strict=True):
        splits = [e.split for e in entries if e.site == site]
        assert {s: splits.count(s) for s in splits} == {"training": count, "validation": 1, "testing": 1}


def test_more_cases_leave_name_and_split_of_the_earlier_ones():
    assert {(e.case, e.split) for e in plan_entries(6)} <= {(e.case, e.split) for e in plan_entries(9)}


def test_sites_hold_data_lists_with_relative_paths_and_disjoint_splits(sites: Path):
    names = set()
    for site in SITES:
        content = json.loads((sites / site / "datalist.json").read_text())
        for split in ("training", "validation", "testing"):
            for entry in content[split]:
                assert entry["case"] not in names
                names.add(entry["case"])
                assert entry["image"][0] == f"data/{entry['case']}/{entry['case']}_t1ce.nii.gz"
        for case in read_datalist(sites / site / "datalist.json").testing:
            assert all(Path(file).is_file() for file in (*case.image, case.label))
    assert len(names) == 3 + 4 + 3 + 3 + 4


def test_files_of_a_case_share_brats_header(sites: Path):
    folder = sites / "hospital-2" / "data" / "Sample_h2_001"
    suffixes = ("t1", "t1ce", "t2", "flair", "seg")

    assert {p.name for p in folder.iterdir()} == {f"Sample_h2_001_{suffix}.nii.gz" for suffix in suffixes}
    for suffix in suffixes:
        image = nib.load(folder / f"Sample_h2_001_{suffix}.nii.gz")
        assert image.get_data_dtype() == (np.uint8 if suffix == "seg" else np.int16)
        np.testing.assert_array_equal(image.affine, Grid(COARSE_MM).affine)
        np.testing.assert_array_equal(image.get_qform(), image.get_sform())
        assert (int(image.header["qform_code"]), int(image.header["sform_code"])) == (1, 1)
        assert nib.aff2axcodes(image.affine) == ("L", "P", "S")


def test_case_table_names_the_files_and_the_grade(sites: Path):
    rows = read_case_table(sites / "cases.csv")

    check_files(sites / "cases.csv", rows)
    assert {row.case: row.grade for row in rows}["Sample_h4_001"] == "LGG"
    assert {row.institution for row in rows} == set(SITES)


def test_same_seed_writes_the_same_bytes_and_force_replaces(sites: Path, tmp_path: Path, monkeypatch):
    monkeypatch.setattr(writing, "SPACING_MM", COARSE_MM)
    monkeypatch.setattr(writing, "SITES", ("hospital-1",))
    before = {name: data for name, data in files_of(sites).items() if name.startswith("hospital-1")}

    lines: list[str] = []
    write_sample(tmp_path / "again", 3, 7, False, lines.append)
    with pytest.raises(BratsFLError, match=r"already holds hospital-1; give --force"):
        write_sample(tmp_path / "again", 3, 7, False, lines.append)
    assert {n: d for n, d in files_of(tmp_path / "again").items() if "/" in n} == before
    assert len(lines) == 1 + 3  # the maps, then a line a case

    write_sample(tmp_path / "again", 3, 8, False, lines.append, force=True)
    after = {n: d for n, d in files_of(tmp_path / "again").items() if "/" in n}
    assert after.keys() == before.keys()
    assert (
        after["hospital-1/data/Sample_h1_001/Sample_h1_001_t1.nii.gz"]
        != (before["hospital-1/data/Sample_h1_001/Sample_h1_001_t1.nii.gz"])
    )
    assert [p.name for p in tmp_path.iterdir()] == ["again"]


def test_force_does_not_remove_what_sample_did_not_write(tmp_path: Path):
    scan = tmp_path / "hospital-1" / "data" / "Patient_7" / "scan.nii.gz"
    scan.parent.mkdir(parents=True)
    scan.touch()

    with pytest.raises(BratsFLError, match="no sample of brats-fl's"):
        write_sample(tmp_path, 3, 0, False, lambda line: None, force=True)
    claim(tmp_path, "sample")
    with pytest.raises(BratsFLError, match="was not written by sample"):
        write_sample(tmp_path, 3, 0, False, lambda line: None, force=True)
    assert scan.exists()


def test_interrupted_sample_leaves_nothing(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(writing, "SPACING_MM", COARSE_MM)

    def interrupt(line: str) -> None:
        if "done=1/" in line:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_sample(tmp_path / "sites", 3, 0, False, interrupt)
    assert list(tmp_path.iterdir()) == []


def test_full_disk_is_one_clear_message_and_leaves_nothing(tmp_path: Path, monkeypatch):
    def fill_disk(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(writing, "SPACING_MM", COARSE_MM)
    monkeypatch.setattr(writing, "write_nifti", fill_disk)

    with pytest.raises(BratsFLError, match=r"sites: cannot be written \(No space left on device\)"):
        write_sample(tmp_path / "sites", 3, 0, False, lambda line: None)
    assert list(tmp_path.iterdir()) == []


def test_fewer_cases_than_splits_are_wrong_usage(tmp_path: Path):
    app = typer.Typer()
    app.command()(sample)

    result = CliRunner().invoke(app, ["--out", str(tmp_path / "sites"), "--cases-per-site", "2"])

    assert result.exit_code == 2
    assert not (tmp_path / "sites").exists()
