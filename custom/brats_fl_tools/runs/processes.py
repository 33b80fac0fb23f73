"""Child processes that never outlive the command that started them."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

import psutil

GRACE_SECONDS = 10.0
"""How long a process may take to end by itself before it is killed: FLARE closes its cells within 6 s."""


class Interrupted(SystemExit):
    """Ctrl-C or SIGTERM ended a command.

    Args:
        words: What became of the work, and how to go on with it.
    """

    def __init__(self, words: str) -> None:
        super().__init__(1)
        self.words = words


@contextlib.contextmanager
def running(
    command: Sequence[str], log: Path, environment: Mapping[str, str] | None = None, cwd: Path | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a command with its output in ``log``; when the block ends, however, it and its descendants are gone."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        process = subprocess.Popen(
            list(command),
            stdout=output,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            env={**os.environ, **(environment or {})},
            cwd=cwd,
            start_new_session=True,  # Ctrl-C reaches the command, which then ends its children in order
        )
        try:
            with ended_by_sigterm():
                yield process
        finally:
            end_tree(process.pid)
            process.wait()


@contextlib.contextmanager
def ended_by_sigterm() -> Iterator[None]:
    """While the block runs, SIGTERM unwinds the stack like Ctrl-C, so that what was started is ended too."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread receives signals
        return

    def leave(number: int, _: object) -> None:
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def end_tree(pid: int) -> None:
    """End a process and all its descendants: SIGTERM, then SIGKILL after a grace period."""
    try:
        parent = psutil.Process(pid)
        family = [*parent.children(recursive=True), parent]
    except psutil.NoSuchProcess:
        return
    _end(family)


def end_marked(variable: str, value: str) -> None:
    """End every process with this in its environment: also one whose parent died, which is nobody's descendant."""

    def is_marked(process: psutil.Process) -> bool:
        with contextlib.suppress(psutil.Error):
            return process.environ().get(variable) == value
        return False

    _end([process for process in psutil.process_iter() if is_marked(process)])


def _end(family: Sequence[psutil.Process]) -> None:
    for process in family:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(signal.SIGTERM)
    _, alive = psutil.wait_procs(family, timeout=GRACE_SECONDS)
    for process in alive:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(alive, timeout=GRACE_SECONDS)


def python_module(module: str, *arguments: str) -> list[str]:
    """Command that runs a module with this interpreter."""
    return [sys.executable, "-m", module, *arguments]


LITTLE_SPACE_BYTES = 1_000_000
"""With less on its disk a log does not hold the reason any more: it is the lack of space."""


def last_lines(path: Path, count: int = 5) -> str:
    """The last lines of a log, for an error message."""
    if not path.is_file():
        return ""
    if shutil.disk_usage(path.parent).free < LITTLE_SPACE_BYTES:
        return f"the disk of {path.parent} is full; free some space and run the command again"
    return "\n".join(path.read_text(encoding="utf-8", errors="replace").splitlines()[-count:])


OWN_FAILURE: Final = re.compile(r"\bBratsExecutor - ERROR - \[identity=([^,\]]+)[^\]]*\] - (\w+ failed: .+)")
"""What a site's executor says in its log: the site, and case, file and step of what failed."""


PANIC: Final = re.compile(r"Aborting current RUN due to FATAL_SYSTEM_ERROR received: (.+)")
"""Why a job was given up; what FLARE does after it gives further reasons, which are none."""


def reason(log: Path) -> str:
    """What the last site that failed said in FLARE's log, else why the job was given up, else its last error line."""
    text = log.read_text(encoding="utf-8", errors="replace").splitlines() if log.is_file() else []
    own = [f"{found[1]}: {found[2]}" for line in text if (found := OWN_FAILURE.search(line))]
    if own:
        return own[-1]
    panics = [found[1] for line in text if (found := PANIC.search(line))]
    if panics:
        return panics[0].strip()
    errors = [line for line in text if "ERROR" in line or "Error" in line]
    return errors[-1].strip()[-300:] if errors else last_lines(log, 1)
