"""Who takes part in a run: the job's own list, or what the folder of sites, the project or the federation has.

A job deploys to ``hospital-1`` .. ``hospital-5`` unless its ``meta.json`` names others. Where that default meets other
hospitals, those take its place, and a line says so. Nobody who is there is left out without a word: what no option
says is asked on a terminal, and is an error elsewhere.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import typer

from brats_fl.cases.datalists import DATALIST_FILE, list_sites, read_datalist
from brats_fl.constants import SITES, SPLITS
from brats_fl.errors import DataListError, JobError
from brats_fl.names import check_site_names
from brats_fl_tools.jobs.quorum import fewest_updates
from brats_fl_tools.jobs.source import JobSource

SHOWN = 12
"""Names in one message."""


@dataclass(frozen=True)
class Asked:
    """What the user said of who takes part."""

    only: tuple[str, ...] = ()
    """Of ``--sites-only``: these and no others; empty where it was not given."""
    leave_out: tuple[str, ...] = ()
    """Of ``--leave-out``: all but these."""


@dataclass(frozen=True)
class Present:
    """Who is there."""

    place: str
    """Folder, project or federation, for messages."""
    names: tuple[str, ...]
    """Those that can take part."""
    unfit: Mapping[str, str] = field(default_factory=dict)
    """Those that are there and cannot -> why."""

    @property
    def everybody(self) -> tuple[str, ...]:
        """Both, sorted."""
        return tuple(sorted({*self.names, *self.unfit}))


def in_folder(sites: Path, trains: bool) -> Present:
    """The hospitals of a folder of sites; a sub-folder without a data list is none.

    Args:
        sites: Folder with ``SITE/datalist.json``.
        trains: Whether the job needs training cases.

    Raises:
        DataListError: There is no such folder, or no data list in it.
    """
    found = [path.parent.name for path in list_sites(sites)]
    if not found:
        what = "no SITE/datalist.json there" if sites.is_dir() else "no such folder"
        raise DataListError(f"{sites}: {what}; make data lists with `brats-fl partition` or `brats-fl sample`")
    unfit = {name: "no training case" for name in found if trains and not _may_train(sites / name / DATALIST_FILE)}
    return Present(str(sites), tuple(name for name in found if name not in unfit), unfit)


def in_federation(source: JobSource, asked: Asked, connected: Iterable[str], fewest: int) -> Present:
    """The hospitals of a federation of which only the connected ones are known.

    One of the job's own that is away for the moment does not change the study, nor how many updates make a round, as
    long as those who are there are enough; a line says who is away.

    Args:
        source: The job.
        asked: By the user.
        connected: Names of the connected hospitals.
        fewest: Updates that make a round of the job's own hospitals.

    Raises:
        JobError: Too few of the job's own are connected, and the user did not agree to go on with these.
    """
    there, own = set(connected), [site for site in source.sites if site not in asked.leave_out]
    place, away = "the federation", [site for site in own if site not in there]
    if asked.only:
        return Present(place, tuple(sorted(there | set(source.sites))))
    if not there <= set(source.sites) or not away:
        return Present(place, tuple(sorted(there)))
    enough = fewest_updates(fewest, len(source.sites), len(own))
    if len(own) - len(away) < enough:
        go_on_without(
            f"connected: {listed(sorted(there)) or 'none'}; {source.name} needs {enough} of {listed(own)}",
            "wait until more are, or give --sites-only with those that are to take part",
        )
        return Present(place, tuple(sorted(there)))
    typer.echo(f"not connected: {listed(away)}; {source.name} needs {enough} of {len(own)} hospitals")
    return Present(place, source.sites)


def _may_train(datalist: Path) -> bool:
    """False where a list has no training case; a damaged list is for ``check_sites`` to tell."""
    try:
        return bool(read_datalist(datalist).training)
    except DataListError:
        return True


def choose_sites(source: JobSource, asked: Asked, present: Present | None) -> tuple[str, ...]:
    """The sites that take part.

    Args:
        source: The job.
        asked: By the user.
        present: Who is there; None where nobody knows, as when a job is built.

    Raises:
        JobError: A name that is asked for is not there, nobody is left, or somebody would be left out unasked.
        SiteNameError: FLARE does not bear a name.
    """
    if asked.only:
        _refuse_unknown("--sites-only", asked.only, present.everybody if present else asked.only)
        base = tuple(dict.fromkeys(asked.only))
    else:
        base = present.names if present and is_default(source) else source.sites
    _refuse_unknown("--leave-out", asked.leave_out, {*base, *source.sites, *(present.everybody if present else ())})
    chosen = tuple(site for site in base if site not in asked.leave_out)
    if not chosen:
        raise JobError(f"{source.name}: no hospital is left to take part{_why(present)}")
    check_site_names(chosen, present.place if present else source.name)
    if present is not None and not asked.only:
        if is_default(source) and set(chosen) != set(SITES) - set(asked.leave_out):
            typer.echo(_in_place_of_default(present, chosen))
        _ask_for_those_left_out(source, present, {*chosen, *asked.leave_out})
    return chosen


def is_default(source: JobSource) -> bool:
    """Whether the job names no hospitals of its own, so that those who are there take the place of its list."""
    return set(source.sites) == set(SITES)


def _why(present: Present | None) -> str:
    reasons = [f"{name}: {reason}" for name, reason in present.unfit.items()] if present else []
    return f" ({'; '.join(reasons)})" if reasons else ""


def _refuse_unknown(option: str, names: Iterable[str], known: Iterable[str]) -> None:
    if unknown := [name for name in names if name not in set(known)]:
        raise JobError(f"{option} {unknown[0]}: there is no such hospital; there are {listed(sorted(known))}")


def _in_place_of_default(present: Present, chosen: tuple[str, ...]) -> str:
    """The line that says who takes the place of the job's own list."""
    who = f"{len(chosen)} hospital{'s' * (len(chosen) != 1)} of {present.place}"
    verb = "take" if len(chosen) != 1 else "takes"
    missing = [site for site in SITES if site not in present.everybody]
    # Of a folder with names of its own nobody expects the default ones.
    lacking = f"; not there: {listed(missing)}" if missing and set(SITES) & set(present.everybody) else ""
    return f"{who} {verb} part in place of the job's five: {listed(chosen)}{lacking}"


def _ask_for_those_left_out(source: JobSource, present: Present, spoken_of: set[str]) -> None:
    left_out = [name for name in present.everybody if name not in spoken_of]
    if not left_out:
        return
    reasons = {name: present.unfit.get(name, f"not in the list of {source.name}") for name in left_out}
    what = ", ".join(f"{name} ({reason})" for name, reason in reasons.items())
    options = " ".join(f"--leave-out {name}" for name in left_out)
    go_on_without(
        f"{present.place} has {what}, which would not take part",
        f"add {options}, or --sites-only with those that are to take part",
    )


def go_on_without(text: str, mend: str) -> None:
    """Ask on a terminal whether to go on.

    Raises:
        JobError: The answer is no, or nobody can be asked.
    """
    if not sys.stdin.isatty():
        raise JobError(f"{text}; {mend}")
    if not typer.confirm(f"{text}; go on without?"):
        raise JobError(f"nothing was started; {mend}")


def listed(names: Iterable[str]) -> str:
    """Names for a message; a long list is cut."""
    names = list(names)
    return ", ".join(names if len(names) <= SHOWN else [*names[:SHOWN], f"and {len(names) - SHOWN} more"])


def check_sites(sites: Path, names: Iterable[str], trains: bool) -> dict[str, dict[str, int]]:
    """Cases per split of each site that takes part.

    Args:
        sites: Folder with ``SITE/datalist.json``.
        names: The sites that take part.
        trains: Whether the job needs training cases.

    Raises:
        DataListError: A site's data list is missing, wrong or has no training case; all such sites are named.
    """
    counts: dict[str, dict[str, int]] = {}
    problems: list[str] = []
    for name in names:
        try:
            datalist = read_datalist(sites / name / DATALIST_FILE)
            counts[name] = {split: len(datalist.split(split)) for split in SPLITS}
            if trains and not datalist.training:
                problems.append(f"{sites / name / DATALIST_FILE}: training is empty; add a case, or --leave-out {name}")
        except DataListError as error:
            missing = not (sites / name / DATALIST_FILE).exists()
            problems.append(f"{error}{f', or --leave-out {name}' * missing}")
    if problems:
        raise DataListError("\n       ".join(problems))
    return counts
