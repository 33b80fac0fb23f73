"""Partitions of a study on which a hospital trains on spoilt labels: its lists, its record, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tests.study_files import ONE_JOB, write_study
from tests.tiny_sites import make_tiny_sites

from brats_fl.cases.datalists import DATALIST_FILE, read_datalist
from brats_fl.cases.scans import VolumeReader
from brats_fl.errors import DataListError, RunError
from brats_fl_tools.study.definition import read_study
from brats_fl_tools.study.expansion import cases_of, expand
from brats_fl_tools.study.record import read_record
from brats_fl_tools.study.state import begin_or_go_on

SPOILT = ONE_JOB + '\n[spoilt.sites]\nhospital-2 = "mirrored"\n'
TWO_PARTITIONS = ONE_JOB.replace('sites = "sites"', 'partitions = { clean = "sites", spoilt = "sites" }') + (
    '\n[spoilt.spoilt]\nhospital-2 = "swapped"\n'
)


def begin(path: Path) -> Path:
    """The study's folder as its start leaves it, before the first run."""
    study, out = read_study(path), path.parent / "out"
    begin_or_go_on(path, study, expand(study, path, out), out, force=False)
    return out


def write_tiny_study(folder: Path, text: str) -> Path:
    path = write_study(folder / "files", text)
    make_tiny_sites(path.parent / "sites", {"hospital-1": (1, 1, 1), "hospital-2": (1, 1, 1)})
    return path


def label_of(datalist: Path, split: str) -> np.ndarray:
    return VolumeReader().read(str(read_datalist(datalist).split(split)[0].label)).voxels


def test_every_run_of_the_partition_trains_on_the_spoilt_list_and_the_record_says_how(tmp_path: Path):
    path = write_tiny_study(tmp_path, SPOILT)

    out = begin(path)

    record = read_record(out)
    assert record.spoilt == {"sites": {"hospital-2": "mirrored"}}
    assert {run.sites_dir for run in record.runs} == {out / "spoilt" / "sites"}
    for site in ("hospital-1", "hospital-2"):
        true, given = path.parent / "sites" / site / DATALIST_FILE, out / "spoilt" / "sites" / site / DATALIST_FILE
        for split in ("training", "validation", "testing"):
            is_spoilt = site == "hospital-2" and split != "testing"
            expected = label_of(true, split)[::-1] if is_spoilt else label_of(true, split)
            np.testing.assert_array_equal(label_of(given, split), expected)


def test_folds_are_spoilt_each_and_a_case_is_true_where_it_is_tested(tmp_path: Path):
    path = write_tiny_study(tmp_path, SPOILT.replace("rounds = 3", "rounds = 3\nfolds = 2"))

    out = begin(path)

    lists = [out / "spoilt" / "sites" / f"fold-{fold}" / "hospital-2" / DATALIST_FILE for fold in (1, 2)]
    for datalist in map(read_datalist, lists):
        assert all("altered-labels/mirrored" in str(case.label) for case in datalist.training)
        assert not any("altered-labels" in str(case.label) for case in datalist.testing)


def test_one_folder_may_be_a_partition_as_it_is_and_another_spoilt(tmp_path: Path):
    path = write_tiny_study(tmp_path, TWO_PARTITIONS)

    clean, spoilt = cases_of(read_study(path), path.parent / "out")

    assert (clean.sites, clean.spoilt) == (path.parent / "sites", {})
    assert (spoilt.sites, spoilt.spoilt) == (path.parent / "out" / "spoilt" / "spoilt", {"hospital-2": "swapped"})
    assert not (path.parent / "out").exists()  # a plan writes nothing


def test_runs_are_others_where_labels_are_spoilt_or_spoilt_otherwise(tmp_path: Path):
    digests = []
    for text in (ONE_JOB, SPOILT, SPOILT.replace("mirrored", "swapped")):
        path = write_study(tmp_path, text)
        digests.append(expand(read_study(path), path, tmp_path / "out")[0].recipe_sha256)

    assert len(set(digests)) == 3


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        ("[spoilt.sites]", "[spoilt.other]", "spoilt must name partitions of the study, sites (got 'other')"),
        ('hospital-2 = "mirrored"', "", "spoilt.sites must name a hospital; leave it out to spoil nothing"),
        ("mirrored", "upside-down", "must be one of mirrored, swapped, noisy-boundary (got 'upside-down')"),
        ('"mirrored"', "3", "must be one of mirrored, swapped, noisy-boundary (got 3)"),
    ],
)
def test_what_cannot_be_spoilt_is_refused_in_words(before: str, after: str, words: str, tmp_path: Path):
    path = write_study(tmp_path, SPOILT.replace(before, after))

    with pytest.raises(RunError) as caught:
        read_study(path)

    assert words in str(caught.value)


def test_hospital_without_a_training_case_has_nothing_to_spoil(tmp_path: Path):
    path = write_study(tmp_path, SPOILT.replace("hospital-2", "hospital-9"))

    with pytest.raises(DataListError, match=r"spoilt\.sites: hospital-9 has no training case .*hospital-1, hospital-2"):
        expand(read_study(path), path, tmp_path / "out")
