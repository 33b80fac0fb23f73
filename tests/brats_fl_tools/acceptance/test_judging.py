"""Go, no go, undecided: met and missed by a whole interval, and how many patients would decide."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.study_folders import GOOD, even, write_study_folder

from brats_fl_tools.acceptance.evidence import Candidate, gather_evidence
from brats_fl_tools.acceptance.hospitals import Suspect
from brats_fl_tools.acceptance.judging import (
    Finding,
    Judgement,
    Part,
    State,
    describe_need,
    judge_bias,
    judge_estimate,
    judge_thresholds,
    pass_verdict,
)
from brats_fl_tools.acceptance.statistics import Estimate
from brats_fl_tools.study.record import read_record
from brats_fl_tools.study.thresholds import Thresholds

FOUND = Estimate(0.6, 0.5, 0.7, patients=10, cases=12)


@pytest.mark.parametrize(
    ("limit", "least", "state", "needed"),
    [
        (0.5, True, "met", None),
        (0.55, True, "undecided", 40),
        (0.8, True, "missed", None),
        (0.7, False, "met", None),
        (0.65, False, "undecided", 40),
        (0.4, False, "missed", None),
    ],
)
def test_threshold_is_met_or_missed_by_the_whole_interval(limit: float, least: bool, state: State, needed: int | None):
    assert judge_estimate("all", FOUND, limit, least) == Part("all", FOUND, state, needed)


def test_four_patients_decide_nothing_and_five_are_asked_for():
    few = Estimate(0.9, None, None, patients=4, cases=4)

    assert judge_estimate("", few, 0.1, least=True) == Part("", few, "undecided", 5)


@pytest.mark.parametrize(
    ("low", "high", "state"),
    [(-1.0, 1.5, "met"), (2.5, 4.0, "missed"), (-4.0, -2.5, "missed"), (1.0, 3.0, "undecided")],
)
def test_volumes_may_be_too_large_and_too_small_by_as_much(low: float, high: float, state: State):
    found = Estimate((low + high) / 2, low, high, patients=10, cases=10)

    assert judge_bias("whole tumour", found, 2.0).state == state


def candidate(folder: Path, **given: object) -> Candidate:
    out = write_study_folder(folder / "study", **given)  # type: ignore[arg-type]
    return gather_evidence(out, read_record(out)).candidates[0]


def shifted(by: float) -> dict[str, list[float]]:
    return {site: [round(value + by, 4) for value in values] for site, values in GOOD.items()}


def states(found: tuple[Finding, ...]) -> dict[str, str]:
    return {finding.key: finding.state for finding in found}


def test_every_threshold_of_the_file_is_judged_by_its_own_figure(tmp_path: Path):
    one = candidate(tmp_path, local=shifted(-0.1), central=shifted(0.1))  # means .75, .65 and .85
    asked = Thresholds(0.7, 0.75, 0.8, True, 15.0, 2.0)

    assert states(judge_thresholds(asked, one)) == {
        "least_mean_dice": "met",  # .75 +- .03
        "least_worst_site_dice": "missed",  # hospital-2 has .7 +- .02
        "least_share_of_central": "met",  # .75 / .85 = .88
        "above_local": "met",
        "most_hd95_mm": "missed",  # 100 (1 - Dice): from 18 to 32
        "most_volume_bias_ml": "met",  # 12.5 less 11
    }


def test_threshold_without_its_baseline_is_undecided_and_says_which_is_missing(tmp_path: Path):
    central, local = judge_thresholds(Thresholds(least_share_of_central=0.9, above_local=True), candidate(tmp_path))

    assert (central.state, describe_need(central)) == ("undecided", "the study has no finished central baseline")
    assert (local.state, describe_need(local)) == ("undecided", "the study has no finished local baseline")


def test_hospital_that_does_better_alone_is_named(tmp_path: Path):
    local = {**shifted(-0.1), "hospital-2": even(0.9)}

    (finding,) = judge_thresholds(Thresholds(above_local=True), candidate(tmp_path, local=local))

    assert [(part.of, part.state) for part in finding.parts] == [("hospital-1", "met"), ("hospital-2", "missed")]
    verdict = pass_verdict([Judgement("unet", "unet", (finding,), ())], True, ())
    assert verdict.word == "no go"
    assert verdict.why == (
        "unet misses: no hospital does better with the model of its own cases alone, for hospital-2.",
    )


def finding_of(state: State) -> Finding:
    return Finding("least_mean_dice", "mean Dice at least 0.55", (Part("", FOUND, state, 40),))


def test_undecided_says_how_many_patients_would_decide():
    verdict = pass_verdict([Judgement("unet", "unet", (finding_of("undecided"),), ())], True, ())

    assert verdict.word == "undecided"
    assert verdict.why == (
        "unet leaves undecided: mean Dice at least 0.55 (about 40 patients would decide, there are 10).",
    )


def test_job_stands_on_all_partitions_and_the_study_on_its_best_job():
    judgements = [
        Judgement("unet", "unet on even", (finding_of("met"),), ()),
        Judgement("unet", "unet on size", (finding_of("missed"),), ()),
        Judgement("attention", "attention on even", (finding_of("met"),), ()),
        Judgement("attention", "attention on size", (finding_of("met"),), ()),
    ]

    assert pass_verdict(judgements[:2], True, ()).word == "no go"
    assert pass_verdict(judgements, True, ()).word == "go"
    assert pass_verdict(judgements, True, ()).why[0].startswith("unet: no go; attention: go. ")


def test_missing_run_makes_go_undecided_and_leaves_no_go_as_it_is():
    good, bad = (Judgement("unet", "unet", (finding_of(state),), ()) for state in ("met", "missed"))  # type: ignore[arg-type]

    assert pass_verdict([good], True, ["central"]).word == "undecided"
    assert "1 run of the study is not in the figures (central)" in pass_verdict([good], True, ["central"]).why[-1]
    assert pass_verdict([bad], True, ["central"]).word == "no go"


def test_hospital_that_is_named_makes_it_no_go_whatever_the_figures():
    named = Judgement("unet", "unet", (finding_of("met"),), (Suspect("hospital-2", ("its own cases score low",)),))

    for has_thresholds in (True, False):
        verdict = pass_verdict([named], has_thresholds, ())
        assert verdict.word == "no go"
        assert verdict.why[0] == "Look at the labels of hospital-2: its own cases score low (unet)."


def test_without_thresholds_there_is_no_verdict_and_it_is_said():
    verdict = pass_verdict([Judgement("unet", "unet", (), ())], False, ())

    assert verdict.word is None
    assert verdict.why[0].startswith("No verdict: the study has no thresholds")
