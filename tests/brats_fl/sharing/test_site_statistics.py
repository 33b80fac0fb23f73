from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.tiny_sites import make_tiny_sites

from brats_fl.cases.datalists import DataList, read_datalist, write_datalist
from brats_fl.constants import MODALITIES
from brats_fl.errors import CaseError, PrivacyError, TooFewCasesError
from brats_fl.sharing.site_statistics import (
    FEATURES,
    RELEASES_FILE,
    Protection,
    feature_of,
    make_release,
    measure_case,
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


def test_changed_data_make_a_second_release_and_the_first_stays_on_record(datalist: Path):
    first = released(datalist, Protection(min_cases=2))
    label = Path(str(read_datalist(datalist).training[0].label))
    os.utime(label, (1, 1))

    second = released(datalist, Protection(min_cases=2))

    assert second.of != first.of
    assert second.histograms != first.histograms
    assert len(json.loads((datalist.parent / RELEASES_FILE).read_text(encoding="utf-8"))) == 2


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

    with pytest.raises(PrivacyError, match=f"{RELEASES_FILE}: the record of what went out is damaged"):
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

    with pytest.raises(CaseError, match="label holds 4; the convention brats2023 has"):
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
    import nibabel as nib

    image = nib.load(case.image[0])
    nib.save(nib.Nifti1Image(np.asarray(image.dataobj) * 2, image.affine), bright)

    once, twice = measure_case(case), measure_case(replace(case, image=(str(bright), *case.image[1:])))

    np.testing.assert_allclose(twice[MODALITIES[0]][2:], once[MODALITIES[0]][:-2])
