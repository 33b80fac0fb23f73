"""What it costs a core to give the trainer a model, or to get one back: handed over, and pickled as usual."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
import typer

from brats_fl.exchange import Weights
from brats_fl.handing_over import hand_over, take_over

PARAMETERS = 4_812_512
"""Of the UNet in profile ``small``."""
ARRAYS = 70
REPEATS = 5


@dataclass(frozen=True)
class HandingOverCosts:
    """Of one model, one way: seconds of a core for both ends together, the least of a few."""

    handed_seconds: float
    pickled_seconds: float


def bench_handing_over() -> None:
    """Print both, and their ratio."""
    found = measure_handing_over(PARAMETERS)
    handed, pickled = found.handed_seconds * 1e3, found.pickled_seconds * 1e3
    typer.echo(
        f"a model of {PARAMETERS * 4 / 1e6:.0f} MB to the trainer: {handed:.0f} ms of a core handed over, "
        f"{pickled:.0f} ms pickled, {pickled / handed:.1f} times ours"
    )


def measure_handing_over(parameters: int) -> HandingOverCosts:
    """Both, in turn, with a model of so many float32 values."""
    model = {f"w{number}": np.ones(parameters // ARRAYS, np.float32) for number in range(ARRAYS)}
    handed, pickled = [], []
    for _ in range(REPEATS):
        handed.append(core_seconds(model, lambda end: hand_over(end, model), take_over))
        pickled.append(core_seconds(model, lambda end: end.send(model), Connection.recv))
    return HandingOverCosts(min(handed), min(pickled))


def core_seconds(model: Weights, send: Callable[[Connection], None], take: Callable[[Connection], Any]) -> float:
    """Of this process, for both ends and one look at what arrives."""
    ours, theirs = Pipe()
    arrived: list[Weights] = []
    begin = time.process_time()
    thread = threading.Thread(target=lambda: arrived.append(take(theirs)))
    thread.start()
    send(ours)
    thread.join()
    total = sum(float(value.sum()) for value in arrived[0].values())
    seconds = time.process_time() - begin
    ours.close()
    theirs.close()
    if total != sum(value.size for value in model.values()):
        raise ValueError(f"the model did not arrive whole: its values add up to {total:g}")
    return seconds
