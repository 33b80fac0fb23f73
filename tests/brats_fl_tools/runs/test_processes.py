"""Child processes end with the command that started them, whatever ends it."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

COMMAND = """
import sys
from pathlib import Path
from brats_fl_tools.runs.processes import running
child = "import subprocess, sys, time; "
child += "subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)']); time.sleep(60)"
with running([sys.executable, "-c", child], Path(sys.argv[1]) / "log") as process:
    print(process.pid, flush=True)
    process.wait()
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_child_and_grandchild_end_when_the_command_is_told_to(number: signal.Signals, tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", COMMAND, str(tmp_path)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as command:
        assert command.stdout is not None
        child = psutil.Process(int(command.stdout.readline()))
        while not (family := child.children()):
            pass

        command.send_signal(number)
        command.wait(timeout=30)

    assert psutil.wait_procs([child, *family], timeout=10)[1] == []
