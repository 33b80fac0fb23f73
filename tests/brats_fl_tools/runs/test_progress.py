from __future__ import annotations

from typing import Any

import pytest

from brats_fl_tools.runs.progress import Progress, describe_record


def record(phase: str, round_index: int, site: str, dice: float | None = None, status: str = "ok") -> dict[str, Any]:
    metrics = {} if dice is None else {"val_mean_dice": dice}
    return {"phase": phase, "round": round_index, "site": site, "status": status, "cases": 2, "metrics": metrics}


@pytest.mark.parametrize(
    ("line", "text"),
    [
        (record("train", 3, "a", 0.5), "round=3 site=a cases=2 val_mean_dice=0.500 seconds=0"),
        (record("train", 3, "a"), "round=3 site=a cases=2 val_mean_dice=none seconds=0"),
        (record("final", 4, "a", status="CASE_ERROR"), "final site=a status=CASE_ERROR"),
        (record("secure_keys", 2, "a", status="NO_KEY"), "round=2 secure_keys site=a status=NO_KEY"),
    ],
)
def test_record_is_one_line(line, text):
    assert describe_record(line) == text


def test_progress_prints_each_record_once_and_says_that_the_run_goes_on(monkeypatch):
    said: list[str] = []
    progress = Progress(said.append)
    now = progress.begin
    monkeypatch.setattr("brats_fl_tools.runs.progress.time.monotonic", lambda: now)

    now += 31
    progress.show([])
    progress.show([])
    now += 1
    progress.show([record("train", 0, "a")])
    progress.show([record("train", 0, "a")])
    now += 31
    progress.show([record("train", 0, "a")])

    assert said == [
        "working, starting: 31 s since the start",
        "round=0 site=a cases=2 val_mean_dice=none seconds=0",
        "working, after answers of round 0: 63 s since the start",
    ]


def test_update_of_a_site_whose_last_one_came_late_is_shown_as_well():
    said: list[str] = []
    progress = Progress(said.append)

    progress.show([record("train", 1, "a", status="LATE")])
    progress.show([record("train", 1, "a", status="LATE"), record("train", 1, "a", 0.5)])

    assert said == ["round=1 site=a status=LATE", "round=1 site=a cases=2 val_mean_dice=0.500 seconds=0"]
