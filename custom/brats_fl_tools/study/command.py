"""``brats-fl study``: a declared set of runs, carried out, gone on with where it stopped, and judged beforehand."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from typer.core import TyperGroup

from brats_fl.errors import RunError
from brats_fl_tools.one_writer import writes
from brats_fl_tools.pages.formats import format_count, format_duration
from brats_fl_tools.runs.processes import Interrupted, end_marked
from brats_fl_tools.study.children import STUDY_VARIABLE, carry_out
from brats_fl_tools.study.definition import read_study
from brats_fl_tools.study.energy import EnergyMeter, metering
from brats_fl_tools.study.expansion import LOGS_FOLDER, expand
from brats_fl_tools.study.progress import describe_left, describe_run
from brats_fl_tools.study.record import RunRecord, StudyRecord, write_record
from brats_fl_tools.study.state import begin_or_go_on

RUN_VERB: Final = "run"
StudyArgument = Annotated[Path, typer.Argument(metavar="STUDY.toml", help="The study file; see docs/study.md.")]


class RunByDefault(TyperGroup):
    """``study STUDY.toml`` is ``study run STUDY.toml``."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put the verb before what is none."""
        if args and args[0] not in self.commands and args[0] not in ctx.help_option_names:
            args = [RUN_VERB, *args]
        return list(super().parse_args(ctx, args))


app = typer.Typer(
    cls=RunByDefault,
    help="A declared set of runs: `brats-fl study STUDY.toml --out DIR` carries it out, and goes on where it stopped.",
    no_args_is_help=True,
)


@app.command(RUN_VERB)
def run(
    study: StudyArgument,
    out: Annotated[Path, typer.Option("--out", help="Folder to write: study.json, runs/NAME, logs/NAME.log.")],
    force: Annotated[
        bool, typer.Option("--force", help="Run again what is no longer what the study file asks for; the rest stays.")
    ] = False,
) -> None:
    """Write DIR: a run folder for each run of the study, evaluated on every hospital's test cases, and study.json.

    The same command goes on with what is missing. A run that failed is named, the rest goes on, and it ends with 1.
    """
    run_study(study, out.resolve(), force)


@app.command()
def plan(study: StudyArgument) -> None:
    """Print what the study will ask of this machine: runs, steps, hours, bytes, memory, disk. Nothing is started.

    A few steps of each bundle are trained, on two of the study's cases, to know what one takes.
    """
    from brats_fl_tools.study.costs import print_costs

    print_costs(study)


@writes("out")
def run_study(path: Path, out: Path, force: bool = False) -> StudyRecord:
    """Carry out what is missing of a study, one run at a time; its record at the end.

    Args:
        path: The study file.
        out: Folder of the study, absolute.
        force: Run again what is no longer what the file asks for.

    Raises:
        RunError: The study file is wrong, and nothing was started; or runs failed, which are named.
        DataListError, JobError, FolderError: Lists, a job or the folder are wrong; nothing was started.
        Interrupted: By Ctrl-C or SIGTERM.
    """
    study = read_study(path)
    runs = expand(study, path, out)
    end_marked(STUDY_VARIABLE, str(out))  # of a study that was killed: nobody else writes this folder
    record = begin_or_go_on(path, study, runs, out, force)
    typer.echo(f"{study.name}: {describe_left(record.runs)}")
    with metering() as meter:
        for number, name in enumerate([one.name for one in record.runs], 1):
            record = _do_one(path, out, record, name, f"[{number}/{len(runs)}]", meter)
    _finish(record, out)
    return record


def _do_one(path: Path, out: Path, record: StudyRecord, name: str, count: str, meter: EnergyMeter) -> StudyRecord:
    """Carry out a run unless it is done; the record with what became of it, which is written, too."""
    known = next(one for one in record.runs if one.name == name)
    if known.state == "finished":
        return record
    begin = time.monotonic()
    spent_before = meter.joules()

    def state(**word: Any) -> StudyRecord:
        seconds = round(known.seconds + time.monotonic() - begin, 1)
        changed = record.with_run(
            replace(
                known,
                **{"error": "", "seconds": seconds, "joules": energy_of(known, spent_before, meter.joules()), **word},
            )
        )
        write_record(out, changed)
        return changed

    goes_on = " goes on" if known.state == "interrupted" else " is tried again" if known.state == "failed" else ""
    typer.echo(f"{count} {name}{goes_on}: {describe_run(known)}")
    state(state="running")
    try:
        carry_out(known, out)
    except (KeyboardInterrupt, SystemExit):
        state(state="interrupted")
        raise Interrupted(f"{name} was stopped; `brats-fl study {path} --out {out}` goes on with it") from None
    except RunError as error:
        record = state(state="failed", error=" ".join(str(error).split())[:500])
        typer.echo(f"{count} {name} failed: {error}\n      see {out / known.log}", err=True)
        return record
    record = state(state="finished")
    took = format_duration(time.monotonic() - begin)
    typer.echo(f"{count} {name}: done in {took}, {describe_scores(known, out)}; {describe_left(record.runs)}")
    return record


def energy_of(known: RunRecord, before: float | None, now: float | None) -> float | None:
    """Joules of a run, those of its earlier parts included; None where the machine does not tell of one of them.

    Args:
        known: The run as it was before this part.
        before: What the meter said at the start of this part.
        now: What it says.
    """
    earlier = known.joules if known.seconds else 0.0
    return None if earlier is None or before is None or now is None else round(earlier + now - before, 1)


def describe_scores(known: RunRecord, out: Path) -> str:
    """Mean Dice over the test cases, with their number."""
    import pandas as pd

    table = pd.read_csv(out / known.table, keep_default_na=False)
    cases = len(table[["site", "case"]].drop_duplicates())
    return f"mean Dice {table['dice'].astype(float).mean():.3f} on {format_count(cases, 'test case')}"


def _finish(record: StudyRecord, out: Path) -> None:
    """Say that all is done.

    Raises:
        RunError: Runs failed; each is named.
    """
    failed = [one for one in record.runs if one.state == "failed"]
    if failed:
        raise RunError(
            f"{len(failed)} of {format_count(len(record.runs), 'run')} failed, the others are done: {_named(failed)}; "
            f"the same command tries {'it' if len(failed) == 1 else 'them'} again, the logs are in {out / LOGS_FOLDER}"
        )
    seconds = sum(one.seconds for one in record.runs)
    typer.echo(f"done: {format_count(len(record.runs), 'run')} in {format_duration(seconds)}; {out / 'study.json'}")


def _named(failed: Sequence[RunRecord]) -> str:
    return "; ".join(f"{one.name} ({one.error})" for one in failed)
