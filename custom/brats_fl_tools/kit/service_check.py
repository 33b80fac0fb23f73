"""Whether a kit's unit of systemd still fits the kit: its places, its Python, and what its user may read."""

from __future__ import annotations

import contextlib
import os
import pwd
import shlex
import shutil
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from brats_fl.cases.datalists import find_datalist, read_datalist
from brats_fl.errors import DataListError, KitError
from brats_fl_tools.kit.kits import READER, Kit
from brats_fl_tools.kit.results import CheckResult, fail, passed, warn
from brats_fl_tools.kit.service import scan_files, unit_file

INSTALLED = Path("/etc/systemd/system")

AGAIN = "run brats-fl kit setup with --systemd again"

SHOWN = 3
"""Files that a user may not read, in one line of the table."""


def check_unit(kit: Kit, facts: Mapping[str, Any] | None) -> list[CheckResult]:
    """The unit of systemd fits, where the kit has one."""
    scans: list[Path] = []
    with contextlib.suppress(DataListError):  # told by the check of the data list
        scans = scan_files(read_datalist(find_datalist(kit.name, kit.folder))) if kit.kind == "client" else []
    try:
        return check_service(kit, facts, scans)
    except KitError as error:
        return [fail("service", str(error), AGAIN)]


def check_service(
    kit: Kit, facts: Mapping[str, Any] | None, scans: Sequence[Path] = (), installed: Path = INSTALLED
) -> list[CheckResult]:
    """How well the unit fits; nothing where the kit has none.

    Args:
        kit: Of the server or of a hospital.
        facts: Of the environment that ``kit check`` found.
        scans: Files of the data list.
        installed: Where an administrator puts units.

    Raises:
        KitError: The unit cannot be read.
    """
    path = unit_file(kit)
    if not path.is_file():
        return []
    settings = read_unit(path)
    faults = [*wrong_kit(settings, kit), *wrong_python(settings, facts), *missing_places(settings)]
    if faults:
        return [fail("service", f"{path}: {'; '.join(faults)}", AGAIN)]
    needed = [kit.private_key, *([Path(facts["executable"])] if facts else []), *scans]
    unread = unreadable(settings.get("User", [""])[-1], needed)
    if unread:
        return [fail("service", unread, "let that user read them, by group or owner, and no more")]
    return [check_installed(path, installed)]


def read_unit(path: Path) -> dict[str, list[str]]:
    """Key -> its values, in order; sections are left out, as no key of ours stands in two."""
    settings: dict[str, list[str]] = {}
    for number, line in enumerate(READER.text(path).splitlines(), 1):
        if not line.strip() or line.startswith(("[", "#", ";")):
            continue
        key, sign, value = line.partition("=")
        if not sign:
            READER.refuse(f"{path}, line {number}", "must be KEY=VALUE")
        settings.setdefault(key.strip(), []).append(value.strip())
    return settings


def words(values: Sequence[str]) -> list[str]:
    """The words of values, as systemd splits them; of a line that it could not split, none."""
    try:
        return [word.replace("%%", "%") for value in values for word in shlex.split(value)]
    except ValueError:
        return []


def wrong_kit(settings: Mapping[str, Sequence[str]], kit: Kit) -> list[str]:
    """The unit starts another kit than this one, as after a move."""
    started = words(settings.get("ExecStart", ()))[:1]
    own = str(kit.folder.resolve() / "startup" / "sub_start.sh")
    return [] if started == [own] else [f"starts {' '.join(started) or 'nothing'}, the kit has {own}"]


def wrong_python(settings: Mapping[str, Sequence[str]], facts: Mapping[str, Any] | None) -> list[str]:
    """The service would find another ``python3`` than the one that was checked."""
    variables = dict(word.split("=", 1) for word in words(settings.get("Environment", ())) if "=" in word)
    found = shutil.which("python3", path=variables.get("PATH", ""))
    if found is None:
        return [f"no python3 in its PATH {variables.get('PATH', '')}"]
    checked = (facts or {}).get("executable")
    same = checked is None or Path(found).parent.resolve() == Path(checked).parent.resolve()
    return [] if same else [f"its python3 is {found}, the one that was checked is {checked}"]


def missing_places(settings: Mapping[str, Sequence[str]]) -> list[str]:
    """Folders without which systemd does not start it."""
    places = words([*settings.get("ReadOnlyPaths", ()), *settings.get("ReadWritePaths", ())])
    return [f"{place} is not there" for place in places if not Path(place).exists()]


def unreadable(user: str, files: Sequence[Path]) -> str:
    """Which files a user may not read, by their modes; access lists are not looked at. Empty where all is well."""
    try:
        known = pwd.getpwnam(user)
    except KeyError:
        return f"this machine has no user {user!r}"
    groups = set(os.getgrouplist(user, known.pw_gid))
    seen: dict[Path, bool] = {}
    refused = [file for file in files if not may_read(file, known.pw_uid, groups, seen)]
    more = f" and {len(refused) - SHOWN} more" if len(refused) > SHOWN else ""
    return f"user {user} may not read {', '.join(map(str, refused[:SHOWN]))}{more}" if refused else ""


def may_read(file: Path, user: int, groups: set[int], seen: dict[Path, bool]) -> bool:
    """Whether modes and owners let a user read a file and pass all folders on the way."""
    place = file.resolve()
    for folder in place.parents:
        if folder not in seen:
            seen[folder] = has_right(folder, stat.S_IXUSR, user, groups)
        if not seen[folder]:
            return False
    return has_right(place, stat.S_IRUSR, user, groups)


def has_right(path: Path, right: int, user: int, groups: set[int]) -> bool:
    """A right, given as that of the owner, of whichever class the user belongs to."""
    try:
        found = path.stat()
    except OSError:
        return False
    shift = 0 if found.st_uid == user else 3 if found.st_gid in groups else 6
    return bool(found.st_mode & right >> shift)


def check_installed(path: Path, installed: Path) -> CheckResult:
    """What systemd runs is what lies in the kit."""
    there = installed / path.name
    install = f"sudo install -m 644 '{path}' '{there}' && sudo systemctl daemon-reload"
    if not there.is_file():
        return warn("service", f"{path.name} fits the kit, and is not installed", install)
    if there.read_bytes() != path.read_bytes():
        return warn("service", f"{there} differs from the kit's", install)
    return passed("service", str(there))
