"""What a server keeps of a run: its models, and, where it is told to, the updates that give them again.

updates/start.pt                     the model that the first round began with
updates/round-0004/hospital-1.pt     an accepted update
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from brats_fl.errors import ModelError
from brats_fl.exchange import WEIGHTS, Payloads, Weights
from brats_fl.site_state import as_arrays, as_tensors

ROUNDS_DONE: Final = "rounds_done"
"""Key of a persisted model, beside ``model``."""

ALGORITHM_STATE: Final = "brats_fl_algorithm_state"
"""Key of what the algorithm remembers: of a persisted model, and of the server's context."""

UPDATES_FOLDER: Final = "updates"
"""In the folder of the job at the server, and in the run folder."""

START_FILE: Final = "start.pt"


def keep_model(path: Path, weights: Weights, rounds_done: int, state: Payloads) -> None:
    """Write a global model as the persistor does: a job can go on from it.

    Args:
        path: Of the file.
        weights: The model.
        rounds_done: That made it.
        state: What the algorithm remembers.
    """
    from brats_fl.network.checkpoints import save_whole

    content = {"model": as_tensors({WEIGHTS: weights})[WEIGHTS], ROUNDS_DONE: rounds_done}
    save_whole(path, {**content, ALGORITHM_STATE: as_tensors(state)})


def keep_start(folder: Path, weights: Weights) -> None:
    """Keep the model that a run began with."""
    _save(folder / START_FILE, {WEIGHTS: weights})


def keep_update(folder: Path, round_index: int, site: str, payloads: Payloads) -> None:
    """Keep an accepted update."""
    _save(update_file(folder, round_index, site), payloads)


def update_file(folder: Path, round_index: int, site: str) -> Path:
    """Where a site's update of a round lies."""
    return folder / f"round-{round_index:04d}" / f"{Path(site).name}.pt"


def read_kept(path: Path) -> dict[str, dict[str, Any]]:
    """Payloads that were kept.

    Raises:
        ModelError: The file is missing or damaged.
    """
    import torch

    try:
        return as_arrays(torch.load(path, map_location="cpu", weights_only=True))
    except FileNotFoundError:
        raise ModelError(f"{path}: no such file; collect the run again, or copy it whole") from None
    except Exception as error:  # torch, zipfile and pickle each raise their own
        raise ModelError(
            f"{path}: is damaged ({type(error).__name__}); collect the run again, or copy it whole"
        ) from error


def _save(path: Path, payloads: Payloads) -> None:
    from brats_fl.network.checkpoints import save_whole

    save_whole(path, as_tensors(payloads))
