"""What a site keeps for itself in a study: the model it trained last, and what its algorithm remembers.

    STATE_DIR/local_model.pt        the site's own last model
    STATE_DIR/masked                there where updates left masked: the model then stays at the site, too
    STATE_DIR/round-0004.pt         the algorithm's state after round 4; those of the last two rounds are kept

The folder is named by the study, a hash of what makes runs comparable, and not by the job: a job that goes on where
another was interrupted finds it. Two rounds are kept because a server that died may go on one round earlier.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from brats_fl.errors import JobError, ModelError
from brats_fl.exchange import Payloads

if TYPE_CHECKING:
    import torch

STATE_VARIABLE: Final = "BRATS_FL_STATE"
LOCAL_MODEL_FILE: Final = "local_model.pt"
MASKED_MARK: Final = "masked"
"""File of a study with secure aggregation: less the global model, the local model is the update that nobody sees."""

ROUNDS_KEPT: Final = 2

_STUDY = re.compile(r"([0-9a-f]{16,64})?")
_ROUND_FILE = re.compile(r"round-(\d{4,})\.pt")


def find_state_dir(site: str, study: str, kit: Path, environ: Mapping[str, str] = os.environ) -> Path:
    """Where a site keeps its own state of a study: ``$BRATS_FL_STATE/SITE/STUDY``, else ``state/STUDY`` of its kit.

    Raises:
        JobError: The study that a job names is no hash, which as a path might be anything.
    """
    if not _STUDY.fullmatch(study):
        raise JobError("study must be a hash in hexadecimal digits, as `brats-fl job build` writes it; build it again")
    root = Path(environ[STATE_VARIABLE]) / site if environ.get(STATE_VARIABLE) else kit / "state"
    return root / (study[:16] or "none")


def note_masked(folder: Path) -> None:
    """Note that the site's updates of a study leave it masked."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MASKED_MARK).touch()


def was_masked(folder: Path) -> bool:
    """Whether the site's updates of a study left it masked."""
    return (folder / MASKED_MARK).exists()


def read_own(folder: Path, round_index: int) -> Payloads:
    """The algorithm's state after the last round before ``round_index`` in which the site took part; empty for none.

    A job that begins at round 0 begins anew, whatever an earlier run of the same study left.

    Raises:
        ModelError: A file is damaged.
    """
    kept = [(number, path) for number, path in _round_files(folder) if number < round_index]
    if round_index == 0 or not kept:
        return {}
    import torch

    path = max(kept)[1]
    try:
        return as_arrays(torch.load(path, map_location="cpu", weights_only=True))
    except Exception as error:  # torch, zipfile and pickle each raise their own
        raise ModelError(f"{path}: is damaged ({type(error).__name__}); remove it, and the site begins anew") from error


def write_own(folder: Path, round_index: int, own: Payloads) -> None:
    """Keep the algorithm's state after a round; older ones than the last two go, and those of a later round."""

    from brats_fl.network.checkpoints import save_whole

    save_whole(folder / f"round-{round_index:04d}.pt", as_tensors(own))
    for number, path in _round_files(folder):
        if not round_index - ROUNDS_KEPT < number <= round_index:
            path.unlink(missing_ok=True)


def _round_files(folder: Path) -> list[tuple[int, Path]]:
    found = ((_ROUND_FILE.fullmatch(path.name), path) for path in folder.glob("round-*.pt"))
    return [(int(match[1]), path) for match, path in found if match]


def as_tensors(payloads: Payloads) -> dict[str, dict[str, torch.Tensor]]:
    """Payloads as torch saves them, copied."""
    import torch

    return {
        name: {key: torch.from_numpy(np.array(value)) for key, value in arrays.items()}
        for name, arrays in payloads.items()
    }


def as_arrays(content: Any) -> dict[str, dict[str, Any]]:
    """Payloads that were saved.

    Raises:
        ModelError: It is something else.
    """
    try:
        return {str(name): {str(k): v.numpy(force=True) for k, v in part.items()} for name, part in content.items()}
    except AttributeError as error:
        raise ModelError("the algorithm's state holds something else than named tensors") from error
