"""``brats-fl cache``: what the cache of preprocessed cases holds, and how to be rid of it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from brats_fl.cases.cache_folder import (
    CacheFile,
    FileHashes,
    cache_limit,
    content_of,
    list_entries,
    list_hashes,
    list_scratch,
    remove,
)
from brats_fl.cases.datalists import (
    CACHE_VARIABLE,
    DATALIST_FILE,
    DataList,
    as_monai_item,
    default_cache_dir,
    find_datalists,
    list_sites,
    parse_datalist,
)
from brats_fl.constants import SPLITS

SECONDS_PER_DAY = 24 * 3600

app = typer.Typer(help="The cache of preprocessed cases: what it holds, and how to clear it.", no_args_is_help=True)

PathArgument = Annotated[
    Path | None,
    typer.Argument(
        metavar="PATH",
        exists=True,
        help=f"Folder of a cache, a data list, or a folder with SITE/{DATALIST_FILE}: the caches of these hospitals.",
        show_default=f"${CACHE_VARIABLE}",
    ),
]


@dataclass(frozen=True)
class Cache:
    """Folder of a cache, and the data lists that are known to use it."""

    folder: Path
    datalists: Sequence[DataList] = ()


@app.command()
def info(path: PathArgument = None) -> None:
    """Print what a cache holds, how large it is and may become, and when it was used; nothing is changed."""
    limit = cache_limit()
    for cache in find_caches(path):
        typer.echo("\n".join([str(cache.folder), *(f"  {line}" for line in describe(cache, limit))]))


@app.command()
def clear(
    path: PathArgument = None,
    older_than: Annotated[
        float | None,
        typer.Option(
            "--older-than", metavar="DAYS", min=0, help="Only what was not used for so long.", show_default="all"
        ),
    ] = None,
) -> None:
    """Remove the preprocessed cases of a cache, and say how many; scans, data lists and other files stay.

    What is removed is made again when it is needed. A training that runs is not disturbed.
    """
    for cache in find_caches(path):
        typer.echo(f"{cache.folder}: {clear_folder(cache.folder, older_than)}")


def find_caches(path: Path | None) -> list[Cache]:
    """The caches that a path stands for.

    Args:
        path: Folder of a cache, data list, or folder of sites; None for ``$BRATS_FL_CACHE``.

    Raises:
        typer.BadParameter: None is given and the variable is not set.
        DataListError: A data list cannot be read.
    """
    if path is None:
        folder = os.environ.get(CACHE_VARIABLE)
        if not folder:
            raise typer.BadParameter(
                f"give PATH: the folder of a cache, a data list, or a folder with SITE/{DATALIST_FILE}; "
                f"or set {CACHE_VARIABLE}"
            )
        return [Cache(Path(folder))]
    if path.is_dir() and not list_sites(path) and not (path / DATALIST_FILE).is_file():
        beside = path.resolve().parent / DATALIST_FILE
        own = beside.is_file() and Path(default_cache_dir(beside)).resolve() == path.resolve()
        return [Cache(path, [parse_datalist(beside)] if own else [])]
    users: dict[str, list[DataList]] = {}
    for file in find_datalists(path):
        users.setdefault(default_cache_dir(file), []).append(parse_datalist(file))
    return [Cache(Path(folder), datalists) for folder, datalists in users.items()]


def describe(cache: Cache, limit: float) -> list[str]:
    """A cache in a few lines.

    Args:
        cache: Its folder may be missing.
        limit: Of its size, in bytes.
    """
    entries = list_entries(cache.folder)
    settings = len({entry.settings for entry in entries})
    lines = [
        f"entries    {len(entries)}, made with {count(settings, 'setting')} (profiles, versions)",
        f"size       {size_of(entries)} of at most {limit / 1e9:g} GB",
    ]
    if entries:
        lines.append(f"last used  {minute_of(entries[0])} to {minute_of(entries[-1])}")
    if scratch := list_scratch(cache.folder):
        lines.append(f"killed     {count(len(scratch), 'half-written file')}, {size_of(scratch)}")
    hashes, contents = FileHashes(cache.folder), {entry.content for entry in entries}
    for datalist in cache.datalists:
        cases = [case for split in SPLITS for case in datalist.split(split)]
        held = sum(content_of(as_monai_item(case), hashes, only_known=True) in contents for case in cases)
        lines.append(f"data list  {held} of {count(len(cases), 'case')} of {datalist.site}")
    return lines


def clear_folder(folder: Path, older_than_days: float | None) -> str:
    """Remove entries and what killed processes left; says what went, and what stays.

    Args:
        folder: Of a cache; files that the cache did not write stay.
        older_than_days: Remove only what was not used for so long; None removes all.
    """
    if older_than_days is None:
        removed, scratch = remove(list_entries(folder)), remove(list_scratch(folder, 0))
        remove(list_hashes(folder))
        with suppress(OSError):
            (folder / "hashes").rmdir()
    else:
        oldest_ns = (datetime.now().timestamp() - older_than_days * SECONDS_PER_DAY) * 1e9
        removed = remove([entry for entry in list_entries(folder) if entry.used_ns < oldest_ns])
        scratch = remove(list_scratch(folder))
    and_scratch = f" and {count(len(scratch), 'half-written file')}" if scratch else ""
    return (
        f"removed {count(len(removed), 'entry', 'entries')}{and_scratch}, {size_of([*removed, *scratch])}; "
        f"{count(len(list_entries(folder)), 'entry', 'entries')} left"
    )


def count(number: int, one: str, many: str | None = None) -> str:
    """A number with its noun."""
    return f"{number} {one if number == 1 else many or f'{one}s'}"


def size_of(files: Sequence[CacheFile]) -> str:
    """What files take together."""
    total = sum(file.size for file in files)
    return f"{total / 1e9:.2f} GB" if total >= 1e9 else f"{total / 1e6:.1f} MB"


def minute_of(file: CacheFile) -> str:
    """When a file was last used, in local time."""
    return f"{datetime.fromtimestamp(file.used_ns / 1e9):%Y-%m-%d %H:%M}"
