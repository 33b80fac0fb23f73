from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.tiny_sites import make_tiny_sites, save

from brats_fl.cases import cache_folder, scans
from brats_fl.cases.cache_folder import FileHashes
from brats_fl.cases.datalists import Case, DataList, read_datalist, write_datalist
from brats_fl.constants import MODALITIES
from brats_fl.errors import CaseError, PrivacyBudgetError, PrivacyError, TooFewCasesError
from brats_fl.privacy.budget import BUDGET_FILE, SPENT_FILE, begin_record, read_spent
from brats_fl.sharing import site_statistics
from brats_fl.sharing.case_features import FEATURES, feature_of, measure_case
from brats_fl.sharing.site_statistics import (
    LOCK_FILE,
    RELEASES_FILE,
    Protection,
    digest_of,
    make_release,
    nearest_histogram,
    read_protection,
    released,
)

ALMOST_NO_NOISE = Protection(min_cases=2, epsilon=1e9)


@pytest.fixture
def datalist(tmp_path: Path) -> Path:
    return make_tiny_sites(tmp_path, {"hospital-1": (3, 1, 2)}) / "hospital-1" / "datalist.json"


def test_case_counts_once_in_every_histogram(datalist: Path):
    measured = measure_case(read_datalist(datalist).training[0])

    assert set(measured) == {feature.name for feature in FEATURES}
    assert all(histogram.sum() == pytest.approx(1) for histogram in measured.values())


def test_release_holds_the_sums_over_all_labelled_cases(datalist: Path):
    content = read_datalist(datalist)
    cases = [*content.training, *content.validation, *content.testing]

    release = released(datalist, ALMOST_NO_NOISE)

    assert release.count == pytest.approx(6, abs=0.01)
    for feature in FEATURES:
        expected = sum(measure_case(case)[feature.name] for case in cases)
        np.testing.assert_allclose(release.histograms[feature.name], expected, atol=0.011)


def test_tumour_of_a_known_size_and_voxels_of_2_mm_are_where_they_belong(datalist: Path):
    release = released(datalist, ALMOST_NO_NOISE)

    ball_ml = 4 / 3 * np.pi * 9**3 * 8 / 1000  # radius of the oedema in voxels of 2 mm: 24 ml, some of it cut off
    assert release.mean(feature_of("wt_ml")) == pytest.approx(ball_ml, abs=20)  # a bin's width
    assert release.mean(feature_of("voxel_mm")) == pytest.approx(2, abs=1e-6)
    assert release.deviation(feature_of("voxel_mm")) == pytest.approx(0, abs=0.02)


def test_noise_has_the_scale_that_epsilon_asks_for():
    nobody = Protection(epsilon=4.5)  # nine questions, half of 1 each
    empty = [make_release("", [], nobody).count for _ in range(2000)]

    # A count below 1 is sent as 1. Of Laplace noise of scale 2 exp(-1/2) / 2 lies above 1, on average 2 above it.
    above = [count - 1 for count in empty if count > 1]
    assert len(above) / len(empty) == pytest.approx(np.exp(-0.5) / 2, abs=0.05)
    assert np.mean(above) == pytest.approx(2, abs=0.4)


def test_asked_again_a_hospital_sends_the_same_noise(datalist: Path):
    first = released(datalist, Protection(min_cases=2))

    assert released(datalist, Protection(min_cases=2)) == first
    assert len(json.loads((datalist.parent / RELEASES_FILE).read_text(encoding="utf-8"))) == 1


def kept(folder: Path) -> list[dict[str, Any]]:
    """The record of what went out."""
    return json.loads((folder / RELEASES_FILE).read_text(encoding="utf-8"))


def test_changed_label_makes_a_second_release_and_the_first_stays_on_record(datalist: Path):
    first = released(datalist, Protection(min_cases=2))
    label = Path(str(read_datalist(datalist).training[0].label))
    voxels = np.asarray(nib.load(label).dataobj).copy()
    voxels[20, 24, 20] = 2 if voxels[20, 24, 20] == 0 else 0
    save(voxels, label)

    second = released(datalist, Protection(min_cases=2))

    assert second.of != first.of
    assert second.histograms != first.histograms
    assert [release["of"] for release in kept(datalist.parent)] == [first.of, second.of]


def test_other_setting_or_convention_makes_another_release(datalist: Path):
    first = released(datalist, Protection(min_cases=2))
    case = read_datalist(datalist).training[0]
    hashes = FileHashes(datalist.parent / "cache")
    ofs = {
        digest_of(cases, protection, hashes)
        for cases, protection in (
            ([case], Protection()),
            ([case], Protection(epsilon=1)),
            ([replace(case, labels="brats2023")], Protection()),
            ([replace(case, image=(*case.image[2:], *case.image[:2]))], Protection()),
            ([case, case], Protection()),
        )
    }

    assert released(datalist, Protection(min_cases=2, epsilon=1)).of != first.of
    assert len(ofs) == 5


def test_data_that_were_moved_renamed_touched_and_dealt_anew_spend_nothing(datalist: Path, tmp_path: Path):
    first = released(datalist, Protection(min_cases=2))
    site = Path(shutil.move(datalist.parent, tmp_path / "elsewhere"))
    text = (site / "datalist.json").read_text().replace(str(datalist.parent), str(site))
    (site / "datalist.json").write_text(text.replace('"case": "hospital-1-case', '"case": "anonymous'))
    content = read_datalist(site / "datalist.json")
    os.utime(str(content.training[0].label), (1, 1))
    write_datalist(site / "datalist.json", DataList("other", content.testing, content.training, content.validation))

    assert released(site / "datalist.json", Protection(min_cases=2)) == first
    assert len(kept(site)) == 1


def test_second_question_reads_no_scan(datalist: Path, monkeypatch: pytest.MonkeyPatch):
    read: list[str] = []
    hash_file = cache_folder.hash_file
    monkeypatch.setattr(cache_folder, "hash_file", lambda path: read.append(path) or hash_file(path))
    monkeypatch.setattr(scans, "load_image", lambda path, load=scans.load_image: read.append(str(path)) or load(path))

    released(datalist, Protection(min_cases=2))
    first = sorted(read)
    released(datalist, Protection(min_cases=2))

    assert len(first) == 6 * 5 * 2  # six cases of five files, each hashed once and measured once
    assert sorted(read) == first


ASK = """
import sys, time
from pathlib import Path
from brats_fl.sharing.site_statistics import Protection, released
Path(sys.argv[2]).touch()
while len(list(Path(sys.argv[2]).parent.glob("ready-*"))) < 3:
    time.sleep(0.01)
print(released(Path(sys.argv[1]), Protection(min_cases=2)).histograms)
"""


def test_processes_that_ask_at_once_get_one_release(datalist: Path, tmp_path: Path):
    ready = tmp_path / "ready"
    ready.mkdir()
    asking = [
        subprocess.Popen([sys.executable, "-c", ASK, str(datalist), str(ready / f"ready-{n}")], stdout=subprocess.PIPE)
        for n in range(3)
    ]
    answers = [process.communicate()[0] for process in asking]

    assert [process.returncode for process in asking] == [0, 0, 0]
    assert len(set(answers)) == 1
    assert len(kept(datalist.parent)) == 1


def test_scan_that_changes_while_it_is_measured_is_not_released(datalist: Path, monkeypatch: pytest.MonkeyPatch):
    def measure(case: Case) -> dict[str, Any]:
        Path(case.image[0]).write_bytes(Path(case.image[1]).read_bytes())
        return measure_case(case)

    monkeypatch.setattr(site_statistics, "measure_case", measure)

    with pytest.raises(CaseError, match=r"a scan or label changed while it was read; ask again once they stay"):
        released(datalist, Protection(min_cases=2))
    assert not (datalist.parent / RELEASES_FILE).exists()


def test_missing_scan_is_named(datalist: Path):
    Path(read_datalist(datalist).training[1].image[2]).unlink()

    with pytest.raises(CaseError, match=r"hospital-1-case-002: t2w: .*_t2\.nii\.gz is not there; restore the file"):
        released(datalist, Protection(min_cases=2))


def test_nothing_goes_out_where_there_is_no_lock(datalist: Path):
    (datalist.parent / LOCK_FILE).mkdir()

    with pytest.raises(PrivacyError, match=r"must be kept, one process at a time, and cannot be .*; make its folder"):
        released(datalist, Protection(min_cases=2))


def test_too_few_cases_release_nothing(datalist: Path):
    with pytest.raises(TooFewCasesError, match="labelled cases of 6 patients; statistics need 7"):
        released(datalist, Protection(min_cases=7))

    assert not (datalist.parent / RELEASES_FILE).exists()


def test_two_cases_of_a_patient_count_once_where_there_must_be_enough(datalist: Path):
    content = read_datalist(datalist)
    same = tuple(replace(case, patient="one") for case in content.training)
    write_datalist(datalist, DataList(content.site, same, content.validation, content.testing))

    with pytest.raises(TooFewCasesError, match="of 4 patients; statistics need 5"):
        released(datalist, Protection(min_cases=5))


def test_nothing_goes_out_where_it_cannot_be_kept(datalist: Path):
    (datalist.parent / RELEASES_FILE).write_text("[{", encoding="utf-8")

    with pytest.raises(PrivacyError, match=f"{RELEASES_FILE}: .*it is the record of what went out"):
        released(datalist, Protection(min_cases=2))


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("BRATS_FL_STATISTICS_MIN_CASES", "1", "must be at least 2"),
        ("BRATS_FL_STATISTICS_MIN_CASES", "few", "must be a number"),
        ("BRATS_FL_STATISTICS_EPSILON", "0", "must be a finite number above 0"),
        ("BRATS_FL_STATISTICS_EPSILON", "inf", "must be a finite number above 0"),
        ("BRATS_FL_STATISTICS_EPSILON", "nan", "must be a finite number above 0"),
    ],
)
def test_wrong_setting_is_an_error_that_names_it(name: str, value: str, message: str):
    with pytest.raises(PrivacyError, match=f"{name} {message}"):
        read_protection({name: value})


def test_settings_come_from_the_site_alone():
    assert read_protection({}) == Protection(min_cases=5, epsilon=9)
    assert read_protection({"BRATS_FL_STATISTICS_EPSILON": "2"}).noise_scale == 4.5


def test_label_of_another_convention_is_an_error(datalist: Path):
    case = read_datalist(datalist).training[0]

    with pytest.raises(CaseError, match=r"label holds 4 in [0-9,]+ voxels; the convention brats2023 has"):
        measure_case(replace(case, labels="brats2023"))


def test_unlabelled_cases_do_not_count(datalist: Path):
    content = read_datalist(datalist)
    unlabelled = replace(content.testing[0], label=None)
    write_datalist(datalist, DataList(content.site, content.training, content.validation, (unlabelled,)))

    assert released(datalist, ALMOST_NO_NOISE).count == pytest.approx(4, abs=0.01)


@given(st.lists(st.floats(-50, 50), min_size=1, max_size=30), st.floats(1, 200))
def test_nearest_histogram_has_no_negative_count_and_the_total(noised: list[float], total: float):
    found = nearest_histogram(np.array(noised), total)

    assert found.min() >= 0
    assert found.sum() == pytest.approx(total)
    # Moving a little from one bin to another never gets nearer.
    for i in range(len(found)):
        for j in range(len(found)):
            if i != j and found[i] > 1e-6:
                step = min(1e-4, found[i])
                moved = found.copy()
                moved[i] -= step
                moved[j] += step
                assert np.sum((moved - noised) ** 2) >= np.sum((found - noised) ** 2) - 1e-9


def test_intensities_of_a_scan_of_another_scale_move_by_its_logarithm(datalist: Path):
    """A scanner with twice the gain is one octave, two bins, further up."""
    case = read_datalist(datalist).training[0]
    bright = datalist.parent / "bright.nii.gz"
    image = nib.load(case.image[0])
    nib.save(nib.Nifti1Image(np.asarray(image.dataobj) * 2, image.affine), bright)

    once, twice = measure_case(case), measure_case(replace(case, image=(str(bright), *case.image[1:])))

    np.testing.assert_allclose(twice[MODALITIES[0]][2:], once[MODALITIES[0]][:-2])


def test_release_spends_of_the_budget_once_by_the_patient_with_most_cases_and_is_refused_where_it_would_pass(datalist):
    first, second, third = read_datalist(datalist).training
    of_two = (first, replace(second, patient="twice"), replace(third, patient="twice"))
    write_datalist(datalist, replace(read_datalist(datalist), training=of_two))
    budget, record = datalist.with_name(BUDGET_FILE), datalist.with_name(SPENT_FILE)
    budget.write_text('{"epsilon": 7.5, "delta": 0.001}', encoding="utf-8")
    begin_record(record)
    protection = Protection(min_cases=2, epsilon=3.0)

    released(datalist, protection, budget)
    released(datalist, protection, budget)  # the same numbers again

    (line,) = read_spent(record)
    assert (line.epsilon, len(line.patients)) == (6.0, 5)  # two cases of one patient; six cases of five patients
    with pytest.raises(PrivacyBudgetError, match=r"with these statistics a patient would have spent epsilon 8\.000"):
        released(datalist, replace(protection, epsilon=1.0), budget)
    assert len(json.loads(datalist.with_name(RELEASES_FILE).read_text(encoding="utf-8"))) == 1
