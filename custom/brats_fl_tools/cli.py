"""The ``brats-fl`` command: one line a verb here, the work in the module of the verb's name."""

from __future__ import annotations

import io
import sys
import traceback
from collections.abc import Mapping
from importlib.metadata import version
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from brats_fl.errors import BratsFLError, cause_of
from brats_fl.failures import is_disk_full, is_out_of_memory, place_of
from brats_fl_tools import baseline, check, demo, drill, reporting, sample, study
from brats_fl_tools.audit import canary_command as canaries
from brats_fl_tools.audit import command as audit
from brats_fl_tools.built_from import commit_in_words
from brats_fl_tools.data import cache_command, import_cases
from brats_fl_tools.jobs import command as job
from brats_fl_tools.kit import command as kit
from brats_fl_tools.ledger import command as ledger
from brats_fl_tools.model import evaluate, export, segment, tune
from brats_fl_tools.partition import command as partition
from brats_fl_tools.privacy import command as privacy
from brats_fl_tools.runs import poc, resume, simulate, submit
from brats_fl_tools.runs.processes import Interrupted, ended_by_sigterm
from brats_fl_tools.stress import command as stress
from brats_fl_tools.watch import command as watch
from brats_fl_tools.withdrawal import command as withdrawal

LONGEST_VERB = 16
"""Columns of a verb with what is before and behind it, in the list of verbs."""

INTERRUPTED = (130, 143)
"""Exit codes when a command was ended by Ctrl-C, as typer says it, and by SIGTERM."""

GROUPS: Mapping[str, tuple[str, ...]] = {
    "Data": ("sample", "import", "check", "partition", "cache"),
    "Runs": (
        "demo",
        "job",
        "privacy",
        "simulate",
        "poc",
        "submit",
        "collect",
        "status",
        "watch",
        "resume",
        "withdraw",
        "baseline",
        "pretrain",
        "study",
    ),
    "Results": ("tune", "evaluate", "stress", "audit", "canaries", "report", "segment", "export", "ledger"),
    "Deployment": ("kit", "drill"),
}
"""Verbs by what one wants to do, in the order in which one does it."""


class GroupedVerbs(TyperGroup):
    """The list of verbs in groups, where click has one long list; a verb without a group comes last."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write a section a group."""
        grouped = {verb for verbs in GROUPS.values() for verb in verbs}
        others = tuple(verb for verb in self.list_commands(ctx) if verb not in grouped)
        for title, verbs in {**GROUPS, "Others": others}.items():
            width = formatter.width - LONGEST_VERB
            rows = [(verb, self.commands[verb].get_short_help_str(width)) for verb in verbs]
            if rows:
                with formatter.section(title):
                    formatter.write_dl(rows)


app = typer.Typer(
    name="brats-fl",
    cls=GroupedVerbs,
    help="Federated training of brain-tumour segmentation: data, jobs, runs, evaluation, report.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def print_version(wanted: bool) -> None:
    """Print what this is a release of, and end."""
    if wanted:
        own = f"brats-fl {version('brats-fl')} (commit {commit_in_words()})"
        typer.echo(" ".join([own, *(f"{name} {version(name)}" for name in ("monai", "nvflare", "torch"))]))
        raise typer.Exit


@app.callback()
def _root(
    debug: Annotated[bool, typer.Option("--debug", help="Print the traceback of an error.")] = False,
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=print_version, help="Print the versions, and end.")
    ] = False,
) -> None:
    pass


app.command()(sample.sample)
app.command("import")(import_cases.import_)
app.command()(partition.partition)
app.command()(check.check)
app.add_typer(job.app, name="job")
app.add_typer(privacy.app, name="privacy")
app.add_typer(poc.app, name="poc")
app.add_typer(kit.app, name="kit")
app.add_typer(cache_command.app, name="cache")
app.command()(simulate.simulate)
app.add_typer(baseline.app, name="baseline")
app.command()(baseline.pretrain)
app.add_typer(study.app, name="study")
app.command()(submit.submit)
app.command("collect")(submit.collect_run)
app.command()(submit.status)
app.command()(watch.watch)
app.command()(resume.resume)
app.command()(withdrawal.withdraw)
app.command()(tune.tune)
app.command()(evaluate.evaluate)
app.command()(stress.stress)
app.command()(audit.audit)
app.add_typer(canaries.app, name="canaries")
app.command()(segment.segment)
app.command()(reporting.report)
app.command()(export.export)
app.add_typer(ledger.app, name="ledger")
app.command()(drill.drill)
app.command()(demo.demo)


def main() -> None:
    """Run the command; exit 0 done, 1 failed or interrupted, 2 wrong usage."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # as stderr: a name that a terminal cannot show ends nothing
    if "" in sys.argv[1:]:  # a path of no letters is the current folder
        before = " ".join(sys.argv[1:][: sys.argv[1:].index("")])
        typer.echo(f"Error: an argument is empty, behind `{before}`; is it a variable of the shell, not set?", err=True)
        sys.exit(2)
    try:
        with ended_by_sigterm():
            app()
    except SystemExit as end:
        if not isinstance(end, Interrupted) and end.code not in INTERRUPTED:
            raise
        words = end.words if isinstance(end, Interrupted) else "what was started has been stopped"
        typer.echo(f"interrupted: {words}", err=True)
        sys.exit(1)
    except (BratsFLError, OSError) as error:
        if "--debug" in sys.argv:
            traceback.print_exc()
        typer.echo(f"error: {explain(error)}", err=True)
        sys.exit(1)
    except Exception as error:
        known = cause_of(error)  # an error of ours that MONAI wrapped in one of its own
        if known is None and not is_out_of_memory(error):
            raise
        if "--debug" in sys.argv:
            traceback.print_exc()
        words = "memory ran out; free some, or take a machine with more" if known is None else explain(known)
        typer.echo(f"error: {words}", err=True)
        sys.exit(1)


def explain(error: BratsFLError | OSError) -> str:
    """An error in one line; what the operating system says with the file it says it of."""
    if isinstance(error, OSError) and is_disk_full(error):
        return f"the disk is full ({place_of(error) or 'while writing'}); free some space and run the command again"
    if isinstance(error, OSError) and error.strerror:
        return f"{place_of(error) or 'a file'}: {error.strerror}"
    return str(error)
