"""``brats-fl canaries``: plant cases of nobody in a data list; after the training, a lower bound on epsilon."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from brats_fl.cases.datalists import as_monai_item, write_datalist
from brats_fl.errors import FolderError
from brats_fl_tools.model.options import BundleOfModel, ProfileOfModel
from brats_fl_tools.model.trained import find_model
from brats_fl_tools.one_writer import writes
from brats_fl_tools.pages.formats import format_duration

if TYPE_CHECKING:
    from brats_fl_tools.audit.canaries import Bound
    from brats_fl_tools.model.trained import TrainedModel

app = typer.Typer(no_args_is_help=True, help="Cases of nobody in a training: what epsilon is at least.")

CanariesOption = Annotated[
    Path, typer.Option("--canaries", metavar="FOLDER", help="Folder with SITE/datalist.json, of `brats-fl sample`.")
]


@app.command("plant")
def plant_canaries(
    datalist: Annotated[Path, typer.Argument(metavar="LIST", help="The hospital's data list; it stays as it is.")],
    canaries: CanariesOption,
    out: Annotated[Path, typer.Option("--out", metavar="LIST", help="Data list to write, with canaries in training.")],
    key: Annotated[Path, typer.Option("--key", metavar="FILE", help="Key to write; keep it from whoever trains.")],
) -> None:
    """Write LIST with about half of the canaries in its training, by coins that FILE keeps.

    Canaries are nobody: they cost nobody's privacy. They do change the model, as other cases would.
    """
    write_planted(datalist, canaries, out, key)


@writes("out")
def write_planted(datalist: Path, folder: Path, out: Path, key_file: Path) -> None:
    """Write a data list with canaries, and the key.

    Raises:
        DataListError: A list is wrong, or there are too few canaries.
        FolderError: A file is there already.
    """
    from brats_fl_tools.audit.canaries import list_canaries, lower_bound, plant, write_key

    for file, option in ((out, "--out"), (key_file, "--key")):
        if file.exists():
            raise FolderError(f"{file}: is there already; choose another {option}, as a key fits one list alone")
    canaries = list_canaries(folder)
    planted, key = plant(datalist, canaries)
    guesses = len(canaries) // 4 * 2
    write_key(key_file, key)
    write_datalist(out, planted)
    typer.echo(f"wrote {out}: {len(canaries)} canaries, each in training by a coin")
    typer.echo(f"wrote {key_file}: which those are; keep it from whoever trains")
    largest = lower_bound(guesses, guesses, len(canaries), delta=0.0)
    typer.echo(f"with {guesses} guesses no epsilon above {largest:.2f} can be shown")


@app.command("score")
def score_canaries(
    model: Annotated[Path, typer.Argument(metavar="RUN", help="Run folder or checkpoint that was trained on LIST.")],
    canaries: CanariesOption,
    key: Annotated[Path, typer.Option("--key", metavar="FILE", help="Key that `canaries plant` wrote.")],
    delta: Annotated[float, typer.Option("--delta", min=0.0, max=0.1, help="Of the guarantee; 0 for pure.")],
    reference: Annotated[
        Path | None, typer.Option("--reference", metavar="MODEL", help="A model of the same network, without them.")
    ] = None,
    bundle: BundleOfModel = None,
    profile: ProfileOfModel = None,
) -> None:
    """Print what the training's epsilon is at least, with 95 % confidence, from guesses of the coins."""
    own = find_model(model, bundle, profile)
    start = None if reference is None else find_model(reference, own.bundle, own.profile)
    bound = score_model(own, canaries, key, delta, start)
    typer.echo(f"{bound.right} of {bound.guesses} guesses are right; {bound.guesses // 2} would be by chance")
    typer.echo(
        f"epsilon is at least {bound.epsilon:.2f} at delta {delta:g}, with 95 % confidence: a lower bound, which says "
        f"nothing of how much larger it is; {bound.largest:.2f} is the most that so many canaries can show"
    )


def score_model(
    model: TrainedModel, folder: Path, key_file: Path, delta: float, reference: TrainedModel | None = None
) -> Bound:
    """Guess the coins from the model's losses, and bound epsilon by what was right.

    Raises:
        DataListError: The key is none, or of other canaries.
        CaseError: A canary cannot be read.
    """
    from brats_fl_tools.audit.canaries import list_canaries, read_key, refuse_other, score, suspicion_of
    from brats_fl_tools.audit.material import Material, load_network

    key, canaries = read_key(key_file), list_canaries(folder)
    refuse_other(canaries, key)
    material = Material(model, seed=0)
    known = None if reference is None else load_network(reference)
    begin, suspicion = time.monotonic(), {}
    for name, case in canaries.items():
        found = material.case_loss({**as_monai_item(case), "patient": name}, material.networks["trained"], known)
        suspicion[name] = suspicion_of(found.loss, found.reference)
        left = format_duration(round((time.monotonic() - begin) / len(suspicion) * (len(canaries) - len(suspicion))))
        typer.echo(f"{len(suspicion)}/{len(canaries)} canary={name} loss={found.loss:.3f} left={left}")
    return score(suspicion, key, delta)
