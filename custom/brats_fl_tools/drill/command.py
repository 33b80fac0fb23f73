"""``brats-fl drill``: breaks a federation of six hosts on this machine, one fault at a time."""

from __future__ import annotations

import contextlib
import json
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from brats_fl.errors import RunError
from brats_fl.files import write_whole
from brats_fl_tools.jobs.options import ForceOption
from brats_fl_tools.own_folders import fresh_folder
from brats_fl_tools.runs.processes import ended_by_sigterm

if TYPE_CHECKING:
    from brats_fl_tools.drill.federation import Drill

DRILL_FILE = "drill.json"
DISK_MB = {"hospital-5": 800, "server": 2000}
"""Of the hosts whose disks are filled: the server keeps 40 MB of each of two dozen jobs, a hospital 19 MB."""


@dataclass(frozen=True)
class Result:
    """What came of a fault."""

    fault: str
    expected: str
    happened: str
    passed: bool
    seconds: float
    skipped: bool = False
    """This machine cannot break it; that is no failure, and no success."""

    @property
    def word(self) -> str:
        """What came of it, in a word."""
        return "skipped" if self.skipped else "passed" if self.passed else "FAILED"


def drill(
    out: Annotated[Path, typer.Option("--out", help="Folder to write: drill.json and the logs of each host.")],
    only: Annotated[list[str] | None, typer.Option("--only", help="One fault; repeatable. Default: all.")] = None,
    sites: Annotated[
        Path | None, typer.Option("--sites", help="Folder with SITE/datalist.json; default: small sample hospitals.")
    ] = None,
    force: ForceOption = False,
) -> None:
    """Write OUT/drill.json: faults injected into a live federation of six hosts, what should happen and what did.

    The hosts are network namespaces of this machine with kits from a real provisioning; needs root on Linux.
    Exit 1 when a fault did not go as it should.
    """
    from brats_fl_tools.drill.faults import FAULTS
    from brats_fl_tools.drill.hosts import why_no_hosts

    if unknown := sorted(set(only or ()) - set(FAULTS)):
        raise typer.BadParameter(f"--only: no fault {unknown[0]!r}; there are {', '.join(FAULTS)}")
    if reason := why_no_hosts():
        raise RunError(f"no drill on this machine: {reason}")
    fresh_folder(out, "drill", force)
    results = run_drill(out.resolve(), only or list(FAULTS), sites)
    print_table(results)
    if not all(result.passed for result in results):
        raise typer.Exit(1)


def run_drill(out: Path, names: Sequence[str], sites: Path | None = None) -> list[Result]:
    """Inject the named faults one after the other into one federation; everything is stopped at the end."""
    from brats_fl_tools.drill.federation import Drill
    from brats_fl_tools.drill.hosts import hosts
    from brats_fl_tools.drill.houses import HOSTS, SERVER_NAME
    from brats_fl_tools.sample import write_sample

    out.mkdir(parents=True, exist_ok=True)
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in a shell's background, by all children too
    with ended_by_sigterm(), tempfile.TemporaryDirectory() as scratch:
        if sites is None:
            sites = Path(scratch) / "sites"
            write_sample(sites, 3, seed=0, full_size=False, progress=lambda _: None)
        with hosts(out, HOSTS, SERVER_NAME) as made, small_disks(out):
            federation = Drill(made, sites, names)
            try:
                federation.start()
                federation.wait_connected()
                results: list[Result] = []
                for name in names:
                    results.append(inject(federation, name))
                    write_whole(out / DRILL_FILE, json.dumps([asdict(result) for result in results], indent=1) + "\n")
                return results
            finally:
                federation.stop()


@contextlib.contextmanager
def small_disks(out: Path) -> Iterator[None]:
    """Give the hosts of ``DISK_MB`` a file system of their own, gone when the block ends; their logs are kept."""
    mounted = [(out / "hosts" / name, size) for name, size in DISK_MB.items()]
    for folder, size in mounted:
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}m", "tmpfs", str(folder)], check=True)
    try:
        yield
    finally:
        for folder, _ in mounted:
            kept = out / "logs" / folder.name
            kept.mkdir(parents=True, exist_ok=True)
            for log in (folder / "kit").glob("*.*og*"):
                if log.is_file():
                    shutil.copy(log, kept)
            subprocess.run(["umount", "--lazy", str(folder)], check=False)


def inject(federation: Drill, name: str) -> Result:
    """Inject one fault; afterwards all five hospitals are connected again."""
    from brats_fl_tools.drill.faults import FAULTS
    from brats_fl_tools.drill.faults.verdicts import Skipped, Unexpected

    fault, begin = FAULTS[name], time.monotonic()
    skipped = False
    try:
        happened, passed = fault.inject(federation), True
    except Skipped as reason:
        happened, passed, skipped = str(reason), True, True
    except (Unexpected, RunError, subprocess.TimeoutExpired) as error:
        happened, passed = str(error), False
    except Exception as error:  # a flaw of the drill's own must not cost the faults that are still to come
        happened, passed = f"the drill itself failed: {error!r}", False
    seconds = time.monotonic() - begin
    if not passed:  # the next fault meets an honest federation
        federation.stop()
        federation.mend()
        federation.start()
    federation.wait_connected()
    result = Result(name, fault.expected, happened, passed, round(seconds, 1), skipped)
    typer.echo(f"fault={name} {result.word} seconds={seconds:.0f} {happened}")
    return result


def print_table(results: Sequence[Result]) -> None:
    """The results, for people."""
    table = Table("fault", "should happen", "did happen", "", "s")
    for result in results:
        table.add_row(result.fault, result.expected, result.happened, result.word, f"{result.seconds:.0f}")
    Console().print(table)
