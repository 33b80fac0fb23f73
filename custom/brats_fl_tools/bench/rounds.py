"""What a round costs beside the sites' own work: from a short run of five sites in the simulator."""

from __future__ import annotations

import re
from datetime import datetime
from pathlib import Path

from brats_fl.cases.datalists import DataList, read_datalist, write_datalist
from brats_fl.constants import SITES
from brats_fl.round_records import RECORDS_FILE, read_records
from brats_fl_tools.jobs.assembly import JobOptions
from brats_fl_tools.runs.simulate import run_simulation
from brats_fl_tools.runs.simulator import POLLING_SECONDS

ROUNDS = 5
SERVER_LOG = "workspace/server/log.txt"
STARTED = re.compile(r"^(\S+ \S+?),(\d+) .*ScatterAndGather.*Round (\d+) started")


def round_overhead(datalist: Path, root: Path) -> float:
    """Mean seconds from the start of a round to the next, less the slowest site's own seconds; the first left out."""
    write_sites(datalist, root / "sites")
    options = JobOptions("small", ROUNDS, {"steps_per_epoch": 1}, polling_seconds=POLLING_SECONDS)
    run_simulation("brats_unet_fedavg", root / "sites", root / "run", options)
    starts = round_starts((root / "run" / SERVER_LOG).read_text(encoding="utf-8"))
    slowest = slowest_seconds(root / "run" / RECORDS_FILE)
    overheads = [starts[index + 1] - starts[index] - slowest[index] for index in range(1, ROUNDS - 1)]
    return sum(overheads) / len(overheads)


def write_sites(datalist: Path, sites: Path) -> None:
    """Five sites, each with the training cases of a list."""
    for site in SITES:
        write_datalist(sites / site / "datalist.json", DataList(site, training=read_datalist(datalist).training))


def round_starts(log: str) -> dict[int, float]:
    """Round -> seconds since the epoch at which it started, from the server's log."""
    found = (STARTED.match(line) for line in log.splitlines())
    return {
        int(match[3]): datetime.strptime(match[1], "%Y-%m-%d %H:%M:%S").timestamp() + int(match[2]) / 1000
        for match in found
        if match
    }


def slowest_seconds(records: Path) -> dict[int, float]:
    """Round -> the longest time that a site worked in it."""
    slowest: dict[int, float] = {}
    for record in read_records(records):
        if record["phase"] == "train":
            slowest[record["round"]] = max(slowest.get(record["round"], 0.0), float(record["seconds"]))
    return slowest
