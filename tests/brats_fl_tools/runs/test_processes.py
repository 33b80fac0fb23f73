"""Child processes end with the command that started them, whatever ends it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from brats_fl_tools.runs.processes import end_marked, reason

COMMAND = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs are born without it
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


def test_process_whose_parent_died_is_ended_by_what_its_environment_says(tmp_path: Path) -> None:
    child = "import os, sys, time; print(os.getpid(), flush=True); time.sleep(60)"
    parent = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {child!r}])"
    with subprocess.Popen(
        [sys.executable, "-c", parent],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "MARK": str(tmp_path)},
    ) as dead:
        assert dead.stdout is not None
        orphan = psutil.Process(int(dead.stdout.readline()))
        dead.wait()

        end_marked("MARK", f"{tmp_path}-another")
        assert orphan.is_running()
        end_marked("MARK", str(tmp_path))

    assert psutil.wait_procs([orphan], timeout=10)[1] == []


def test_reason_of_a_run_is_what_the_site_that_failed_said_of_its_case(tmp_path: Path) -> None:
    log = tmp_path / "simulator.log"
    log.write_text(
        "2026-11-28 21:43:57,384 - BratsExecutor - ERROR - [identity=hospital-1, run=simulate_job, task_name=train] - "
        "train failed: P_001: t2w: /data/P_001_t2.nii.gz is cut short\n"
        "2026-11-28 21:43:58,001 - ScatterAndGather - ERROR - [identity=simulator_server] - Aborting current RUN\n"
    )

    assert reason(log) == "hospital-1: train failed: P_001: t2w: /data/P_001_t2.nii.gz is cut short"


def test_reason_of_a_run_is_why_it_was_given_up_first(tmp_path: Path) -> None:
    log, given_up = tmp_path / "log.txt", "Aborting current RUN due to FATAL_SYSTEM_ERROR received:"
    log.write_text(
        f"ServerRunner - ERROR - [identity=server] - {given_up} the job was made for another brats-fl\n"
        f"ServerRunner - ERROR - [identity=server] - {given_up} Exception in workflow: AttributeError: 'NoneType'\n"
    )

    assert reason(log) == "the job was made for another brats-fl"


def test_reason_of_a_run_is_flares_last_error_where_no_site_says_one(tmp_path: Path) -> None:
    log = tmp_path / "simulator.log"
    log.write_text("ScatterAndGather - ERROR - no model\nbye\n")

    assert reason(log) == "ScatterAndGather - ERROR - no model"
