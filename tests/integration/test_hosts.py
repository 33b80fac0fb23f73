"""Hosts as network namespaces: they reach each other by address, and see their own files only."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from brats_fl_tools.drill.hosts import Hosts, hosts, why_no_hosts
from brats_fl_tools.drill.waiting import wait_until

REASON = why_no_hosts()
pytestmark = pytest.mark.skipif(REASON is not None, reason=f"no hosts on this machine: {REASON}")

SERVER_NAME = "fl.consortium.example"
GREETING = "b'hello'.ljust(100_000)"
SERVE = (
    f"import socket; s = socket.create_server(('', 8002)); print('up', flush=True); s.accept()[0].sendall({GREETING})"
)
CALL = f"""
import socket, time
server = socket.create_connection(("{SERVER_NAME}", 8002), 2)
begin = time.monotonic()
heard = b"".join(iter(lambda: server.recv(65536), b""))
print(heard[:5].decode(), len(heard), time.monotonic() - begin)
"""


def call(made: Hosts, name: str) -> str:
    """What a host hears from the server and how long that took, or the last line of the error."""
    done = subprocess.run(made.command(name, [sys.executable, "-c", CALL]), capture_output=True, text=True, check=False)
    return (done.stdout or done.stderr).strip().splitlines()[-1]


def seconds_of(heard: str) -> float:
    """How long it took until all was heard."""
    word, size, seconds = heard.split()
    assert (word, size) == ("hello", "100000")
    return float(seconds)


@contextlib.contextmanager
def serving_once(made: Hosts) -> Iterator[None]:
    """While the block runs, the server's host greets who calls."""
    command = made.command("server", [sys.executable, "-c", SERVE])
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            assert server.stdout.readline() == "up\n"
            yield
        finally:
            server.kill()


def test_hosts_reach_each_other_by_name_until_the_link_is_cut_and_are_gone_afterwards(tmp_path: Path) -> None:
    with hosts(tmp_path, ["server", "hospital-1"], SERVER_NAME) as made:
        with serving_once(made):
            made.cut("hospital-1")
            assert "hello" not in call(made, "hospital-1")
            made.join("hospital-1")
            wait_until(lambda: "hello" in call(made, "hospital-1"), "the link to be up again", seconds=20)
        prefix = made.prefix
        assert prefix in subprocess.run(["ip", "netns"], capture_output=True, text=True, check=True).stdout

    assert prefix not in subprocess.run(["ip", "netns"], capture_output=True, text=True, check=True).stdout


def test_host_sees_its_own_files_and_no_others(tmp_path: Path) -> None:
    with hosts(tmp_path, ["server", "hospital-1"], SERVER_NAME) as made:
        for name in made.names:
            (made.files(name) / "secret").write_text(name, encoding="utf-8")

        listing = subprocess.run(
            made.command("hospital-1", ["find", str(tmp_path / "hosts"), "-type", "f"]),
            capture_output=True,
            text=True,
            check=True,
        )

        assert listing.stdout.split() == [str(made.files("hospital-1") / "secret")]
        assert (made.files("server") / "secret").read_text(encoding="utf-8") == "server"


def test_throttled_link_is_slow_until_the_block_ends(tmp_path: Path) -> None:
    with hosts(tmp_path, ["server", "hospital-1"], SERVER_NAME) as made:
        with made.throttled("hospital-1", 200), serving_once(made):
            slow = seconds_of(call(made, "hospital-1"))
        with serving_once(made):
            fast = seconds_of(call(made, "hospital-1"))

        # 100 kB and TCP's headers less tc's burst of 8 kB, at 25 kB a second.
        assert slow == pytest.approx(4, abs=0.5)
        assert fast < 1
