"""Disks that are full, and a scan that is cut short."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from brats_fl.cases.datalists import DATALIST_FILE, read_datalist
from brats_fl.cases.scans import split_volume
from brats_fl_tools.drill.faults.verdicts import (
    SITE,
    Fault,
    expect,
    expect_others_finished,
    expect_resumed,
    statuses,
)
from brats_fl_tools.drill.federation import Drill
from brats_fl_tools.drill.waiting import wait_until
from brats_fl_tools.runs.collect import model_of, rounds_done

LEFT_MB: Final = 8
"""Less than half a model of 19 MB, and more than a job's logs."""


def corrupt_case(drill: Drill) -> str:
    """A scan of a hospital is cut short."""
    datalist = read_datalist(drill.hosts.files(SITE) / "data" / DATALIST_FILE)
    scan, _ = split_volume(datalist.training[0].image[2])
    whole = scan.read_bytes()
    scan.write_bytes(whole[: len(whole) // 2])
    try:
        outcome = drill.run("corrupt-case", 2)
    finally:
        scan.write_bytes(whole)
    text = expect_others_finished(drill, outcome, 2)
    seen = statuses(outcome, 2)
    expect(seen in ("CASE_ERROR, CASE_ERROR", "DATALIST_ERROR, DATALIST_ERROR"), f"{SITE} is {seen}")
    for record in outcome.records:
        expect(scan.name not in str(record), "the records name the case")
    return f"{text}; {SITE}: {seen}"


@contextlib.contextmanager
def full(folder: Path, left_mb: int = 0) -> Iterator[None]:
    """While the block runs, the file system of a folder is full, but for a little space."""
    filler = folder / "filler"
    subprocess.run(["dd", "if=/dev/zero", f"of={filler}", "bs=64k"], capture_output=True, check=False)
    os.truncate(filler, filler.stat().st_size - left_mb * 1_000_000)
    try:
        yield
    finally:
        filler.unlink()


def site_disk_full(drill: Drill) -> str:
    """A hospital's disk is full during a round."""
    site = "hospital-5"
    stack = contextlib.ExitStack()

    def during(run: Path) -> None:
        drill.wait_round(run, 1)
        stack.enter_context(full(drill.hosts.files(site)))
        drill.wait_round(run, 3)
        stack.close()

    with stack:
        outcome = drill.run("site-disk", 5, during, {"steps_per_epoch": 20})
    text = expect_others_finished(drill, outcome, 5, site)
    seen = statuses(outcome, 5, site)
    expect("DISK_FULL" in seen, f"{site} is {seen}")
    expect(outcome.status(site, 4) == "ok", f"{site} did not come back: {seen}")
    return f"{text}; {site}: {seen}"


def server_disk_full(drill: Drill) -> str:
    """The server's disk is full at the end of a round; then there is space again, and the lead resumes the job."""
    stack = contextlib.ExitStack()

    def during(run: Path) -> None:
        drill.wait_round(run, 1)
        stack.enter_context(full(drill.hosts.files("server")))

    with stack:
        lost = drill.run("server-disk", 3, during, {"steps_per_epoch": 20})
        wait_until(lambda: not drill.trainers(), "the job to end")
        kept = drill.copy_server_files(lost.run)  # the job's store has no room for them
    expect(lost.exit_code == 1, f"submit ended with {lost.exit_code}")
    drill.wait_connected()
    collected = drill.on_lead("collect", str(lost.run))
    expect(collected.returncode == 1, f"collect ended with {collected.returncode}")
    return expect_resumed(drill, lost.run, 3, "--server-files", str(kept))[0]


def model_disk_full(drill: Drill) -> str:
    """The server's disk has space for records and logs and not for the model, when that is to be kept."""
    stack = contextlib.ExitStack()

    def during(run: Path) -> None:
        drill.wait_round(run, 1)
        stack.enter_context(full(drill.hosts.files("server"), LEFT_MB))

    with stack:
        lost = drill.run("model-disk", 3, during, {"steps_per_epoch": 20})
        wait_until(lambda: not drill.trainers(), "the job to end")
        kept = drill.copy_server_files(lost.run)  # the job's store has no room for them
        done = rounds_done(model_of(kept))
        parts = [path.name for path in model_of(kept).parent.iterdir() if path.name.endswith(".tmp")]
    expect(lost.exit_code == 1, f"submit ended with {lost.exit_code}")
    # On a busy machine round 1 may be over before the disk is full.
    expect(done in (1, 2), f"the model that the server kept says that {done} rounds made it")
    expect(not parts, f"a part of a model is left: {parts}")
    drill.wait_connected()
    text, _ = expect_resumed(drill, lost.run, 3, "--server-files", str(kept))
    return f"the model of {done} rounds stayed whole; {text}"


FAULTS: Final[Mapping[str, Fault]] = {
    "corrupt-case": Fault("a code goes out; four finish", corrupt_case),
    "site-disk-full": Fault("a code goes out; the site is back when there is space", site_disk_full),
    "model-disk-full": Fault("the last good model stays whole; resume finishes the job", model_disk_full),
    "server-disk-full": Fault("the job ends with a message; resume finishes it", server_disk_full),
}
