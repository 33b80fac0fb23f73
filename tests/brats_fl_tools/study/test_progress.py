"""How long the rest takes follows from what the finished runs took, bundle by bundle."""

from __future__ import annotations

from pathlib import Path

import pytest

from brats_fl_tools.study.progress import describe_left, seconds_left
from brats_fl_tools.study.record import RunRecord


def a_run(name: str, bundle: str, steps: int, seconds: float = 0.0) -> RunRecord:
    state = "finished" if seconds else "waiting"
    facts = {"kind": "federated", "label": name, "job": name, "profile": "small", "rounds": 1, "seed": 0, "fold": None}
    facts |= {"partition": "sites", "sites_dir": Path("/sites"), "hospitals": ("a", "b"), "values": {}}
    return RunRecord(name=name, bundle=bundle, steps=steps, recipe_sha256="00", state=state, seconds=seconds, **facts)  # type: ignore[arg-type]


RUNS = (
    a_run("one", "unet", 100, seconds=50.0),  # 0.5 s a step
    a_run("two", "unet", 100, seconds=70.0),  # 0.7: 0.6 together
    a_run("three", "unet", 200),
    a_run("four", "attention", 50, seconds=100.0),  # 2 s a step
    a_run("five", "attention", 30),
)


def test_step_of_a_bundle_counts_what_it_took_in_runs_of_that_bundle():
    assert seconds_left(RUNS) == pytest.approx(200 * 0.6 + 30 * 2)
    assert describe_left(RUNS) == "2 of 5 runs left, 230 steps, about 3 min 0 s"


def test_bundle_that_was_not_run_yet_counts_the_mean_of_the_others():
    assert seconds_left([*RUNS[:3], RUNS[4]]) == pytest.approx(230 * 0.6)


def test_nothing_is_said_of_time_before_a_run_has_ended():
    assert describe_left([RUNS[2]]) == "1 of 1 run left, 200 steps, how long they take is told after the first"
    assert describe_left(RUNS[:2]) == "all 2 runs are done"
