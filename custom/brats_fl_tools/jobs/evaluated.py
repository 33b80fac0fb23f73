"""The run whose models a job evaluates: what its training was told, and the models that it left."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from brats_fl.errors import JobError
from brats_fl.provenance import hash_file
from brats_fl.reading import Reader
from brats_fl_tools.jobs.source import CLIENT_CONFIG, JobSource
from brats_fl_tools.weights import BEST_MODEL, FINAL_MODEL

RUN_FILE: Final = "run.json"
JOB_FOLDER: Final = "job"
"""The job as it was built, in a folder of its name."""

MODELS: Final = "models"
"""Entry of a server's app: name of a global model -> its file there."""

TOLD: Final = ("seed", "algorithm", "algorithm_settings", "local_epochs", "overrides", "study")
"""What a training tells its sites that decides which network theirs is, and where they keep it; beside the profile."""

READER: Final = Reader(JobError, "give the run folder of a training, with its models, as --of")


@dataclass(frozen=True)
class TrainedRun:
    """A run of a job that trains."""

    bundle: str
    profile: str
    study: str
    told: Mapping[str, Any]
    """``TOLD`` of its sites."""
    models: Mapping[str, Path]
    """``final``, and ``best`` where that is another one."""


def read_trained(run: Path) -> TrainedRun:
    """What a run was told and has left.

    Raises:
        JobError: It is no run folder of a training, or has no model.
    """
    name = READER.at(str, READER.json_object(run / RUN_FILE), ["job"], run / RUN_FILE)
    if Path(name).name != name:
        READER.refuse(run / RUN_FILE, "job must be a name, and no path")
    place = run / JOB_FOLDER / name / CLIENT_CONFIG
    client = READER.json_object(place)
    bundle, profile, study = (READER.at(str, client, [key], place) for key in ("bundle", "profile", "study"))
    told = {key: READER.at(Any, client, [key], place) for key in TOLD}
    final, best = run / FINAL_MODEL, run / BEST_MODEL
    if not final.is_file():
        READER.refuse(final, "is not there")
    differs = best.is_file() and hash_file(best) != hash_file(final)
    return TrainedRun(bundle, profile, study, told, {"final": final, **({"best": best} if differs else {})})


def check_of_run(source: JobSource, run: Path | None) -> None:
    """Raise ``JobError`` where a job that evaluates a run's models is given none, or another job is given one."""
    evaluates = MODELS in source.differences.get("add", {}).get("variables", {})
    if evaluates and run is None:
        raise JobError(f"{source.name} evaluates the models of a run; name its folder with --of RUN")
    if run is not None and not evaluates:
        raise JobError(f"{source.name} evaluates no models of a run; leave --of out, or take brats_cross_site")


def of_bundle(source: JobSource, trained: TrainedRun, values: Mapping[str, Any]) -> JobSource:
    """A job that evaluates models, with the bundle that they were trained with.

    Args:
        source: The job.
        trained: The run.
        values: What is set beside it.

    Raises:
        JobError: The job evaluates none, or something is set that was decided in training.
    """
    check_of_run(source, trained.models["final"].parent)
    if decided := sorted({"bundle", "profile", *TOLD} & set(values)):
        raise JobError(f"{source.name}: {decided[0]} was decided when the models were trained; leave it out")
    return replace(source, differences={**source.differences, "bundle": trained.bundle})
