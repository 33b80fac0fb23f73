"""Who gains, who contributes, and whose labels look spoilt: tables made so that the answer is known."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.study_folders import Dice, even, write_study_folder

from brats_fl_tools.acceptance.evidence import Candidate, gather_evidence
from brats_fl_tools.acceptance.hospitals import contributions, gains, suspects
from brats_fl_tools.study.record import read_record

THREE = ("hospital-1", "hospital-2", "hospital-3")
SOUND: Dice = {site: even(0.7) for site in THREE}


def levels(*of_three: float, cases: int = 6) -> Dice:
    return {site: even(level, cases) for site, level in zip(THREE, of_three, strict=True)}


def candidate(folder: Path, federated: Dice = SOUND, **given: object) -> Candidate:
    out = write_study_folder(folder / "study", (federated,), **given)  # type: ignore[arg-type]
    return gather_evidence(out, read_record(out)).candidates[0]


def signs(found: Candidate) -> dict[str, tuple[str, ...]]:
    return {one.site: one.signs for one in suspects(found)}


def test_gain_is_federated_less_local_on_own_test_cases(tmp_path: Path):
    found = gains(candidate(tmp_path, local=levels(0.6, 0.7, 0.75)))

    assert {one.site: round(one.difference.value, 3) for one in found} == {
        "hospital-1": 0.1,
        "hospital-2": 0.0,
        "hospital-3": -0.05,
    }
    assert [one.difference.is_above for one in found] == [True, False, False]


def test_contribution_is_what_the_others_lose_without_a_hospital(tmp_path: Path):
    without = {"hospital-1": levels(0.1, 0.6, 0.7), "hospital-2": SOUND, "hospital-3": SOUND}

    found = contributions(candidate(tmp_path, without=without))

    # hospital-1's own .1 is not in it: the others lose .1 and nothing.
    assert {one.site: round(one.difference.value, 3) for one in found} == {
        "hospital-1": 0.05,
        "hospital-2": 0.0,
        "hospital-3": 0.0,
    }


def test_table_of_the_hospital_left_out_alone_tells_no_contribution(tmp_path: Path):
    without = {site: {site: even(0.6)} for site in THREE}

    assert contributions(candidate(tmp_path, without=without)) == ()


def test_sound_hospitals_are_not_named(tmp_path: Path):
    given = {"local": levels(0.6, 0.6, 0.65), "central": levels(0.72, 0.71, 0.7)}

    assert signs(candidate(tmp_path, without={site: levels(0.68, 0.68, 0.68) for site in THREE}, **given)) == {}


def test_hospital_without_which_the_others_do_better_is_named(tmp_path: Path):
    without = {"hospital-1": SOUND, "hospital-2": SOUND, "hospital-3": levels(0.75, 0.75, 0.4)}

    assert signs(candidate(tmp_path, without=without)) == {
        "hospital-3": ("the others' Dice is 0.050 higher without it",)
    }


def test_mirrored_labels_that_no_model_can_learn_are_named(tmp_path: Path):
    low = levels(0.7, 0.7, 0.2)

    found = signs(candidate(tmp_path, low, local=levels(0.6, 0.6, 0.2), central=low))

    assert list(found) == ["hospital-3"]
    assert "below those of the others under every model (federated, local and central)" in found["hospital-3"][0]


def test_labels_by_another_rule_that_only_its_own_model_learns_are_named(tmp_path: Path):
    low = levels(0.7, 0.7, 0.3)

    found = signs(candidate(tmp_path, low, local=levels(0.6, 0.6, 0.65), central=low))

    assert list(found) == ["hospital-3"]
    assert found["hospital-3"][0].endswith("its own model fits them: it may label by another rule")


@pytest.mark.parametrize("federated", [levels(0.7, 0.7, 0.62), levels(0.7, 0.7, 0.1, cases=4)])
def test_little_lower_or_on_four_patients_is_how_hospitals_differ(federated: Dice, tmp_path: Path):
    assert signs(candidate(tmp_path, federated, local=federated, central=federated)) == {}
