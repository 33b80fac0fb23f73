"""Whether FLARE can read the files of a kit as they lie on the disk, and who on the machine can change them."""

from __future__ import annotations

import codecs
import stat
from pathlib import Path
from typing import Final

from brats_fl_tools.kit.kits import Kit
from brats_fl_tools.kit.results import CheckResult, fail, warn

READ_BY_FLARE: Final = (
    "startup/*.json",
    *(f"local/{name}.json*" for name in ("resources", "authorization", "privacy")),
)
"""Of a kit; the rest of ``local`` is read by this library, which passes over a byte order mark."""


def check_on_disk(kit: Kit) -> list[CheckResult]:
    """A line for each thing that is wrong; none where all is right."""
    return [*_marked(kit.folder), *_open_to_all(kit.folder)]


def _marked(folder: Path) -> list[CheckResult]:
    """Windows' editors write a mark at the beginning of a file, at which FLARE's reader of JSON gives up."""
    found = sorted(path for pattern in READ_BY_FLARE for path in folder.glob(pattern) if _has_mark(path))
    if not found:
        return []
    names = ", ".join(path.relative_to(folder).as_posix() for path in found)
    mend = "; ".join(f"sed -i '1s/^\\xEF\\xBB\\xBF//' '{path}'" for path in found)
    return [fail("configuration", f"{names} of {folder} begin with a byte order mark: FLARE cannot read them", mend)]


def _has_mark(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(len(codecs.BOM_UTF8)) == codecs.BOM_UTF8


def _open_to_all(folder: Path) -> list[CheckResult]:
    """Who may write a rule of the site decides what runs there, and what leaves."""
    places = [place for name in ("startup", "local") for place in (folder / name, *sorted((folder / name).glob("*")))]
    found = [place for place in places if place.exists() and not place.is_symlink() and _for_all(place)]
    if not found:
        return []
    names = ", ".join(place.relative_to(folder).as_posix() for place in found)
    return [warn("rights", f"everybody on this machine may change {names} of {folder}", f"chmod -R o-w '{folder}'")]


def _for_all(place: Path) -> bool:
    return bool(place.stat().st_mode & stat.S_IWOTH)
