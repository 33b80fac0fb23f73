"""What keeps a federation on this host from starting is said at once, and nothing is left running."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from tests.tiny_kits import TinyKits, make_tiny_kits

from brats_fl.errors import RunError
from brats_fl_tools.kit.site_files import site_files, write_site_files
from brats_fl_tools.repository import ROOT
from brats_fl_tools.runs import host_federation as fed


@pytest.fixture
def kits(tmp_path: Path) -> TinyKits:
    made = make_tiny_kits(tmp_path / "kits")
    for kit in (made.federation.server, *made.federation.clients):
        write_site_files(site_files(kit, "open"))
    return made


def test_taken_port_is_said_before_anything_starts(kits: TinyKits):
    taken = pytest.raises(RunError, match=r"nothing was started: port 18700 cannot be opened .*ss -ltnp")
    with socket.create_server(("", kits.federation.server.port)), taken:
        fed.start(kits.federation, kits.federation.admins[0], {})

    assert fed.processes(kits.federation) == []


def test_script_that_may_not_be_run_is_said_before_anything_starts(kits: TinyKits):
    (kits.hospital.folder / "startup" / "sub_start.sh").chmod(0o644)

    with pytest.raises(RunError, match=r"nothing was started: sub_start\.sh of .*hospital-1/startup may not be run"):
        fed.start(kits.federation, kits.federation.admins[0], {})

    assert fed.processes(kits.federation) == []


def test_server_that_ends_is_not_waited_for_and_its_own_reason_is_told(kits: TinyKits):
    server = kits.federation.server.folder
    (server / "startup" / "server.crt").write_text("no certificate", encoding="utf-8")

    with pytest.raises(RunError, match=r"server ended before all were registered: \S+") as refused:
        fed.start(kits.federation, kits.federation.admins[0], {})

    assert str(server / fed.CONSOLE_LOG) in str(refused.value)
    assert fed.processes(kits.federation) == []


def test_no_proxy_of_the_site_stands_between_processes_of_one_host(kits: TinyKits, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("https_proxy", "http://proxy.example:3128")
    monkeypatch.setenv("no_proxy", "intranet.example")

    environment = fed.process_environment(kits.federation, {})

    assert environment["no_proxy"] == "intranet.example,localhost"
    assert os.environ["no_proxy"] == "intranet.example"


def test_federation_of_a_test_ends_when_the_tests_are_killed(kits: TinyKits) -> None:
    script = """
import os, pathlib, signal, subprocess, sys
from types import SimpleNamespace
from tests.federations import fed, stopped_afterwards
federation = SimpleNamespace(folder=pathlib.Path(sys.argv[1]))
with stopped_afterwards(federation):
    marked = {**os.environ, fed.MARKER: fed.marker_of(federation)}
    sleep = [sys.executable, "-c", "import time; time.sleep(60)"]
    print(subprocess.Popen(sleep, env=marked, stdout=subprocess.DEVNULL, start_new_session=True).pid, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run(
        [sys.executable, "-c", script, str(kits.federation.folder)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == -signal.SIGKILL, done.stderr
    left = [psutil.Process(int(done.stdout))] if psutil.pid_exists(int(done.stdout)) else []
    assert psutil.wait_procs(left, timeout=30)[1] == []
