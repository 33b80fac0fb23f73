"""``make wheel`` and ``make wheelhouse``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from brats_fl.errors import BratsFLError
from brats_fl.provenance import hash_file
from brats_fl_tools.release.wheel import CONSTRAINTS, build_wheel
from brats_fl_tools.release.wheelhouse import REQUIREMENTS, make_wheelhouse
from brats_fl_tools.repository import ROOT

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)

OutOption = Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder that gets it.")]


@app.command()
def wheel(out: OutOption) -> None:
    """Write DIR/brats_fl-VERSION-py3-none-any.whl, of the last commit."""
    built = build_wheel(ROOT, out)
    typer.echo(f"{built}\nSHA-256 {hash_file(built)}")


@app.command()
def wheelhouse(
    out: OutOption,
    index: Annotated[list[str] | None, typer.Option("--index", metavar="URL", help="One more index for pip.")] = None,
) -> None:
    """Write to DIR, new or empty, the wheels of all that a site or server needs; their size is told first."""
    built = build_wheel(ROOT, out.parent)
    options = [word for url in index or () for word in ("--extra-index-url", url)]
    make_wheelhouse(built, "tools", out, ROOT / CONSTRAINTS, options)
    typer.echo(f"{out / REQUIREMENTS}\nSHA-256 {hash_file(out / REQUIREMENTS)}")


if __name__ == "__main__":
    try:
        app()
    except BratsFLError as error:
        sys.exit(str(error))
