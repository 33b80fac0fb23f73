"""The processes of a federation whose kits all lie on this host: start, look, stop.

Every process carries the folder of its kits in its environment, and so do the processes that it starts. That is how
they are found again, whoever has died in between, and why two federations on one host do not see each other.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import psutil

from brats_fl.errors import RunError
from brats_fl_tools.kit.checks import check_path, check_scripts, running_processes
from brats_fl_tools.kit.kits import Federation, Kit
from brats_fl_tools.kit.server import check_port_free, without_proxy
from brats_fl_tools.runs.processes import GRACE_SECONDS, last_lines, reason
from brats_fl_tools.runs.session import admin_session, connected_clients

CONSOLE_LOG = "console.log"
MARKER = "BRATS_FL_FEDERATION"
OUTCOME_WAIT_SECONDS = 60
"""How long FLARE's server waits at the end of a job for a lost site's outcome; by default it is 900 s."""

START_SECONDS = 120.0
"""How long a start may take; on two idle cores it takes under 20 s, on a busy machine a minute."""


START_CHECKS = (check_scripts, check_path)


def marker_of(federation: Federation) -> str:
    """Value of ``MARKER`` in the environment of the federation's processes."""
    return str(federation.folder.resolve())


Wrap = Callable[[Kit, Sequence[str]], list[str]]
"""Turns the command that starts a kit into one that starts it elsewhere, such as in a namespace of its own."""


def start_kit(
    federation: Federation,
    kit: Kit,
    environment: Mapping[str, str],
    watchdog: bool = False,
    wrap: Wrap = lambda _, command: list(command),
) -> None:
    """Start the server or a hospital with the script of its kit.

    Args:
        federation: Whose kit it is.
        kit: Server or hospital.
        environment: Added to this process's.
        watchdog: Start FLARE's loop that restarts the process when it dies, as a hospital does.
        wrap: Where to start it.
    """
    script = ["start.sh"] if watchdog else ["sub_start.sh", "--once"]
    command = wrap(kit, ["bash", str(kit.folder.resolve() / "startup" / script[0]), *script[1:]])
    with (kit.folder / CONSOLE_LOG).open("ab") as log:
        subprocess.run(
            # The shell leaves the process to the system and ends: it has to outlive this command.
            ["bash", "-c", '"$@" &', "start", *command],
            check=True,
            stdout=log,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            env=process_environment(federation, environment),
        )


def process_environment(federation: Federation, environment: Mapping[str, str]) -> dict[str, str]:
    """Environment of a federation's processes."""
    return {
        **os.environ,
        **without_proxy(federation.clients[0].host),
        "PYTHONWARNINGS": "ignore",
        "NVFLARE_CLIENT_OUTCOME_WAIT_TIMEOUT": str(OUTCOME_WAIT_SECONDS),
        # The kits' scripts call a bare python3.
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]),
        **environment,
        MARKER: marker_of(federation),
    }


def start(federation: Federation, admin: Kit, environment: Mapping[str, str], watchdog: bool = False) -> float:
    """Start server and hospitals; returns the seconds until all were registered.

    Raises:
        RunError: Something is running already, or not all have registered in time; all are stopped then.
    """
    if processes(federation):
        raise RunError(f"{federation.folder}: processes of this federation are running; stop them first")
    refuse_unfit(federation)
    begin = time.monotonic()
    for kit in (federation.server, *federation.clients):
        start_kit(federation, kit, environment, watchdog)
    try:
        wait_until_registered(federation, admin, {kit.name for kit in federation.clients})
    except BaseException:
        stop(federation)
        raise
    return time.monotonic() - begin


def refuse_unfit(federation: Federation) -> None:
    """Raise ``RunError`` where a start, or every job, would fail without a word: by port, scripts or a kit's path."""
    everyone = (federation.server, *federation.clients)
    results = [check_port_free(federation.server.port), *(check(kit) for kit in everyone for check in START_CHECKS)]
    if wrong := [result for result in results if result.state == "error"]:
        raise RunError(f"{federation.folder}: nothing was started: {wrong[0].found}; {wrong[0].mend}")


def wait_until_registered(federation: Federation, admin: Kit, names: set[str], seconds: float = START_SECONDS) -> None:
    """Return when all named hospitals are connected to the server.

    Raises:
        RunError: They are not in time; the message names who is missing and its log.
    """
    deadline = time.monotonic() + seconds
    present: set[str] = set()
    while time.monotonic() < deadline:
        if not running_processes(federation.server):
            log = federation.server.folder / CONSOLE_LOG
            raise RunError(f"{federation.server.name} ended before all were registered: {reason(log)} ({log})")
        with contextlib.suppress(RunError), admin_session(admin, timeout_s=2) as session:
            while time.monotonic() < deadline:
                present = connected_clients(session)
                if names <= present:
                    return
                time.sleep(0.25)
        time.sleep(0.25)
    missing = [kit for kit in federation.clients if kit.name in names - present]
    logs = "\n".join(f"{kit.name}: {last_lines(kit.folder / 'console.log', 1)}" for kit in missing)
    raise RunError(f"not registered within {seconds:.0f} s: {', '.join(kit.name for kit in missing)}\n{logs}")


def processes(federation: Federation) -> list[psutil.Process]:
    """All living processes of a federation, the trainers and job processes included."""
    marker = marker_of(federation)
    return [process for process in psutil.process_iter() if marker_in(process) == marker]


def marker_in(process: psutil.Process) -> str | None:
    """The folder of kits that a process belongs to; None for a dead one and for one of another user."""
    with contextlib.suppress(psutil.Error):
        if process.status() != psutil.STATUS_ZOMBIE:
            return process.environ().get(MARKER)
    return None


def stop(federation: Federation) -> None:
    """End all processes of a federation: SIGTERM, then SIGKILL; those that are started meanwhile too."""
    deadline = time.monotonic() + GRACE_SECONDS
    while alive := processes(federation):
        for process in alive:
            with contextlib.suppress(psutil.Error):
                # The loops of start.sh go first and at once: they would start again what has ended.
                watchdog = "sub_start.sh" in " ".join(process.cmdline())
                process.kill() if watchdog or time.monotonic() > deadline else process.terminate()
        psutil.wait_procs(alive, timeout=1)
    for kit in (federation.server, *federation.clients):
        for name in ("pid.fl", "daemon_pid.fl", "shutdown.fl", "restart.fl"):
            (kit.folder / name).unlink(missing_ok=True)


def role_of(process: psutil.Process) -> str:
    """``hospital-1`` for a parent, ``hospital-1 job``, ``hospital-1 trainer``, ``server``, ``server job``."""
    with contextlib.suppress(psutil.Error):
        line = process.cmdline()
        text = " ".join(line)
        if "brats_fl.trainer_process" in text:
            parent = process.parent()
            return f"{role_of(parent).split()[0]} trainer" if parent else "trainer"
        job = " job" if "worker_process" in text or "runner_process" in text else ""
        if "-m" in line and "nvflare" in text:
            return Path(line[len(line) - 1 - line[::-1].index("-m") + 1]).name + job
        return "watchdog" if "sub_start.sh" in text else Path(line[0]).name
    return "?"
