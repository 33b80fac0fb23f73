"""How a round of the shared job is judged; records as the server writes them."""

from __future__ import annotations

import numpy as np
import pytest

from brats_fl.constants import SITES
from brats_fl_tools.drill.faults.sites import (
    HONEST_ROUNDS_AFTER,
    MISBEHAVIOURS,
    Round,
    SharedJob,
    casts_no_vote,
    has_a_bounded_share,
    judge,
    plans_of,
    was_repeated,
)
from brats_fl_tools.drill.faults.verdicts import SITE, Unexpected
from brats_fl_tools.drill.outcome import Outcome, accepted_cases, largest_difference, weighted_mean_of


def records(status: str = "ok", mean: str = "ok", rounds: int = 4, **told: object) -> list[dict[str, object]]:
    """Five sites and the server, round by round; in round 1 ``SITE`` is and tells as given."""
    lines: list[dict[str, object]] = []
    for index in range(rounds):
        for site in SITES:
            line = {"phase": "train", "round": index, "site": site, "status": "ok", "cases": 1}
            line |= {"metrics": {"val_mean_dice": 0.25}}
            lines.append(line | ({"status": status, **told} if (index, site) == (1, SITE) else {}))
        shares = dict.fromkeys(SITES, 0.2)
        lines.append({"phase": "mean", "round": index, "site": "server", "status": "ok", "shares": shares})
        lines[-1] |= {"status": mean} if index == 1 else {}
    return lines


def seen(lines: list[dict[str, object]], difference: float = 0.0, log: str = "") -> Round:
    """Round 1 of four."""
    return Round(1, lines, difference, log)


def job(lines: list[dict[str, object]], tmp_path, leak: str = "") -> SharedJob:
    """A job of four rounds."""
    return SharedJob(["nan-update"], Outcome(0, "", tmp_path, lines), dict.fromkeys(range(4), 0.0), leak)


def test_each_misbehaviour_has_a_round_of_its_own_after_an_honest_one():
    plans = plans_of(["nan-update", "text-metrics", "two-sites-fail"])

    assert plans == {
        "hospital-2": {"train": {"1": "nan", "3": "raises"}, "metrics": {"2": "text"}},
        "hospital-3": {"train": {"3": "raises"}},
    }


def test_slow_site_comes_last_and_has_two_rounds_to_return():
    assert list(MISBEHAVIOURS)[-1] == "slow-site"
    assert HONEST_ROUNDS_AFTER == 2


def test_refused_update_passes(tmp_path):
    lines = records("MODEL_ERROR")

    text = judge(MISBEHAVIOURS["nan-update"], seen(lines), job(lines, tmp_path))

    assert text == "hospital-2: MODEL_ERROR, the others ok; model as it should be (0e+00)"


def test_update_that_was_accepted_and_should_not_have_been_is_found(tmp_path):
    lines = records("ok")

    with pytest.raises(Unexpected, match="hospital-2 is ok in round 1, expected MODEL_ERROR"):
        judge(MISBEHAVIOURS["nan-update"], seen(lines), job(lines, tmp_path))


def test_model_that_is_not_the_mean_is_found(tmp_path):
    lines = records("MODEL_ERROR")

    with pytest.raises(Unexpected, match=r"1\.0e-03 away"):
        judge(MISBEHAVIOURS["nan-update"], seen(lines, difference=1e-3), job(lines, tmp_path))


def test_text_of_the_site_elsewhere_is_found(tmp_path):
    lines = records("MODEL_ERROR")

    with pytest.raises(Unexpected, match=r"server: log\.txt holds text of the site"):
        judge(MISBEHAVIOURS["nan-update"], seen(lines), job(lines, tmp_path, "server: log.txt holds text of the site"))


def test_vote_of_a_million_in_the_choice_of_the_best_model_is_found():
    lines = records(metrics={}, dropped=1)
    words = "the model that round 1 began with is the best so far: "

    assert "others' mean 0.2500" in casts_no_vote(seen(lines, log=f"{words}0.2500\n"))
    with pytest.raises(Unexpected, match=r"another mean than 0\.2500"):
        casts_no_vote(seen(lines, log=f"{words}200000.2000\n"))


def test_vote_that_the_records_hold_is_found():
    with pytest.raises(Unexpected, match="is in the records"):
        casts_no_vote(seen(records(dropped=1)))


def test_share_of_more_than_half_is_found():
    lines = records()
    assert "share of 0.2" in has_a_bounded_share(seen(lines))
    mean = next(line for line in lines if line["phase"] == "mean" and line["round"] == 1)
    mean["shares"] = {SITE: 0.9}

    with pytest.raises(Unexpected, match=r"share is 0\.9"):
        has_a_bounded_share(seen(lines))


def test_failed_round_has_to_be_followed_by_a_good_one():
    assert "TOO_FEW_UPDATES" in was_repeated(seen(records("EXECUTION_EXCEPTION", "TOO_FEW_UPDATES")))
    with pytest.raises(Unexpected, match="the round is ok"):
        was_repeated(seen(records("EXECUTION_EXCEPTION")))


def test_mean_counts_sites_by_their_cases():
    models = {"hospital-1": {"w": np.array([1.0])}, "hospital-2": {"w": np.array([4.0])}}

    mean = weighted_mean_of(models, {"hospital-1": 2, "hospital-2": 1})

    assert mean["w"].tolist() == [2.0]  # (2 x 1 + 1 x 4) / 3
    assert largest_difference({"w": np.array([2.5])}, mean) == 0.5
    assert largest_difference({"w": np.array([np.nan])}, mean) == float("inf")


def test_only_accepted_updates_are_counted():
    assert accepted_cases(records("MODEL_ERROR"), 1) == dict.fromkeys(set(SITES) - {SITE}, 1)
