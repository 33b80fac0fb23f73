"""Where weights lie: in a run folder, in a bundle, or in a checkpoint of any name."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

import typer

from brats_fl.bundle import bundle_names, is_bundle
from brats_fl.errors import ModelError
from brats_fl_tools.repository import BUNDLES

if TYPE_CHECKING:
    from torch import Tensor

FINAL_MODEL: Final = "final_model.pt"
BEST_MODEL: Final = "global_model.pt"

EXPORTED: Final = "models/model.pt"
"""Where `brats-fl export` puts a bundle's weights."""

ENSEMBLE_FILE: Final = "ensemble.json"
"""Configuration that makes several networks of a bundle's one, as an overlay; in an export, beside their weights."""

MODEL_CARD: Final = "model_card.md"
"""What `brats-fl report STUDY` says of the best model of a run, in its folder; `export` takes it along."""

PRETRAINED: Final = "model.pt"
"""What `brats-fl pretrain` writes, in its own folder."""


def find_weights(model: Path) -> Path:
    """Checkpoint of a bundle (name or folder), of a run folder (its best model, else its last), or the file itself.

    Raises:
        ModelError: There is none.
    """
    if model.is_file():
        return model.resolve()
    for candidate in (model, BUNDLES / model):
        if is_bundle(candidate):
            if (candidate / EXPORTED).with_name(ENSEMBLE_FILE).is_file():
                raise ModelError(f"{candidate} holds several models, used as one; give one of their checkpoints")
            if not (candidate / EXPORTED).is_file():
                raise ModelError(f"{candidate} has no weights; put them there with `brats-fl export RUN --bundle ...`")
            return (candidate / EXPORTED).resolve()
    for name in (BEST_MODEL, FINAL_MODEL, PRETRAINED):
        if (model / name).is_file():
            return (model / name).resolve()
    names = ", ".join(bundle_names(BUNDLES))
    raise ModelError(f"{model}: no model there; give a checkpoint, a run folder, or a bundle such as {names}")


def tell_left_out(weights: Path, state: Mapping[str, Tensor], kept: Mapping[str, Tensor]) -> None:
    """Say which tensors of a checkpoint are not loaded, as they are none of the network's."""
    from brats_fl.network.checkpoints import first_of, left_out

    if names := left_out(state, kept):
        typer.echo(f"note: {weights}: left out, beside the network: {first_of(names)}", err=True)
