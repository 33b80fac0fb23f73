"""What is said of a running job, from records made by hand."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest
from tests.run_folders import train

from brats_fl_tools.report.run_folder import RunFolder
from brats_fl_tools.watch.gauges import as_gauges
from brats_fl_tools.watch.sources import Seen, with_lines
from brats_fl_tools.watch.terminal import headline
from brats_fl_tools.watch.view import View, view_of

BEGAN = "2026-11-29T10:00:00+00:00"
FIVE_MINUTES_LATER = datetime(2026, 11, 29, 10, 5, tzinfo=timezone.utc)
THREE = ("hospital-1", "hospital-2", "hospital-3")


def mean(number: int, status: str = "ok") -> dict[str, Any]:
    return {"phase": "mean", "round": number, "site": "server", "status": status}


def lost(number: int, site: str, status: str) -> dict[str, Any]:
    return {"phase": "train", "round": number, "site": site, "status": status}


def look(
    *lines: Mapping[str, Any], state: str = "running", connected: frozenset[str] | None = None, first_round: int = 0
) -> View:
    """A job of three hospitals and ten rounds that began at ten o'clock, at five minutes past."""
    info = {
        "job": "brats_unet_fedavg", "mode": "poc", "rounds": 10,
        "parts": [{"started": BEGAN, "first_round": first_round}],
    }  # fmt: skip
    run = with_lines(RunFolder(Path("run"), info, (), (), invited=THREE), lines)
    return view_of(Seen(run, state, lines, connected), FIVE_MINUTES_LATER)


def states(view: View) -> list[str]:
    return [one.state for one in view.hospitals]


def of_round(number: int, *sites: str) -> list[dict[str, Any]]:
    return [train(number, site, seconds=10.0, train_seconds=8.0) for site in sites]


def test_before_the_first_answer_all_hospitals_are_working():
    view = look()

    assert states(view) == ["working"] * 3
    assert (view.round, view.rounds, view.answered, view.seconds_left, view.dice) == (0, 10, 0, None, None)
    assert (
        headline(view) == "brats_unet_fedavg: running, 0 of 10 rounds done, 0 of 3 hospitals have answered in round 0"
    )


def test_hospitals_that_have_answered_in_this_round_are_told_from_those_that_work():
    view = look(*of_round(0, *THREE), mean(0), *of_round(1, "hospital-2"))

    assert states(view) == ["working", "answered", "working"]
    assert (view.round, view.answered) == (1, 1)


def test_time_left_is_that_of_the_rounds_that_are_missing_at_the_pace_so_far():
    view = look(*of_round(0, *THREE), mean(0), *of_round(1, *THREE), mean(1))

    # Two rounds in 300 s, eight are left.
    assert (view.rounds_done, view.seconds_a_round, view.seconds_left) == (2, 150, 1200)
    assert headline(view).endswith("mean Dice 0.300, about 20 min 0 s left")


def test_pace_of_a_resumed_run_is_that_of_its_last_part():
    done = [line for number in range(7) for line in (*of_round(number, *THREE), mean(number))]

    view = look(*done, first_round=5)

    assert (view.seconds_a_round, view.seconds_left) == (150, 450)  # rounds 6 and 7 of ten


def test_hospital_that_takes_longer_than_the_others_is_slow():
    view = look(*of_round(0, "hospital-1", "hospital-2"), train(0, "hospital-3", seconds=16.0), mean(0))

    assert states(view) == ["working", "working", "slow"]
    assert view.hospitals[2].why == "16 s a round, the others 10 s"


def test_hospital_that_did_not_answer_the_last_round_is_missing_and_says_since_when():
    rounds = [*of_round(0, *THREE), mean(0), *of_round(1, "hospital-1", "hospital-2"), lost(1, "hospital-3", "missing")]

    view = look(*rounds, mean(1))

    assert (states(view)[2], view.hospitals[2].why) == ("missing", "no update since round 0")
    assert [(one.round, one.site, one.why) for one in view.rejected] == [
        (1, "hospital-3", "missing (no answer in time)")
    ]


def test_hospital_that_failed_says_why_in_words():
    view = look(*of_round(0, "hospital-1", "hospital-2"), lost(0, "hospital-3", "DISK_FULL"))

    assert states(view) == ["answered", "answered", "failed"]
    assert view.hospitals[2].why == "DISK_FULL (the site's disk is full)"


def test_hospital_without_a_connection_is_told_before_anything_else():
    view = look(*of_round(0, *THREE), connected=frozenset({"hospital-1", "hospital-2"}))

    assert states(view) == ["answered", "answered", "not connected"]
    assert view.hospitals[2].needs_a_look


def test_round_that_still_goes_on_rejects_nobody():
    assert look(*of_round(0, "hospital-1")).rejections == 0


def test_round_with_too_few_updates_is_told_of_each_hospital():
    view = look(*of_round(0, "hospital-1"), lost(0, "hospital-2", "BAD_UPDATE"), mean(0, "TOO_FEW_UPDATES"))

    assert [one.site for one in view.rejected] == ["hospital-3", "hospital-2", "hospital-1"]
    assert view.rejected[2].why.startswith("TOO_FEW_UPDATES (too few updates of the round could be used")


def test_only_the_last_rejections_are_shown_and_all_are_counted():
    rounds = [
        line for n in range(30) for line in (*of_round(n, *THREE[:2]), lost(n, "hospital-3", "CASE_ERROR"), mean(n))
    ]

    view = look(*rounds)

    assert (len(view.rejected), view.rejections, view.rejected[0].round) == (20, 30, 29)


def test_finished_job_has_nothing_left():
    final = {"phase": "final", "round": 2, "status": "ok", "metrics": {"val_mean_dice": 0.5}}
    lines = [*of_round(0, *THREE), mean(0), *of_round(1, *THREE), mean(1)]

    view = look(*lines, *({**final, "site": site} for site in THREE), state="finished")

    assert states(view) == ["done"] * 3
    assert (view.dice, view.seconds_left, view.is_running) == (0.5, None, False)


@pytest.mark.parametrize("started", ["yesterday", None, 3, "2026-11-29T10:00:00"])
def test_start_that_is_no_time_leaves_the_slowest_hospital_s_clock(started: object):
    run = RunFolder(Path("run"), {"rounds": 10, "parts": [{"started": started}]}, (), (), invited=THREE)
    lines = (*of_round(0, "hospital-1"), train(0, "hospital-2", seconds=30.0), mean(0))

    assert view_of(Seen(with_lines(run, lines), "running", lines), FIVE_MINUTES_LATER).seconds_a_round == 30


def test_gauges_have_a_family_each_and_leave_out_what_is_not_known():
    text = as_gauges(look(*of_round(0, "hospital-1")))

    lines = text.splitlines()
    assert "brats_fl_running 1" in lines
    assert "brats_fl_rounds 10" in lines
    assert 'brats_fl_site_dice{site="hospital-1"} 0.2' in lines
    assert 'brats_fl_site_state{site="hospital-2",state="working"} 1' in lines
    assert 'brats_fl_site_bytes_up{site="hospital-1"} 4000000' in lines
    assert not [line for line in lines if 'brats_fl_site_dice{site="hospital-2"' in line]
    types = [line.split()[2] for line in lines if line.startswith("# TYPE")]
    assert len(types) == len(set(types))


def test_name_of_a_hospital_cannot_add_a_line_to_the_gauges():
    name = 'a"} 1\nbrats_fl_running 0\\'
    lines = (train(0, name),)
    run = with_lines(RunFolder(Path("run"), {}, (), (), invited=(name,)), lines)

    text = as_gauges(view_of(Seen(run, "running", lines), FIVE_MINUTES_LATER))

    assert 'site="a\\"} 1\\nbrats_fl_running 0\\\\"' in text
    assert "brats_fl_running 0\n" not in text.replace("\\n", "")
