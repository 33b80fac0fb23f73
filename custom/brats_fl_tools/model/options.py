"""What commands that take a trained model ask of it, and what a run folder beside it tells."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from brats_fl.reading import read_if_sound
from brats_fl_tools.runs.folder import RUN_FILE

BundleOfModel = Annotated[
    Path | None,
    typer.Option("--bundle", help="Bundle of the model; default: of its run, else the one that it fits."),
]
ProfileOfModel = Annotated[
    str | None, typer.Option("--profile", help="full or small; default: of its run, else the one that it fits.")
]


def sites_of_run(model: Path, sites: Path | None) -> Path:
    """Folder of the data lists: the one that is given, else the one of the run on this machine.

    Raises:
        typer.BadParameter: Neither is there.
    """
    told = read_if_sound((model if model.is_dir() else model.parent) / RUN_FILE).get("sites_dir")
    if sites is None and not (isinstance(told, str) and Path(told).is_dir()):
        raise typer.BadParameter(f"--sites is missing: {model} does not say where data lists on this machine are")
    return sites or Path(str(told))
