"""What commands that take a trained model ask of it: what no run folder beside it tells."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

BundleOfModel = Annotated[
    Path | None,
    typer.Option("--bundle", help="Bundle of the model; default: of its run, else the one that it fits."),
]
ProfileOfModel = Annotated[
    str | None, typer.Option("--profile", help="full or small; default: of its run, else the one that it fits.")
]
