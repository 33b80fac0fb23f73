"""How far a study has come, in words, and how long the rest will take by what its runs took so far."""

from __future__ import annotations

from collections.abc import Sequence

from brats_fl_tools.pages.formats import format_count, format_duration
from brats_fl_tools.study.record import RunRecord


def seconds_left(runs: Sequence[RunRecord]) -> float | None:
    """Seconds that the runs that are not finished will take; None while nothing was measured.

    A step counts what it took in the finished runs of the same bundle, tests included, else in all of them.
    """
    done = [run for run in runs if run.state == "finished" and run.seconds > 0]
    if not done:
        return None
    return sum(run.steps * _step_seconds(run.bundle, done) for run in runs if run.state != "finished")


def _step_seconds(bundle: str, done: Sequence[RunRecord]) -> float:
    measured = [run for run in done if run.bundle == bundle] or done
    return sum(run.seconds for run in measured) / sum(run.steps for run in measured)


def describe_left(runs: Sequence[RunRecord]) -> str:
    """``3 of 12 runs left, 1,200 steps, about 2 h 10 min``."""
    left = [run for run in runs if run.state != "finished"]
    if not left:
        return f"all {format_count(len(runs), 'run')} are done" if len(runs) > 1 else "its run is done"
    steps, seconds = sum(run.steps for run in left), seconds_left(runs)
    time = "how long they take is told after the first" if seconds is None else f"about {format_duration(seconds)}"
    return f"{len(left)} of {format_count(len(runs), 'run')} left, {format_count(steps, 'step')}, {time}"


def describe_run(run: RunRecord) -> str:
    """A run in a line: who trains what."""
    who = {
        "federated": f"{format_count(len(run.hospitals), 'hospital')} together",
        "local": f"each of {format_count(len(run.hospitals), 'hospital')} alone",
        "central": "all lists pooled",
        "leave-one-out": f"all but one of {format_count(len(run.hospitals), 'hospital')}, each once",
    }
    return f"{run.job}, {who[run.kind]}, {format_count(run.steps, 'step')}"
