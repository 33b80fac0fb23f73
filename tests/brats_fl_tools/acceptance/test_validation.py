"""Validation in the rounds held against test cases: a hospital that trains by other labels than it is tested by."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
from tests.study_folders import Dice, even, write_study_folder

from brats_fl_tools.acceptance.evidence import gather_evidence
from brats_fl_tools.acceptance.hospitals import suspects
from brats_fl_tools.acceptance.validation import Validated, deviation, validations
from brats_fl_tools.report.run_folder import RoundRecord, RunFolder
from brats_fl_tools.study.record import read_record

THREE = ("hospital-1", "hospital-2", "hospital-3")


def a_run(dice: Mapping[str, float], cases: int, phase: str = "final", status: str = "ok") -> RunFolder:
    records = tuple(
        RoundRecord(phase, 2, site, status, metrics={"val_mean_dice": value}) for site, value in dice.items()
    )
    return RunFolder(Path("run"), {"sites": {site: {"validation": cases} for site in dice}}, records, ())


def test_folds_add_their_cases_and_seeds_do_not():
    runs = [(0, a_run({"a": 0.5}, 2)), (0, a_run({"a": 0.8}, 4)), (7, a_run({"a": 0.7}, 6))]

    # (2 x 0.5 + 4 x 0.8 + 6 x 0.7) / 12; six patients, whatever the seeds.
    assert validations(runs) == {"a": Validated(pytest.approx(0.7), 6)}


@pytest.mark.parametrize(
    "run", [a_run({"a": 0.5}, 2, phase="train"), a_run({"a": 0.5}, 2, status="missing"), a_run({"a": 0.5}, 0)]
)
def test_only_the_last_evaluation_of_a_hospital_with_validation_cases_counts(run: RunFolder):
    assert validations([(0, run)]) == {}


def figures(folder: Path, dice: Dice):
    out = write_study_folder(folder / "study", (dice,))
    return gather_evidence(out, read_record(out)).candidates[0]


def told(folder: Path, own: float, others: float = 0.7, cases: int = 5, tests: Dice | None = None) -> float | None:
    found = figures(folder, tests or {site: even(0.7) for site in THREE}).federated
    validated = {"hospital-1": Validated(own, cases)} | {site: Validated(others, cases) for site in THREE[1:]}
    return deviation("hospital-1", found, validated, least=0.1, hospitals=3)


def test_validation_far_below_the_own_test_cases_is_told_by_how_much(tmp_path: Path):
    # Test cases .68 and .72: no draw is below .66 or so, which less .1 is above .4.
    assert told(tmp_path, own=0.4) == pytest.approx(-0.3)


def test_model_that_has_learnt_the_labels_that_a_hospital_validates_by_is_told_too(tmp_path: Path):
    assert told(tmp_path, own=0.95) == pytest.approx(0.25)


def test_sound_hospital_beside_a_spoilt_one_alone_is_not_told(tmp_path: Path):
    found = figures(tmp_path, {site: even(0.6) for site in THREE[:2]}).federated
    validated = {"hospital-1": Validated(0.6, 5), "hospital-2": Validated(0.9, 5)}

    off = {site: deviation(site, found, validated, 0.1, 2) for site in validated}

    # Less the other's .3 the sound one is .3 below, but it is not off by itself.
    assert off == {"hospital-1": None, "hospital-2": pytest.approx(0.3)}


def test_model_of_the_best_round_is_the_one_that_began_it():
    early, late = (
        RoundRecord("train", number, "a", "ok", metrics={"val_mean_dice": 0.1 * number}) for number in (1, 2)
    )
    last = RoundRecord("final", 3, "a", "ok", metrics={"val_mean_dice": 0.9})
    facts = {"sites": {"a": {"validation": 5}}}

    def found(**best: object) -> float:
        return validations([(0, RunFolder(Path("run"), facts | best, (early, late, last), ()))])["a"].dice

    assert (found(best_round=2), found(best_round="final"), found()) == (0.2, 0.9, 0.9)


def test_what_sets_validation_and_test_apart_at_all_hospitals_is_taken_off(tmp_path: Path):
    assert told(tmp_path / "alike", own=0.4, others=0.4) is None
    assert told(tmp_path / "lower", own=0.3, others=0.6) == pytest.approx(-0.3)


@pytest.mark.parametrize(("own", "cases"), [(0.65, 5), (0.4, 4)])
def test_a_little_lower_or_four_cases_may_be_chance(own: float, cases: int, tmp_path: Path):
    assert told(tmp_path, own=own, cases=cases) is None


def test_hospital_whose_test_cases_differ_as_much_is_not_told(tmp_path: Path):
    tests = {"hospital-1": even(0.5, spread=0.4), "hospital-2": even(0.7), "hospital-3": even(0.7)}

    # Three of .1 and three of .9: five validation cases have a mean of .26 or less by chance, one time in five.
    assert told(tmp_path, own=0.3, tests=tests) is None


def test_one_hospital_alone_has_nobody_to_be_held_against(tmp_path: Path):
    found = figures(tmp_path, {"hospital-1": even(0.7)}).federated

    assert deviation("hospital-1", found, {"hospital-1": Validated(0.1, 9)}, 0.1, 1) is None


def test_hospital_that_trains_by_other_labels_is_named_by_its_rounds(tmp_path: Path):
    candidate = figures(tmp_path, {site: even(0.7) for site in THREE})
    validated = {"hospital-1": Validated(0.7, 5), "hospital-2": Validated(0.4, 5), "hospital-3": Validated(0.7, 5)}

    (one,) = suspects(candidate, validated)

    assert one.site == "hospital-2"
    assert one.signs == (
        "in the rounds its validation cases score 0.300 below its own test cases: it may train by other labels",
    )
