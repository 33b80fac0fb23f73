"""JOB OPTIONS of the command line, the same for every command that takes a job."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from brats_fl_tools.jobs.assembly import JobOptions
from brats_fl_tools.jobs.timeouts import limits_from
from brats_fl_tools.jobs.tracking import TRACKERS, check_tracker

NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="Name of a job, see `brats-fl job list`.")]
ProfileOption = Annotated[str, typer.Option("--profile", help="full (1 mm, a GPU) or small (2 mm, a CPU).")]
RoundsOption = Annotated[int | None, typer.Option("--rounds", min=1, help="Rounds; default: the job's own.")]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Set a variable of the job or its bundle; repeatable."),
]
PreinstalledOption = Annotated[
    bool,
    typer.Option("--preinstalled", help="No code in the job: server and sites have this brats-fl installed."),
]
LeaveOutOption = Annotated[
    str | None,
    typer.Option("--leave-out", metavar="SITE", help="This site does not take part, and a round wants one site fewer."),
]
TimeoutsOption = Annotated[
    Path | None,
    typer.Option(
        "--timeouts-from", metavar="RUN", help="Time limits from what an earlier run of this job took; --set wins."
    ),
]


def known_tracker(name: str | None) -> str | None:
    """As ``check_tracker``; another name is wrong usage."""
    if name is not None and name not in TRACKERS:
        raise typer.BadParameter(f"must be one of {', '.join(TRACKERS)} (got {name!r})")
    return check_tracker(name)


TrackingOption = Annotated[
    str | None,
    typer.Option(
        "--tracking",
        metavar="|".join(TRACKERS),
        callback=known_tracker,
        help="Curves of every hospital and of their mean, from what the server receives anyway, in OUT/tracking.",
    ),
]
ForceOption = Annotated[bool, typer.Option("--force", help="Replace what is already there.")]


def parse_values(pairs: Iterable[str] | None) -> dict[str, Any]:
    """``["a=1", "b=x"]`` as ``{"a": 1, "b": "x"}``: JSON where it parses, else text.

    Raises:
        typer.BadParameter: A pair has no ``=``.
    """
    values: dict[str, Any] = {}
    for pair in pairs or ():
        key, separator, text = pair.partition("=")
        if not separator or not key:
            raise typer.BadParameter(f"--set wants KEY=VALUE (got {pair!r})")
        try:
            values[key] = json.loads(text)
        except json.JSONDecodeError:
            values[key] = text
    return values


def options_from(
    profile: str,
    rounds: int | None,
    values: Sequence[str] | None,
    timeouts_from: Path | None,
    preinstalled: bool = False,
    polling_seconds: float | None = None,
    tracking: str | None = None,
) -> JobOptions:
    """Job options as the command line gives them.

    Raises:
        RunError: There is nothing to take time limits from.
    """
    limits = limits_from(timeouts_from) if timeouts_from else {}
    if limits:
        typer.echo(" ".join(f"{name}={seconds}" for name, seconds in limits.items()))
    settings = {**limits, **parse_values(values)}
    return JobOptions(profile, rounds, settings, preinstalled, polling_seconds=polling_seconds, tracking=tracking)
