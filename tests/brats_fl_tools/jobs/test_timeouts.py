from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from brats_fl.errors import RunError
from brats_fl_tools.jobs.assembly import JobOptions, build_job
from brats_fl_tools.jobs.options import JobFlags
from brats_fl_tools.jobs.source import read_source
from brats_fl_tools.jobs.timeouts import limits_from


def line(round_index: int, site: str, seconds: float, status: str = "ok") -> dict[str, Any]:
    return {"phase": "train", "round": round_index, "site": site, "status": status, "seconds": seconds}


def write_run(folder: Path, *lines: dict[str, Any]) -> Path:
    (folder / "rounds.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in lines), encoding="utf-8")
    return folder


def test_limits_are_three_times_what_the_slowest_took_in_whole_minutes(tmp_path: Path):
    run = write_run(
        tmp_path,
        line(0, "a", 400.0),
        line(0, "b", 500.0),
        line(1, "a", 100.0),
        line(1, "b", 350.0),  # 250 s after the other
        line(1, "c", 9000.0, "TRAINER_DIED"),
        {"phase": "final", "round": 2, "site": "b", "status": "ok", "evaluate_seconds": 90.0},
    )

    assert limits_from(run) == {
        "train_timeout": 1500,
        "wait_time_after_min_received": 780,  # 750 s, rounded up
        "validation_timeout": 300,
    }


def test_limits_are_not_under_two_minutes(tmp_path: Path):
    assert set(limits_from(write_run(tmp_path, line(0, "a", 1.0), line(0, "b", 2.0))).values()) == {120}


def test_run_in_which_nobody_finished_a_round_gives_no_limit(tmp_path: Path):
    with pytest.raises(RunError, match=r"rounds\.jsonl: no site finished a round there"):
        limits_from(write_run(tmp_path, line(0, "a", 1.0, "missing")))


def test_job_takes_the_limits_and_what_is_set_by_hand_wins(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    run = write_run(tmp_path, line(0, "a", 500.0), line(0, "b", 400.0))

    options = JobFlags("small", 3, ["validation_timeout=77"], timeouts_from=run).options(
        read_source("brats_unet_fedavg")
    )

    assert "train_timeout=1500 wait_time_after_min_received=300" in capsys.readouterr().out
    built = build_job("brats_unet_fedavg", tmp_path / "jobs", options)
    limits = ("train_timeout", "wait_time_after_min_received", "validation_timeout")
    assert [built.variables[name] for name in limits] == [1500, 300, 77]
    assert isinstance(options, JobOptions)
