"""What a job starts from in place of random weights, ``--start-from MODEL``: told by its digest everywhere."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from brats_fl.bundle import build_network
from brats_fl.errors import JobError, ModelError, UnfitError
from brats_fl.provenance import hash_file
from brats_fl_tools.jobs.source import JobSource
from brats_fl_tools.weights import find_weights, tell_left_out
from brats_fl_tools.withdrawn import refuse_withdrawn


@dataclass(frozen=True)
class Start:
    """A checkpoint and what it is known by."""

    checkpoint: Path
    sha256: str
    """Of the file."""


def find_start(model: Path, source: JobSource, profile: str) -> Start:
    """The checkpoint that a run folder, a bundle or a file stands for, once its weights are known to fit the job.

    Args:
        model: As ``find_weights`` takes it.
        source: The job.
        profile: Of the job's bundle.

    Raises:
        JobError: The job trains nothing.
        ModelError: There is no checkpoint, it holds more than weights, or those of another network.
        RunError: Somebody withdrew from the run that made it.
    """
    from brats_fl.network.checkpoints import fit_state, read_state

    if not source.trains or source.bundle is None:
        raise JobError(f"{source.name}: trains nothing, and starts from no model; leave --start-from out")
    weights = find_weights(model)
    refuse_withdrawn(weights)
    try:
        state = read_state(weights)
        tell_left_out(weights, state, fit_state(state, build_network(source.bundle, profile, seed=0)))
    except UnfitError as error:
        raise ModelError(f"--start-from: {source.bundle.name} with profile {profile}: {weights}: {error}") from None
    return Start(weights, hash_file(weights))
