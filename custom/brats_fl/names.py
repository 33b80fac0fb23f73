"""What FLARE 2.9 bears as the name of a site and as the path of a folder; the one place that decides it.

FLARE puts both into certificates, messages and the command lines of its processes. Each was run in the simulator and
from provisioned kits: letters of other scripts, accents, dots and spaces are refused by both (with a name of letters
outside a-z no federation starts); a name that begins with ``-`` ends the job of all sites; one that reads as a number
or as yes and no is read as one, and the site never registers.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from brats_fl.errors import FolderError, SiteNameError
from brats_fl.typed import shorten

SITE_NAME_RULE: Final = "1 to 64 of the letters a-z and A-Z, digits, '-' and '_', and no '-' at the beginning"

# 64: the longest common name of an X.509 certificate (RFC 5280, ub-common-name).
_SITE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,63}")

_TAKEN: Final = frozenset({"server", "simulate_job"})
"""The server's own name, and the name that FLARE's simulator gives to every job."""

_YES_AND_NO: Final = frozenset({"yes", "true", "t", "y", "no", "false", "f", "n"})
"""Words that FLARE's ``parse_vars`` takes for a truth value, in whatever case."""

_SPLITS_A_LINE = re.compile(r"[ \t\r\n'\"\\#]")
"""FLARE takes the command lines of its processes apart with ``shlex``, comments included."""


def check_site_name(name: str, place: str) -> None:
    """Raise ``SiteNameError`` where FLARE does not bear a site's name.

    Args:
        name: Of a hospital.
        place: File, folder or option that names it, for the message.
    """
    if name.lower() in _TAKEN:
        raise SiteNameError(f"{place}: no hospital can be called {name!r}, a name of FLARE's own; choose another")
    if _SITE_NAME.fullmatch(name) and not _reads_as_a_value(name):
        return
    rule = "no number and no yes or no" if _SITE_NAME.fullmatch(name) else SITE_NAME_RULE
    mend = f"call it {nearest!r}, for instance" if (nearest := _nearest(name)) else "write it with Latin letters"
    raise SiteNameError(
        f"{place}: FLARE does not bear the name {shorten(name)} for a hospital, which must be {rule}; {mend}"
    )


def check_site_names(names: Iterable[str], place: str) -> None:
    """Raise ``SiteNameError`` where a name is no site's, or two are the same but for capitals.

    Two such hospitals would share a folder on a disk that does not tell capitals, as a Mac's.
    """
    seen: dict[str, str] = {}
    for name in names:
        check_site_name(name, place)
        if name.lower() in seen:
            twin = seen[name.lower()]
            what = "stands twice" if twin == name else f"differs from {twin!r} in capitals only"
            raise SiteNameError(f"{place}: hospital {name!r} {what}; give each a name of its own")
        seen[name.lower()] = name


def _reads_as_a_value(name: str) -> bool:
    try:
        float(name)
    except ValueError:
        return name.lower() in _YES_AND_NO
    return True


def _nearest(name: str) -> str:
    """A name like this one that FLARE bears; empty where too little of it is left."""
    letters = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    plain = re.sub(r"[^A-Za-z0-9_]+", "-", letters).strip("-")[:64].rstrip("-")
    if _reads_as_a_value(plain):
        plain = f"hospital-{plain}"
    return plain if re.search("[A-Za-z0-9]", plain) else ""


def check_folder(folder: Path, what: str) -> None:
    """Raise ``FolderError`` where FLARE's processes cannot be started in a folder.

    Args:
        folder: Workspace, kit or run folder; the whole path counts.
        what: What it is, for the message.
    """
    for path in map(str, dict.fromkeys((folder.absolute(), folder.resolve()))):  # FLARE uses the one and the other
        if found := _SPLITS_A_LINE.search(path):
            shown, found_there = path if path.isprintable() else repr(path), name_of(found[0])
            raise FolderError(
                f"{shown}: the path of the {what} holds {found_there}, at which FLARE splits the command lines of its "
                "processes: every job would end in seconds; choose a folder without"
            )


def name_of(character: str) -> str:
    """How a message calls a character."""
    named = {" ": "a space", "\t": "a tab", "\n": "a line break", "\r": "a line break"}
    return named.get(character, f"the character {character}")
