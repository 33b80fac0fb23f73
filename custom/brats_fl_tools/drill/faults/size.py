"""Many hospitals and many rounds: what the server needs must not grow with the rounds.

The federation is FLARE's simulator with a process for each hospital, which answers without training (``stand_in``):
forty processes of a provisioned federation and twenty trainers are more than a machine for a drill has. The server's
side, whose memory is measured, is what it is everywhere.
"""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import numpy as np
import psutil

from brats_fl.cases.datalists import DATALIST_FILE, DataList, read_datalist, write_datalist
from brats_fl.constants import SITES
from brats_fl.errors import RunError
from brats_fl.round_records import read_records
from brats_fl_tools.drill.faults.verdicts import Fault, expect
from brats_fl_tools.drill.federation import Drill
from brats_fl_tools.drill.outcome import means
from brats_fl_tools.repository import BUNDLES
from brats_fl_tools.runs.folder import SIMULATED_SERVER
from brats_fl_tools.runs.processes import running
from brats_fl_tools.runs.simulator import PROCESS

HOSPITALS: Final = 20
ROUNDS: Final = 30
WARM_ROUNDS: Final = 5
"""The first rounds fill caches and pools."""

MOST_MB_A_ROUND: Final = 2.9
"""1.8 times the most of what the allocator took until it was warm, 1.3 to 1.6 MB a round in three runs; from round 30
to 60 it took no more. A round's updates, were they kept, would be 2.6 MB on top: 20 of .13 MB."""

RUN_SECONDS: Final = 1500.0
TINY_CHANNELS: Final = [4, 8, 8, 8, 8]


def twenty_hospitals(drill: Drill) -> str:
    """Thirty rounds of twenty hospitals with a tiny network; the slope of the server's memory from round 5 on."""
    folder = drill.hosts.folder / "twenty"
    names = [f"clinic-{number:02d}" for number in range(1, HOSPITALS + 1)]
    job = write_study(folder, drill.hosts.files(SITES[0]) / "data" / DATALIST_FILE, names)
    memory = run_and_measure(folder, job)
    records = read_records(folder / "run" / "rounds.jsonl")
    answers = sum(record["phase"] == "train" and record["status"] == "ok" for record in records)
    expect(answers == HOSPITALS * ROUNDS, f"{answers} updates were accepted, expected {HOSPITALS * ROUNDS}")
    rounds = [index for index in memory if index >= WARM_ROUNDS]
    expect(len(rounds) > (ROUNDS - WARM_ROUNDS) / 2, f"the memory of {len(rounds)} rounds only was seen")
    growth = slope(rounds, [memory[index] for index in rounds])
    expect(growth <= MOST_MB_A_ROUND, f"the server's memory grew by {growth:.2f} MB a round")
    most = max(memory.values())
    return f"{answers} updates accepted; the server's memory grew by {growth:.2f} MB a round to {most:.0f} MB"


def write_study(folder: Path, datalist: Path, names: Sequence[str]) -> Path:
    """Data lists for hospitals of these names, a bundle with a tiny network and a job over them; the job's folder."""
    shutil.rmtree(folder, ignore_errors=True)
    source = read_datalist(datalist)
    for name in names:
        (folder / "sites" / name).mkdir(parents=True)
        write_datalist(folder / "sites" / name / DATALIST_FILE, DataList(name, source.training, source.validation))
    bundle = folder / "bundles" / "brats_unet"
    shutil.copytree(BUNDLES / "brats_unet", bundle, ignore=shutil.ignore_patterns("models", "eval", "__pycache__"))
    small = json.loads((bundle / "configs" / "small.json").read_text(encoding="utf-8"))
    tiny = small | {"network_def#channels": TINY_CHANNELS}
    (bundle / "configs" / "tiny.json").write_text(json.dumps(tiny), encoding="utf-8")
    job = folder / "jobs" / "twenty"
    job.mkdir(parents=True)
    executor = {"path": "brats_fl_tools.drill.stand_in.StandIn", "args": {}}
    differences = {
        "description": "Rounds without training",
        "bundle": bundle.name,
        "executors": [{"tasks": ["train", "validate"], "executor": executor}],
        "min_clients": len(names),
    }
    meta = {"name": "twenty", "min_clients": len(names), "deploy_map": {"app_server": ["server"], "app_client": names}}
    (job / "job.json").write_text(json.dumps(differences), encoding="utf-8")
    (job / "meta.json").write_text(json.dumps(meta), encoding="utf-8")
    return job


def run_and_measure(folder: Path, job: Path) -> dict[int, float]:
    """Round -> MB of the server's process when the round was over.

    Raises:
        RunError: The run did not end well, or not in time.
    """
    command = [str(Path(sys.executable).with_name("brats-fl")), "simulate", str(job), "--sites", str(folder / "sites")]
    command += ["--out", str(folder / "run"), "--profile", "tiny", "--rounds", str(ROUNDS)]
    command += ["--at-once", str(HOSPITALS)]  # the stand-ins need no memory, which nobody can tell
    memory: dict[int, float] = {}
    deadline = time.monotonic() + RUN_SECONDS
    with running(command, folder / "simulate.log") as process:
        while process.poll() is None and time.monotonic() < deadline:
            records = read_records(folder / "run" / SIMULATED_SERVER / "rounds.jsonl")
            done = max((record["round"] for record in means(records)), default=-1)
            if done >= 0 and done not in memory:
                memory[done] = server_mb(process.pid)
            time.sleep(0.1)
        if process.poll() != 0:
            raise RunError(
                f"the run of {HOSPITALS} hospitals ended with {process.poll()}; see {folder / 'simulate.log'}"
            )
    return memory


def server_mb(pid: int) -> float:
    """Resident memory of the simulator's own processes among a process's descendants: the server without the sites."""
    family = psutil.Process(pid).children(recursive=True)
    own = [process for process in family if PROCESS in " ".join(process.cmdline())]
    return sum(process.memory_info().rss for process in own) / 1e6


def slope(rounds: Sequence[int], values: Sequence[float]) -> float:
    """Growth by round, by least squares."""
    return float(np.polyfit(rounds, values, 1)[0])


FAULTS: Final[Mapping[str, Fault]] = {
    "twenty-hospitals": Fault(
        f"thirty rounds; the server's memory grows by at most {MOST_MB_A_ROUND} MB a round", twenty_hospitals
    ),
}
