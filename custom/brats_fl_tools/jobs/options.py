"""JOB OPTIONS of the command line, the same for every command that takes a job: a field here is an option of them all.

A command takes them as one parameter, ``flags: JobFlags``, and ``takes_job_options`` puts the options in its place.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_type_hints

import typer

from brats_fl.errors import JobError
from brats_fl_tools.jobs.assembly import JobOptions
from brats_fl_tools.jobs.participants import Asked
from brats_fl_tools.jobs.source import READER, JobSource
from brats_fl_tools.jobs.start import find_start
from brats_fl_tools.jobs.timeouts import limits_from
from brats_fl_tools.jobs.tracking import TRACKERS, check_tracker

NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="Name of a job, see `brats-fl job list`.")]
ProfileOption = Annotated[str, typer.Option("--profile", help="full (1 mm, a GPU) or small (2 mm, a CPU).")]
ForceOption = Annotated[bool, typer.Option("--force", help="Replace what is already there, if brats-fl wrote it.")]


def known_tracker(name: str | None) -> str | None:
    """As ``check_tracker``; another name is wrong usage."""
    if name is not None and name not in TRACKERS:
        raise typer.BadParameter(f"must be one of {', '.join(TRACKERS)} (got {name!r})")
    return check_tracker(name)


@dataclass(frozen=True)
class JobFlags:
    """What the command line says of a job."""

    profile: Annotated[
        str | None,
        typer.Option(
            "--profile",
            help="full (1 mm, a GPU) or small (2 mm, a CPU). Default: full; of a run on this machine, what fits it.",
        ),
    ] = None
    rounds: Annotated[int | None, typer.Option("--rounds", min=1, help="Rounds; default: the job's own.")] = None
    values: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Set a variable of the job or its bundle; repeatable."),
    ] = None
    sites_only: Annotated[
        list[str] | None,
        typer.Option("--sites-only", metavar="A,B", help="These hospitals take part and no others."),
    ] = None
    leave_out: Annotated[
        list[str] | None,
        typer.Option(
            "--leave-out", metavar="SITE", help="This one does not take part, and a round wants one fewer; repeatable."
        ),
    ] = None
    timeouts_from: Annotated[
        Path | None,
        typer.Option(
            "--timeouts-from", metavar="RUN", help="Time limits from what an earlier run of this job took; --set wins."
        ),
    ] = None
    of_run: Annotated[
        Path | None,
        typer.Option(
            "--of", metavar="RUN", help="Run folder of the training whose models brats_cross_site is to evaluate."
        ),
    ] = None
    start_from: Annotated[
        Path | None,
        typer.Option(
            "--start-from",
            metavar="MODEL",
            help="Run folder, bundle or checkpoint to start from; default: random weights.",
        ),
    ] = None
    tracking: Annotated[
        str | None,
        typer.Option(
            "--tracking",
            metavar="|".join(TRACKERS),
            callback=known_tracker,
            help="Curves of every hospital and of their mean, from what the server receives anyway, in OUT/tracking.",
        ),
    ] = None

    @property
    def asked(self) -> Asked:
        """Who is to take part."""
        return Asked(names_in(self.sites_only), names_in(self.leave_out))

    def options(
        self, source: JobSource, polling_seconds: float | None = None, profile: str | None = None
    ) -> JobOptions:
        """As the assembly wants them; who takes part is still to be chosen.

        Args:
            source: The job.
            polling_seconds: As in ``JobOptions``.
            profile: In place of ``full`` where none was asked for.

        Raises:
            RunError: There is nothing to take time limits from.
            JobError, ModelError: The job cannot start from the model.
        """
        limits = limits_from(self.timeouts_from) if self.timeouts_from else {}
        if limits:
            typer.echo(" ".join(f"{name}={seconds}" for name, seconds in limits.items()))
        values = {**limits, **parse_values(self.values)}
        profile = self.profile or profile or "full"
        if self.of_run and self.profile:
            raise JobError("--profile was decided when the models were trained; leave it out")
        of_run = self.of_run.resolve() if self.of_run else None
        options = JobOptions(
            profile,
            self.rounds,
            values,
            polling_seconds=polling_seconds,
            tracking=self.tracking,
            of_run=of_run,
        )
        if self.start_from is None:
            return options
        start = find_start(self.start_from, source, profile)
        typer.echo(f"starts from {start.checkpoint}, SHA-256 {start.sha256}")
        return replace(options, checkpoint=start.checkpoint, start_sha256=start.sha256)


@dataclass(frozen=True)
class SentJobFlags(JobFlags):
    """The same, of a job that goes to other machines."""

    preinstalled: Annotated[
        bool,
        typer.Option("--preinstalled", help="No code in the job: server and sites have this brats-fl installed."),
    ] = False
    gpus: Annotated[
        int,
        typer.Option("--gpus", min=0, help="GPUs that each site gives the job, of those that its kit offers."),
    ] = 0
    gpu_memory_gib: Annotated[
        int,
        typer.Option(
            "--gpu-memory-gib",
            min=0,
            metavar="GIB",
            help="Memory of each that is the job's alone; other jobs get the rest.",
        ),
    ] = 0

    def options(
        self, source: JobSource, polling_seconds: float | None = None, profile: str | None = None
    ) -> JobOptions:
        """As ``JobFlags.options``."""
        return replace(
            super().options(source, polling_seconds, profile),
            preinstalled=self.preinstalled,
            gpus=self.gpus,
            gpu_memory_gib=self.gpu_memory_gib,
        )


Command = TypeVar("Command", bound=Callable[..., Any])


def takes_job_options(command: Command) -> Command:
    """Put the fields of a command's ``JobFlags`` in the place of that parameter: typer makes options of them."""
    hints = get_type_hints(command, include_extras=True)
    name = next(key for key, hint in hints.items() if isinstance(hint, type) and issubclass(hint, JobFlags))
    flags: type[JobFlags] = hints[name]
    of_flags = get_type_hints(flags, include_extras=True)
    parameters: list[inspect.Parameter] = []
    for parameter in inspect.signature(command).parameters.values():
        parts = [(f.name, f.default, of_flags) for f in fields(flags)] if parameter.name == name else []
        for key, default, types in parts or [(parameter.name, parameter.default, hints)]:
            parameters.append(inspect.Parameter(key, parameter.KEYWORD_ONLY, default=default, annotation=types[key]))

    @functools.wraps(command)
    def with_options(**given: Any) -> Any:
        own = {field.name: given.pop(field.name) for field in fields(flags)}
        return command(**given, **{name: flags(**own)})

    with_options.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    with_options.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return with_options  # type: ignore[return-value]


def names_in(values: Sequence[str] | None) -> tuple[str, ...]:
    """``["a,b", "c"]`` as ``("a", "b", "c")``.

    Raises:
        typer.BadParameter: They name nobody, as a shell's variable that is not set.
    """
    names = tuple(name.strip() for value in values or () for name in value.split(",") if name.strip())
    if values and not names:
        raise typer.BadParameter(
            f"a hospital's name is wanted, or several with commas between them (got {values[0]!r})"
        )
    return names


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
            values[key] = READER.parse(f"--set {key}", text)
        except JobError:
            values[key] = text
    return values
