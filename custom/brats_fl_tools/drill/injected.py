"""What runs inside the processes of a broken host: training that goes wrong, and messages that nobody should send.

``broken_sites`` has every process of a host come through ``break_process`` before it does anything else.
"""

from __future__ import annotations

import dataclasses
import json
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from brats_fl.tasks import TaskResult

CANARY: Final = "canary-7391"
"""Stands in every text that a broken site produces, and must not be found at the server."""

Train = Callable[[], TaskResult]
"""The honest training of a round."""


def break_process(plan_file: Path) -> None:
    """Break this process, if it is one of those that the plan names.

    Args:
        plan_file: ``{"train": {ROUND: KIND}}`` for the trainer, with a kind of ``TRAININGS``; ``{"metrics": {ROUND:
            KIND}}`` for the job's process, with one of ``METRICS``; ``{"ask": {...}}``, ``{"release": true}``,
            ``{"swap_key": {ROUND: SITE}}`` and ``{"reveal": [ROUND, ...]}`` for that, too, see ``injected_messages``.
    """
    plan = json.loads(plan_file.read_text(encoding="utf-8"))
    line = " ".join(sys.orig_argv)
    if "brats_fl.trainer_process" in line:
        break_training(plan.get("train", {}))
    elif "worker_process" in line or "runner_process" in line:
        from brats_fl_tools.drill import injected_messages

        injected_messages.break_job(plan)


def break_training(kinds: Mapping[str, str]) -> None:
    """Replace the trainer's ``train_round``: in each round by the kind of ``TRAININGS`` that is named for it."""
    import brats_fl.training

    honest = brats_fl.training.train_round

    def train_round(training: Any, task: Any) -> TaskResult:
        kind = kinds.get(str(task.round_index))
        return TRAININGS[kind](lambda: honest(training, task)) if kind else honest(training, task)

    brats_fl.training.train_round = train_round


def changed(result: TaskResult, of: Callable[[str, Any], Any]) -> TaskResult:
    """The result with another update: ``of`` of the name and value of each parameter."""
    update = {name: of(name, value) for name, value in result.update.items()}
    return dataclasses.replace(result, payloads={"weights": update})


def stating(result: TaskResult, **statistics: Any) -> TaskResult:
    """The result with other statistics."""
    return dataclasses.replace(result, statistics={**result.statistics, **statistics})


def raises(train: Train) -> TaskResult:
    """An exception that names a path."""
    raise RuntimeError(f"{CANARY} /secret/path/case-001.nii.gz")


def another_key(train: Train) -> TaskResult:
    """An update with the name of one parameter changed."""
    result = train()
    first = next(iter(result.update))
    update = {(CANARY if name == first else name): value for name, value in result.update.items()}
    return dataclasses.replace(result, payloads={"weights": update})


def nonsense(train: Train) -> TaskResult:
    """Texts, lists and 1 MB of text as statistics, and metrics that are none."""
    stated = {"steps": CANARY, "train_seconds": [CANARY], CANARY: CANARY * 100_000}
    votes = {"val_mean_dice": 1e6, f"{CANARY} site=hospital-1": 0.5}
    return dataclasses.replace(stating(train(), **stated), metrics=votes)


def slow(train: Train) -> TaskResult:
    """Ten times the time."""
    begin = time.monotonic()
    result = train()
    time.sleep(9 * (time.monotonic() - begin))
    return result


TRAININGS: Final[Mapping[str, Callable[[Train], TaskResult]]] = MappingProxyType(
    {
        "raises": raises,
        "nan": lambda train: changed(train(), lambda _, value: value * float("nan")),
        "huge": lambda train: changed(train(), lambda _, value: value * 1e6),
        "shapes": lambda train: changed(train(), lambda _, value: value[..., None]),
        "keys": another_key,
        "flipped": lambda train: changed(train(), lambda _, value: -value),
        "cases": lambda train: stating(train(), cases=10**9),
        "overflow": lambda train: stating(train(), cases=1.7e308),
        "vote": lambda train: dataclasses.replace(train(), metrics={"val_mean_dice": 1e6}),
        "nonsense": nonsense,
        "slow": slow,
    }
)
"""Kind -> what a broken trainer does with the honest training."""

METRICS: Final[Mapping[str, Any]] = MappingProxyType(
    {
        "text": {"val_mean_dice": CANARY, "val_dice_tc": f"0.9\n{CANARY}", "val_dice_wt": [CANARY] * 1000},
        "huge": {"val_mean_dice": 1.7e308, "val_dice_tc": float("inf"), "val_dice_wt": 2**63 - 1},
    }
)
"""Kind -> what a broken job process sends as the metrics of a round; the honest executor could not write them down."""
