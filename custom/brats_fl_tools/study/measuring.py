"""What a training step of a bundle takes on this machine: a few real ones, in a process whose memory is looked at.

``python -m brats_fl_tools.study.measuring BUNDLE PROFILE DATALIST SETTINGS``, settings as JSON, prints a ``Measured``.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

from brats_fl.cases.datalists import CACHE_VARIABLE, DATALIST_FILE, read_datalist, write_datalist
from brats_fl.errors import RunError
from brats_fl.reading import Reader
from brats_fl_tools.runs.processes import last_lines, python_module, running

MODULE: Final = "brats_fl_tools.study.measuring"
CASES: Final = 2
STEPS: Final = 4
"""The first is not counted: it chooses kernels and allocates."""

LIMIT_SECONDS: Final = 900.0
"""A step of the full recipe takes half a minute on two cores, and reading the cases as long."""

READER: Final = Reader(RunError, "it is of another version")


@dataclass(frozen=True)
class Measured:
    """Of a bundle with its settings."""

    step_seconds: float
    memory_bytes: int
    """The most that the process had."""
    parameters: int


def measure(bundle: Path, profile: str, datalist: Path, settings: Mapping[str, Any]) -> Measured:
    """Train a few steps on a few cases of a list in a process of its own.

    Args:
        bundle: Root of the bundle.
        profile: Of the bundle.
        datalist: Of a hospital that trains.
        settings: Variables of the bundle.

    Raises:
        RunError: The steps failed, with the last line of what they said.
    """
    with tempfile.TemporaryDirectory(prefix="brats-fl-") as folder:
        log, out = Path(folder) / "log.txt", Path(folder) / "measured.json"
        arguments = (str(bundle), profile, str(datalist), json.dumps(dict(settings)), folder)
        environment = {CACHE_VARIABLE: str(Path(folder) / "cache"), "PYTHONWARNINGS": "ignore"}
        with running(python_module(MODULE, *arguments), log, environment) as process:
            try:
                code = process.wait(LIMIT_SECONDS)
            except subprocess.TimeoutExpired:
                code = -1
        if code or not out.is_file():
            why = last_lines(log, 1) or f"not done after {LIMIT_SECONDS:.0f} s"
            raise RunError(f"a step of {bundle.name}, profile {profile}, could not be measured: {why}")
        return READER.typed(Measured, READER.json_object(out), out)


def _measure_here(bundle: Path, profile: str, datalist: Path, settings: Mapping[str, Any], folder: Path) -> Measured:
    """The same in this process."""
    from ignite.engine import Events
    from monai.fl.utils.exchange_object import ExchangeObject

    from brats_fl.exchange import shared_weights
    from brats_fl.tasks import LocalSettings
    from brats_fl.training import LocalTraining

    found = read_datalist(datalist)
    few = folder / found.site / DATALIST_FILE
    write_datalist(few, replace(found, training=found.training[:CASES], validation=(), testing=()))
    overrides = {**settings, "steps_per_epoch": STEPS}
    training = LocalTraining(LocalSettings(bundle, few, folder, found.site, 1, profile=profile, overrides=overrides))
    training.initialize()
    prepared = training.trainer.data_loader.dataset
    for index in range(len(prepared)):  # a case is prepared once in a study, and not in every step
        prepared[index]
    ends: list[float] = []
    training.trainer.add_event_handler(Events.ITERATION_COMPLETED, lambda _: ends.append(time.perf_counter()))
    weights = shared_weights(training.trainer.network)
    training.train(ExchangeObject(weights=weights), {"round": 0})
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # Linux counts in KiB
    seconds = (ends[-1] - ends[0]) / (len(ends) - 1)
    return Measured(seconds, memory, sum(value.size for value in weights.values()))


def main() -> None:
    """Measure what the command line names."""
    bundle, profile, datalist, settings, folder = sys.argv[1:]
    found = _measure_here(Path(bundle), profile, Path(datalist), READER.parse("settings", settings), Path(folder))
    (Path(folder) / "measured.json").write_text(json.dumps(asdict(found)), encoding="utf-8")


if __name__ == "__main__":
    main()
