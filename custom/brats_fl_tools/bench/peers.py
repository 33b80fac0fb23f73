"""``make bench-peers``: what a round costs beside the sites' own work, here and on Flower's simulator, in one run."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import fmean
from typing import Annotated, Final

import psutil
import typer

import brats_fl
from brats_fl.constants import SITES
from brats_fl.errors import BratsFLError, RunError
from brats_fl.reading import Reader
from brats_fl.round_records import RECORDS_FILE, read_records
from brats_fl_tools.bench.__main__ import BUNDLE, write_cases
from brats_fl_tools.bench.rounds import SERVER_LOG, round_starts, slowest_seconds, write_sites
from brats_fl_tools.release.wheel import CONSTRAINTS
from brats_fl_tools.repository import BUNDLES, ROOT
from brats_fl_tools.runs.processes import python_module, reason, running

FLOWER: Final = "flwr[simulation]==1.42.0"
ROUNDS: Final = 4
STEPS: Final = 2
SAMPLING_SECONDS: Final = 2.0
"""Between two looks at memory; each costs some milliseconds a process."""

QUIET: Final = {"FLWR_TELEMETRY_ENABLED": "0", "RAY_USAGE_STATS_ENABLED": "0"}
"""Neither Flower nor Ray reports that it was used."""

READER = Reader(RunError, "run it again")


@dataclass(frozen=True)
class Costs:
    """Of one run."""

    start_seconds: float
    """From the command to the second round, less the slowest site's own work in the first."""
    round_seconds: float
    """From a round to the next, less the slowest site's own work; the mean of all but the first and the last."""
    whole_seconds: float
    """The same with that work: what a site does again because its place was given to another is in there."""
    bytes_down: int
    bytes_up: int
    """Of a site and round."""
    memory_mb: float
    """Most at a time of all processes, shared memory counted once."""


def main(
    environment: Annotated[Path, typer.Option("--environment", help="Flower's own, made where it is not there.")],
) -> None:
    """Print what a round costs, ours and Flower's: five sites, the `small` UNet, the same synthetic cases and steps."""
    if fault := make_environment(environment):
        typer.echo(f"bench-peers skipped: Flower could not be installed: {fault}")
        return
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        datalist = write_cases(root)
        for name in ("ours", "flower"):
            write_sites(datalist, root / name / "sites")
        ours, flower = run_ours(root / "ours"), run_flower(root / "flower", environment / "bin" / "python")
    typer.echo("\n".join(describe({"ours": ours, "flower": flower})))


def make_environment(environment: Path) -> str:
    """Make the peer's environment unless it is there; why it cannot be, or nothing.

    Torch, MONAI and our code are ours, found after its own packages; nothing is installed here.
    """
    done = environment / ".installed"
    if done.is_file():
        return ""
    packages = [path for path in sys.path if Path(path).name == "site-packages"]
    python = environment / "bin" / "python"
    steps = [
        [sys.executable, "-m", "venv", str(environment)],
        [str(python), "-m", "pip", "install", "--quiet", "-c", str(ROOT / CONSTRAINTS), FLOWER],
    ]
    for step in steps:
        ended = subprocess.run(step, capture_output=True, text=True, check=False)
        if ended.returncode != 0:
            return (ended.stderr.strip().splitlines() or [f"exit code {ended.returncode}"])[-1]
    own = next(environment.glob("lib/python*/site-packages"))
    code = str(Path(brats_fl.__file__).parents[1])
    (own / "ours.pth").write_text("\n".join([code, *packages]) + "\n", encoding="utf-8")
    done.touch()
    return ""


def run_ours(root: Path) -> Costs:
    """`brats-fl simulate`, as a user runs it."""
    run = root / "run"
    options = ["--profile", "small", "--rounds", str(ROUNDS), "--set", f"steps_per_epoch={STEPS}"]
    command = ["simulate", "brats_unet_fedavg", "--sites", str(root / "sites"), "--out", str(run), *options]
    begin, most = carry_out(python_module("brats_fl_tools", *command), root / "log.txt")
    starts, slowest = round_starts((run / SERVER_LOG).read_text(encoding="utf-8")), slowest_seconds(run / RECORDS_FILE)
    sizes = next(record for record in read_records(run / RECORDS_FILE) if record["round"] == ROUNDS - 1)
    sent = int(sizes["bytes_down"]), int(sizes["bytes_up"])
    rounds = range(ROUNDS)
    return costs(begin, [starts[one] for one in rounds], [slowest[one] for one in rounds], sent, most)


def run_flower(root: Path, python: Path) -> Costs:
    """``flower`` in the peer's environment."""
    given = {"bundle": BUNDLES / BUNDLE, "sites": root / "sites", "state": root / "state", "out": root / "seen.json"}
    options = {**given, "rounds": ROUNDS, "steps": STEPS}
    words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    threads = {"OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // len(SITES)))}
    command = [str(python), "-m", "brats_fl_tools.bench.flower", *words]
    begin, most = carry_out(command, root / "log.txt", QUIET | threads | {"HOME": str(root)})
    seen = READER.json_object(root / "seen.json")
    starts, slowest = (READER.at(list[float], seen, [name], root) for name in ("starts", "slowest"))
    down, up = (READER.at(int, seen, [name], root) for name in ("bytes_down", "bytes_up"))
    return costs(begin, starts, slowest, (down, up), most)


def costs(
    begin: float, starts: Sequence[float], slowest: Sequence[float], sent: tuple[int, int], memory_mb: float
) -> Costs:
    """What a run cost, from when it and its rounds began, in s since the epoch, and the slowest site's s in each."""
    beside = [later - start - own for start, later, own in zip(starts, starts[1:], slowest, strict=False)]
    whole = fmean(later - start for start, later in pairwise(starts[1:]))
    return Costs(starts[0] - begin + beside[0], fmean(beside[1:]), whole, *sent, memory_mb)


def carry_out(command: Sequence[str], log: Path, environment: Mapping[str, str] | None = None) -> tuple[float, float]:
    """Run a command to its end; when it began, in s since the epoch, and the MB that it held at most.

    Raises:
        RunError: It failed.
    """
    begin = time.time()
    with running(command, log, environment) as process, watching(process.pid) as sampled:
        process.wait()
    if process.returncode != 0:
        raise RunError(f"{command[0]} {command[2]}: {reason(log)}")
    return begin, max(sampled, default=0.0)


@contextmanager
def watching(pid: int) -> Iterator[list[float]]:
    """Meanwhile the memory in MB of a process and its descendants is added to the list, again and again."""
    sampled: list[float] = []
    over = threading.Event()

    def watch() -> None:
        while not over.wait(SAMPLING_SECONDS):
            sampled.append(memory_of(pid))

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield sampled
    finally:
        over.set()
        thread.join()


def memory_of(pid: int) -> float:
    """MB of a process and its descendants; what several share is counted once."""
    total = 0
    try:
        family = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    except psutil.Error:
        return 0.0
    for process in family:
        try:
            total += process.memory_full_info().pss
        except psutil.Error:
            continue  # it has just ended
    return total / 1e6


def describe(found: Mapping[str, Costs]) -> list[str]:
    """A line for each run, and the ratios of the peer's to ours."""
    lines = [
        f"{name:7s} start {one.start_seconds:6.1f} s, round {one.whole_seconds:5.1f} s, "
        f"of which {one.round_seconds:5.2f} s beside the slowest site's work, "
        f"{one.bytes_down / 1e6:.1f} MB down and {one.bytes_up / 1e6:.1f} MB up a site, {one.memory_mb:,.0f} MB memory"
        for name, one in found.items()
    ]
    ours, flower = found["ours"], found["flower"]
    return [
        *lines,
        f"Flower's to ours: start {flower.start_seconds / ours.start_seconds:.2f}, round "
        f"{flower.whole_seconds / ours.whole_seconds:.2f}, what it has beside the sites' work "
        f"{flower.round_seconds / ours.round_seconds:.2f}, memory {flower.memory_mb / ours.memory_mb:.2f}",
    ]


if __name__ == "__main__":
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(main)
    try:
        app()
    except BratsFLError as error:
        sys.exit(str(error))
