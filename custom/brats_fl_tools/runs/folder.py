"""The run folder: what lies in it, and what it says of its run."""

from __future__ import annotations

import json
import platform
import shutil
import tempfile
from collections.abc import Mapping
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final, Literal, get_args

from brats_fl.errors import JobError
from brats_fl.files import write_whole
from brats_fl.machine import MACHINE_FILE
from brats_fl.reading import read_if_sound
from brats_fl.round_records import RECORDS_FILE
from brats_fl_tools.jobs.assembly import JobOptions, build_job, refuse_within
from brats_fl_tools.jobs.built import BuiltJob, describe_job
from brats_fl_tools.jobs.evaluated import JOB_FOLDER as JOB_FOLDER
from brats_fl_tools.jobs.evaluated import RUN_FILE as RUN_FILE
from brats_fl_tools.jobs.source import read_object, sites_of
from brats_fl_tools.own_folders import fresh_folder, refuse_foreign
from brats_fl_tools.weights import BEST_MODEL as BEST_MODEL
from brats_fl_tools.weights import FINAL_MODEL as FINAL_MODEL

EVALUATION_FILE: Final = "evaluation.json"
"""What was evaluated: model, bundle, profile, split; the figures are in ``CASE_TABLE_FILE``."""

MASKS_FOLDER: Final = "masks"
EARLIER: Final = "earlier"
"""Folder of a resumed run: records, last and best model of what had been done before."""

LAST_MODEL: Final = "last_model.pt"
"""In ``EARLIER``: the global model that the run went on from."""

SERVER_FILES: Final = "server"
"""What the server of a federation kept of the job."""

SIMULATOR_WORKSPACE: Final = "workspace"
SIMULATED_SERVER: Final = f"{SIMULATOR_WORKSPACE}/server/simulate_job"
"""The same of FLARE's simulator."""

STATE_FOLDER: Final = "state"
"""What each simulated site keeps for itself."""

OF_THE_MACHINE: Final = ("sites_dir", "poc_workspace")
"""Facts of ``run.json`` that are paths of the machine that the run was started on; an archive leaves them out."""

State = Literal["running", "interrupted", "finished"]


def begin_run_folder(run: Path, source: Path, options: JobOptions, force: bool) -> BuiltJob:
    """An empty run folder with the job in it, once that is built: what is wrong with it costs no earlier run.

    Args:
        run: The folder.
        source: Folder of the job.
        options: Of the job, with the sites that take part.
        force: Replace an earlier run there.

    Raises:
        FolderError: It holds something, and ``force`` is not set or it is no run folder of ours; or what the job is
            made of lies in it.
        JobError: As ``build_job``.
    """
    refuse_foreign(run, "run", force)
    refuse_within(run, options)
    run.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".brats-fl-", suffix=".tmp", dir=run.parent) as scratch:
        built = build_job(source, Path(scratch), options)
        fresh_folder(run, "run", force)
        (run / JOB_FOLDER).mkdir()
        return describe_job(Path(shutil.move(built.folder, run / JOB_FOLDER / built.name)))


def facts_of(run: Path, job: BuiltJob, state: State, facts: Mapping[str, Any]) -> dict[str, Any]:
    """What ``run.json`` says: from the start on, so that a run that is ended in whatever way can be told apart."""
    of_training = {
        "bundle": job.bundle,
        "profile": job.variables.get("profile"),
        "rounds": job.total_rounds,
        "local_epochs": job.variables.get("local_epochs"),
        "seed": job.variables.get("seed"),
    }
    return {
        "job": job.name,
        "state": state,
        **(of_training if job.bundle else {}),
        **({"start_sha256": job.start_sha256} if job.start_sha256 else {}),
        "options": dict(job.variables),
        "content_hash": job.content_hash,
        "invited": list(job.sites),
        "versions": versions(),
        **({"machine": machine} if (machine := _read_machine(run)) else {}),
        **facts,
    }


def write_facts(run: Path, facts: Mapping[str, Any]) -> None:
    """Write ``run.json``."""
    write_whole(run / RUN_FILE, text_of(facts))


def text_of(facts: Mapping[str, Any]) -> str:
    """``run.json`` as it is written."""
    return json.dumps(facts, indent=1) + "\n"


def _read_machine(run: Path) -> dict[str, Any]:
    """What the server, or the simulator's, said of its machine; empty before it has started."""
    servers = (run / SERVER_FILES, run / SIMULATED_SERVER)
    return next(filter(None, (read_if_sound(folder / MACHINE_FILE) for folder in servers)), {})


def read_state(run: Path) -> State | None:
    """The state that ``run.json`` tells; None where it does not."""
    state = read_if_sound(run / RUN_FILE).get("state")
    return next((one for one in get_args(State) if one == state), None)


def records_files(run: Path, state: str | None) -> list[Path]:
    """The files that hold a run's round records; of two lines on the same, that of the later file counts.

    One of a run that was collected. Of one that nobody saw end, what an earlier part left and what the server wrote.

    Args:
        run: The run folder.
        state: As ``run.json`` tells it; None where it does not.
    """
    collected = run / RECORDS_FILE
    servers = [folder / RECORDS_FILE for folder in (run / SERVER_FILES, run / SIMULATED_SERVER)]
    if state == "running" or not collected.is_file():
        found = [path for path in (run / EARLIER / RECORDS_FILE, collected, *servers) if path.is_file()]
        return found or [collected]
    return [collected]


def invited_sites(run: Path, info: Mapping[str, Any]) -> tuple[str, ...] | None:
    """The hospitals that the run's job was made for, whether they came or not; None where nothing says it.

    Args:
        run: The run folder.
        info: Content of its ``run.json``; one of an earlier release does not say it, the job in ``run/job`` does.
    """
    if isinstance(listed := info.get("invited"), list):
        return tuple(str(site) for site in listed)
    try:
        meta = run / JOB_FOLDER / str(info.get("job")) / "meta.json"
        return sites_of(read_object(meta), meta)
    except JobError:
        return None


def versions() -> dict[str, str]:
    """What a run was made with."""
    packages = {"brats_fl": "brats-fl", "monai": "monai", "nvflare": "nvflare", "torch": "torch"}
    return {**{name: version(package) for name, package in packages.items()}, "python": platform.python_version()}


def now() -> str:
    """The time in UTC, ISO 8601, to the second."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")
