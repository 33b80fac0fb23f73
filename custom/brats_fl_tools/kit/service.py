"""A kit as a service of systemd: what it may touch, how much it may take, and how it is started and stopped."""

from __future__ import annotations

import os
import pwd
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from brats_fl.cases.datalists import DataList, default_cache_dir, read_datalist, scans_of
from brats_fl.cases.scans import split_volume
from brats_fl.constants import SPLITS
from brats_fl.errors import KitError
from brats_fl_tools.kit.kits import Kit
from brats_fl_tools.kit.site_files import PRIVACY_FILE, SiteFiles

LOWEST_PORT = 1024
"""Below it a server would need a capability, and the service has none."""

HOMES = (Path("/home"), Path("/root"), Path("/run/user"))
"""Hidden from a service that needs nothing in them."""

TEMPORARY = (Path("/tmp"), Path("/var/tmp"))
"""The service has its own, in which it does not see a kit or scans that lie there."""

GPU_DEVICES = ("nvidia", "nvidia-frontend", "nvidiactl", "nvidia-uvm", "nvidia-caps")
"""Groups of /proc/devices that NVIDIA's drivers have had; one that a machine lacks is passed over."""

RULES = ("resources.json", "authorization.json")
"""Files of ``local`` that are changed while the kit is stopped, and by a running one never."""

STOP_SECONDS = 60
"""A trainer ends within seconds of SIGTERM; one that reads a slow network disk within a minute."""

_NO_LINE = re.compile(r"[\x00-\x1f\x7f]")
_QUOTA, _MEMORY = re.compile(r"[1-9][0-9]{0,5}%"), re.compile(r"[1-9][0-9]{0,15}[KMGT]?|[1-9][0-9]?%|100%")


@dataclass(frozen=True)
class Limits:
    """What the service may take; None leaves systemd's own default."""

    memory: str | None = None
    """Of all its processes, as ``16G``; beyond it the trainer is ended, and its round fails with a code."""
    cpu: str | None = None
    """As ``400%``: four cores."""
    tasks: int | None = None
    """Processes and threads."""

    def __post_init__(self) -> None:
        """Refuse what systemd would pass over with a line in its journal, leaving the service without the limit."""
        if self.memory is not None and not _MEMORY.fullmatch(self.memory):
            raise KitError(f"--memory-max must be a number with K, M, G or T, as 16G (got {self.memory!r})")
        if self.cpu is not None and not _QUOTA.fullmatch(self.cpu):
            raise KitError(f"--cpu-quota must be percent of one core, as 400% (got {self.cpu!r})")


@dataclass(frozen=True)
class Places:
    """Folders that the service sees beyond the system's own, which it may read."""

    read: tuple[Path, ...] = ()
    """Scans and the data list."""
    write: tuple[Path, ...] = ()
    """Besides the kit: the cache."""


def unit_file(kit: Kit) -> Path:
    """Where the unit lies until an administrator installs it."""
    return kit.folder / "systemd" / f"brats-fl-{kit.name}.service"


def with_unit(files: SiteFiles, kit: Kit, user: str | None, datalist: Path | None, limits: Limits) -> SiteFiles:
    """A site's files and its unit; of a user the kit's owner, where none is given."""
    text = render_unit(kit, user or owner_of(kit), places_of(datalist), limits)
    return replace(files, texts={**files.texts, unit_file(kit): text})


def owner_of(kit: Kit) -> str:
    """The user who owns the kit's private key, under whom the service runs.

    Raises:
        KitError: It is root, or nobody of this machine.
    """
    number = kit.private_key.stat().st_uid
    try:
        name = pwd.getpwuid(number).pw_name
    except KeyError:
        name = str(number)
    if number == 0 or name == str(number):
        mend = f"chown -R USER '{kit.folder}' to one who may read the scans and no more, or say --user USER"
        raise KitError(f"{kit.private_key}: belongs to {name}, under whom no service should run; {mend}")
    return name


def places_of(datalist: Path | None) -> Places:
    """What a hospital's service reads and writes beyond its kit, from its data list; of a server nothing.

    Raises:
        DataListError: The data list cannot be used.
    """
    if datalist is None:
        return Places()
    folder = datalist.resolve().parent
    scans = Path(os.path.commonpath({file.parent for file in scan_files(read_datalist(datalist))} or {folder}))
    cache = Path(default_cache_dir(datalist)).absolute()
    # Beside the list the site notes which statistics it released: not where scans are.
    own = () if folder.is_relative_to(scans) else (folder,)
    return Places((scans,), (*own, cache))


def scan_files(datalist: DataList) -> list[Path]:
    """The files of all scans and labels, where they really lie."""
    cases = [case for split in SPLITS for case in datalist.split(split)]
    return [split_volume(scan)[0].resolve() for case in cases for scan in scans_of(case).values()]


def render_unit(kit: Kit, user: str, places: Places, limits: Limits, python: Path | None = None) -> str:
    """The text of the unit.

    Args:
        kit: Of the server or of a hospital.
        user: Who runs it; not root.
        places: What it sees.
        limits: What it may take.
        python: Folder with the ``python3`` of the environment; default: this one's.

    Raises:
        KitError: A path cannot stand in a unit, the user is none, or the server's port needs a capability.
    """
    if not re.fullmatch(r"[a-z_][a-z0-9_-]{0,31}", user) or user in ("root", "nobody"):
        raise KitError(f"--user must be an unprivileged user of this machine (got {user!r})")
    if kit.kind == "server" and kit.port < LOWEST_PORT:
        raise KitError(
            f"{kit.folder}: port {kit.port} is below {LOWEST_PORT}, which a service without rights cannot open"
        )
    folder = kit.folder.resolve()
    sections = {
        "Unit": unit_lines(kit),
        "Service": [
            *start_lines(folder, user, python or Path(sys.executable).parent, places),
            *limit_lines(limits),
            *place_lines(kit, places),
            *closed_lines([folder, *places.read, *places.write, Path(sys.prefix), Path(sys.base_prefix)]),
        ],
        "Install": ["WantedBy=multi-user.target"],
    }
    return "\n\n".join(f"[{name}]\n" + "\n".join(lines) for name, lines in sections.items()) + "\n"


def unit_lines(kit: Kit) -> list[str]:
    """What it is; five starts that fail within five minutes are the last."""
    what = "server" if kit.kind == "server" else f"site {kit.name}"
    return [
        f"Description=brats-fl federated learning, {what}",
        "After=network-online.target",
        "Wants=network-online.target",
        "StartLimitIntervalSec=300",
        "StartLimitBurst=5",
    ]


def start_lines(folder: Path, user: str, python: Path, places: Places) -> list[str]:
    """How it starts and ends: FLARE's own script once, its loop left to systemd; the whole group of processes ends."""
    cache = [f"Environment={quote(f'BRATS_FL_CACHE={places.write[-1]}')}"] if places.write else []
    return [
        "Type=exec",
        f"User={user}",
        f"WorkingDirectory={percent(str(folder))}",
        f"Environment={quote(f'PATH={python}:/usr/bin:/bin')}",
        *cache,
        f"ExecStart={quote(str(folder / 'startup' / 'sub_start.sh'))} --once",
        "Restart=on-failure",
        "RestartSec=10",
        "KillMode=control-group",
        f"TimeoutStopSec={STOP_SECONDS}",
        "UMask=0077",
    ]


def limit_lines(limits: Limits) -> list[str]:
    """What it may take."""
    stated = {"MemoryMax": limits.memory, "CPUQuota": limits.cpu, "TasksMax": limits.tasks}
    return [f"{key}={value}" for key, value in stated.items() if value is not None]


def place_lines(kit: Kit, places: Places) -> list[str]:
    """The kit and the cache may be written, but not what guards the site; all else is read-only."""
    return [
        "ProtectSystem=strict",
        *(f"ReadOnlyPaths={quote(str(path))}" for path in (*places.read, *guarded_paths(kit))),
        *(f"ReadWritePaths={quote(str(path))}" for path in (kit.folder.resolve(), *places.write)),
    ]


def guarded_paths(kit: Kit) -> list[Path]:
    """What in a kit a running site never writes: its identity, its scripts and its rules."""
    folder, rules = kit.folder.resolve(), (*RULES, PRIVACY_FILE) if kit.kind == "client" else RULES
    return [folder / "startup", *(folder / "local" / name for name in rules)]


def closed_lines(seen: Sequence[Path]) -> list[str]:
    """No rights, no other users' files, no kernel.

    MemoryDenyWriteExecute is not there: torch writes code while it runs; nor is PrivateDevices, which hides GPUs.
    """
    return [
        f"ProtectHome={'read-only' if lies_in(HOMES, seen) else 'yes'}",
        f"PrivateTmp={'no' if lies_in(TEMPORARY, seen) else 'yes'}",
        "NoNewPrivileges=yes",
        "CapabilityBoundingSet=",
        "AmbientCapabilities=",
        "DevicePolicy=closed",
        *(f"DeviceAllow=char-{name} rw" for name in GPU_DEVICES),
        "ProtectClock=yes",
        "ProtectControlGroups=yes",
        "ProtectHostname=yes",
        "ProtectKernelLogs=yes",
        "ProtectKernelModules=yes",
        "ProtectKernelTunables=yes",
        "ProtectProc=invisible",
        "LockPersonality=yes",
        "RemoveIPC=yes",
        "RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX AF_NETLINK",
        "RestrictNamespaces=yes",
        "RestrictRealtime=yes",
        "RestrictSUIDSGID=yes",
        "SystemCallArchitectures=native",
        "SystemCallFilter=@system-service",
        "SystemCallErrorNumber=EPERM",
    ]


def lies_in(folders: Sequence[Path], places: Sequence[Path]) -> bool:
    """Whether one of the places is in one of the folders."""
    return any(place.resolve().is_relative_to(folder) for place in places for folder in folders)


def percent(text: str) -> str:
    """A text in which systemd finds no specifier.

    Raises:
        KitError: It has a line end or another control character.
    """
    if _NO_LINE.search(text):
        raise KitError(f"{text!r}: a control character cannot stand in a unit of systemd; rename it")
    return text.replace("%", "%%")


def quote(text: str) -> str:
    """A word of a unit, whatever spaces, quotes and backslashes are in it."""
    return '"' + percent(text).replace("\\", "\\\\").replace('"', '\\"') + '"'
