"""The ``brats-fl`` command: one line a verb here, the work in the module of the verb's name."""

from __future__ import annotations

import sys
import traceback

import typer

from brats_fl.errors import BratsFLError

app = typer.Typer(
    name="brats-fl",
    help="Federated training of brain-tumour segmentation: data, jobs, runs, evaluation, report.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


@app.callback()
def _root(debug: bool = typer.Option(False, "--debug", help="Print the traceback of an error.")) -> None:
    pass


def main() -> None:
    """Run the command; exit 0 done, 1 failed, 2 wrong usage."""
    debug = "--debug" in sys.argv
    try:
        app()
    except BratsFLError as error:
        if debug:
            traceback.print_exc()
        typer.echo(f"error: {error}", err=True)
        sys.exit(1)
    except KeyboardInterrupt:
        typer.echo("interrupted", err=True)
        sys.exit(1)
