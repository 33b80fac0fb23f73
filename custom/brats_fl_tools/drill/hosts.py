"""Hosts on one machine: network namespaces, each with its own address and seeing its own files only, on one bridge.

Needs root, ``ip`` and ``unshare`` (Linux; iproute2, util-linux) and, to slow a link down, ``tc``. The machine's own
network is not touched: the bridge lies in a namespace too.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from brats_fl.errors import RunError

NETWORK = "10.203.0"
HUB = "hub"


@dataclass(frozen=True)
class Hosts:
    """Hosts that exist.

    Args:
        folder: Holds ``hosts/NAME``, the files of each host; a host sees no other host's.
        names: Of the hosts, in the order of their addresses.
        prefix: Of the namespaces' names, so that two sets of hosts do not meet.
        server_name: Name under which every host knows the first one.
    """

    folder: Path
    names: tuple[str, ...]
    prefix: str
    server_name: str

    def namespace(self, name: str) -> str:
        """Name of a host's network namespace."""
        return f"{self.prefix}-{name}"

    def address(self, name: str) -> str:
        """A host's address."""
        return f"{NETWORK}.{self.names.index(name) + 1}"

    def files(self, name: str) -> Path:
        """Folder that only this host sees."""
        return self.folder / "hosts" / name

    def command(self, name: str, command: Sequence[str]) -> list[str]:
        """Command line that runs a command on a host."""
        return [
            "ip",
            "netns",
            "exec",
            self.namespace(name),
            "unshare",
            "--mount",
            "bash",
            "-c",
            self._inside(name, command),
        ]

    def _inside(self, name: str, command: Sequence[str]) -> str:
        hosts, own, aside = (
            shlex.quote(str(path)) for path in (self.folder / "hosts", self.files(name), self.folder / "own")
        )
        names = shlex.quote(str(self.folder / "etc_hosts"))
        return " && ".join(
            [
                "mount --make-rprivate /",
                f"mount --bind {names} /etc/hosts",
                f"mount --bind {own} {aside}",
                f"mount -t tmpfs none {hosts}",
                f"mkdir {own}",
                f"mount --bind {aside} {own}",
                f"umount {aside}",
                f"exec {shlex.join(command)}",
            ]
        )

    def cut(self, name: str) -> None:
        """Take a host's link down."""
        _ip("-n", self.namespace(HUB), "link", "set", f"to-{self.names.index(name)}", "down")

    def join(self, name: str) -> None:
        """Bring a host's link up again."""
        _ip("-n", self.namespace(HUB), "link", "set", f"to-{self.names.index(name)}", "up")

    @contextlib.contextmanager
    def throttled(self, name: str, kilobits_per_s: int) -> Iterator[None]:
        """While the block runs, slow down what a host receives and sends, by tc's token bucket filter.

        Args:
            name: The host.
            kilobits_per_s: Of each direction.
        """
        with self._queued(name, "tbf", "rate", f"{kilobits_per_s}kbit", "burst", "64kbit", "latency", "2s"):
            yield

    @contextlib.contextmanager
    def lossy(self, name: str, loss_percent: int, delay_ms: int) -> Iterator[None]:
        """While the block runs, lose and delay packets that a host receives and sends, by tc's netem.

        Args:
            name: The host.
            loss_percent: Of the packets of each direction.
            delay_ms: Of each direction, give or take a quarter.

        Raises:
            RunError: The kernel has no netem; see ``why_no_netem``.
        """
        jitter = f"{delay_ms // 4}ms"
        with self._queued(name, "netem", "loss", f"{loss_percent}%", "delay", f"{delay_ms}ms", jitter):
            yield

    @contextlib.contextmanager
    def _queued(self, name: str, *discipline: str) -> Iterator[None]:
        both_ends = ((self.namespace(HUB), f"to-{self.names.index(name)}"), (self.namespace(name), "eth0"))
        for namespace, link in both_ends:
            _run("tc", "-n", namespace, "qdisc", "replace", "dev", link, "root", *discipline)
        try:
            yield
        finally:
            for namespace, link in both_ends:
                _run("tc", "-n", namespace, "qdisc", "del", "dev", link, "root")


def why_no_hosts() -> str | None:
    """Why this machine cannot make hosts; None where it can."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    for tool in ("ip", "unshare", "tc"):
        if shutil.which(tool) is None:
            return f"{tool} is not installed (iproute2, util-linux)"
    probe = f"brfl-probe-{os.getpid()}"
    try:
        _ip("netns", "add", probe)
        _ip("-n", probe, "link", "add", "br0", "type", "bridge")
        _ip("-n", probe, "link", "add", "veth-a", "type", "veth", "peer", "name", "veth-b")
        _run("ip", "netns", "exec", probe, "unshare", "--mount", "mount", "--make-rprivate", "/")
    except RunError as error:
        return f"this machine does not let network namespaces be made ({error})"
    finally:
        subprocess.run(["ip", "netns", "del", probe], capture_output=True, check=False)
    return None


def why_no_netem() -> str | None:
    """Why this machine cannot lose packets; None where it can."""
    probe = f"brfl-netem-{os.getpid()}"
    try:
        _ip("netns", "add", probe)
        _run("tc", "-n", probe, "qdisc", "add", "dev", "lo", "root", "netem", "loss", "1%")
    except RunError:
        return "this kernel has no netem (sch_netem)"
    finally:
        subprocess.run(["ip", "netns", "del", probe], capture_output=True, check=False)
    return None


@contextlib.contextmanager
def hosts(folder: Path, names: Sequence[str], server_name: str) -> Iterator[Hosts]:
    """Make hosts; they are gone when the block ends.

    Args:
        folder: For their files; kept.
        names: The first one is the server's.
        server_name: Name under which all know the first.

    Raises:
        RunError: The machine does not let them be made.
    """
    made = Hosts(folder.resolve(), tuple(names), f"brfl{os.getpid()}", server_name)
    (made.folder / "own").mkdir(parents=True, exist_ok=True)
    (made.folder / "etc_hosts").write_text(
        f"127.0.0.1 localhost\n{made.address(names[0])} {server_name}\n", encoding="utf-8"
    )
    try:
        _make(made)
        yield made
    finally:
        for name in (*names, HUB):
            subprocess.run(["ip", "netns", "del", made.namespace(name)], capture_output=True, check=False)


def _make(made: Hosts) -> None:
    hub = made.namespace(HUB)
    _ip("netns", "add", hub)
    _ip("-n", hub, "link", "add", "br0", "type", "bridge")
    _ip("-n", hub, "link", "set", "br0", "up")
    for index, name in enumerate(made.names):
        made.files(name).mkdir(parents=True, exist_ok=True)
        own = made.namespace(name)
        _ip("netns", "add", own)
        _ip("-n", hub, "link", "add", f"to-{index}", "type", "veth", "peer", "name", "eth0", "netns", own)
        _ip("-n", hub, "link", "set", f"to-{index}", "master", "br0", "up")
        _ip("-n", own, "addr", "add", f"{made.address(name)}/24", "dev", "eth0")
        _ip("-n", own, "link", "set", "eth0", "up")
        _ip("-n", own, "link", "set", "lo", "up")


def _ip(*arguments: str) -> None:
    _run("ip", *arguments)


def _run(*command: str, environment: Mapping[str, str] | None = None) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode != 0:
        raise RunError(f"`{shlex.join(command)}` failed: {done.stderr.strip()}")
