"""What a run says while it goes on: a line per round and site, and now and then that it is still there."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

import typer

from brats_fl.constants import KEY_METRIC
from brats_fl.privacy.messages import STEPS
from brats_fl.round_records import MEAN_PHASE
from brats_fl_tools.jobs.built import BuiltJob


def announce(job: BuiltJob) -> str:
    """What is about to be done, in a few words."""
    sites = f"{len(job.sites)} site{'s' * (len(job.sites) != 1)}"
    if "num_rounds" not in job.variables:
        return f"{job.name}: {sites}"
    return f"{job.name}: {job.total_rounds} rounds, {sites}, profile {job.variables['profile']}"


def describe_record(record: Mapping[str, Any]) -> str:
    """One line: ``round=3 site=hospital-2 cases=61 loss=0.412 val_mean_dice=0.731 seconds=214``."""
    if record["phase"] == MEAN_PHASE:
        return f"round={record['round']} status={record['status']}: the model stays as it is, the next round asks again"
    step = [] if record["phase"] == "train" else [record["phase"]]
    label = [f"round={record['round']}"] if record["phase"] in ROUND_PHASES else []
    parts = [*label, *step, f"site={record['site']}"]
    if record["status"] != "ok":
        return " ".join([*parts, f"status={record['status']}"])
    if "epsilon" in record:
        return " ".join([*parts, f"epsilon={record['epsilon']:g}"])
    parts.append(f"cases={record.get('cases', '?')}")
    if record.get("loss") is not None:
        parts.append(f"loss={record['loss']:.3f}")
    metric = (record.get("metrics") or {}).get(KEY_METRIC)
    parts.append(f"{KEY_METRIC}={'none' if metric is None else f'{metric:.3f}'}")
    parts.append(f"seconds={record.get('seconds', record.get('evaluate_seconds', 0)):.0f}")
    return " ".join(parts)


ROUND_PHASES: Final = frozenset({"train", *STEPS})
"""Phases of which every round has one; another has no round that means something."""


class Progress:
    """Prints each round record once, and between them now and then that something is going on.

    A site may have two records of a round: an update that came late, of the round before, and then the round's own.

    Args:
        say: Prints a line.
    """

    QUIET_SECONDS = 30.0

    def __init__(self, say: Callable[[str], None] = typer.echo) -> None:
        self.say = say
        self.shown: set[tuple[str, int, str, str]] = set()
        self.said: set[str] = set()
        self.begin = self.last = time.monotonic()

    def say_once(self, line: str) -> None:
        """Print a line that has not been printed before."""
        if line not in self.said:
            self.said.add(line)
            self.say(line)

    def show(self, records: Iterable[Mapping[str, Any]]) -> None:
        """Print those that are new, or that the run goes on where there has been none for half a minute."""
        for record in records:
            key = (record["phase"], record["round"], record["site"], record["status"])
            if key not in self.shown and (record["phase"], record["status"]) != (MEAN_PHASE, "ok"):
                self.shown.add(key)
                self.last = time.monotonic()
                self.say(describe_record(record))
        if time.monotonic() - self.last > self.QUIET_SECONDS:
            self.last = time.monotonic()
            answered = max((key[1] for key in self.shown if key[0] == "train"), default=None)
            where = "starting" if answered is None else f"after answers of round {answered}"
            self.say(f"working, {where}: {self.last - self.begin:.0f} s since the start")
