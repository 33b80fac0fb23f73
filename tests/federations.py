"""A federation that a test starts ends with the test, and with the tests when those are killed or crash."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator

from brats_fl_tools.kit.kits import Federation
from brats_fl_tools.runs import host_federation as fed

WATCH = """
import sys
sys.stdin.read()
from brats_fl_tools.runs.host_federation import MARKER
from brats_fl_tools.runs.processes import end_marked
end_marked(MARKER, sys.argv[1])
"""
"""Waits for the end of the pipe, which the system closes however the process at its other end dies."""


@contextlib.contextmanager
def stopped_afterwards(federation: Federation) -> Iterator[None]:
    """Stop a federation when the block ends or this process does: its processes are nobody's children."""
    command = [sys.executable, "-c", WATCH, fed.marker_of(federation)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True):
        try:
            yield
        finally:
            fed.stop(federation)
            assert fed.processes(federation) == []
