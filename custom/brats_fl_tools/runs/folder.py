"""The run folder: what lies in it, and what it says of its run."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final, Literal

from brats_fl.files import write_whole
from brats_fl.round_records import RECORDS_FILE
from brats_fl_tools.jobs.assembly import BuiltJob
from brats_fl_tools.own_folders import fresh_folder

FINAL_MODEL: Final = "final_model.pt"
BEST_MODEL: Final = "global_model.pt"
RUN_FILE: Final = "run.json"
EVALUATION_FILE: Final = "evaluation.json"
"""What was evaluated: model, bundle, profile, split; the figures are in ``CASE_TABLE_FILE``."""

MASKS_FOLDER: Final = "masks"
JOB_FOLDER: Final = "job"
"""The job as it was built, in a folder of its name."""

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

State = Literal["running", "interrupted", "finished"]


def prepare_run_folder(run: Path, force: bool) -> None:
    """An empty run folder.

    Raises:
        FolderError: It holds something, and ``force`` is not set or it is no run folder of ours.
    """
    fresh_folder(run, "run", force)


def write_facts(run: Path, job: BuiltJob, state: State, facts: Mapping[str, Any]) -> None:
    """Write ``run.json``: from the start on, so that a run that is ended in whatever way can be told apart."""
    of_training = {
        "bundle": job.bundle,
        "profile": job.variables.get("profile"),
        "rounds": job.total_rounds,
        "local_epochs": job.variables.get("local_epochs"),
        "seed": job.variables.get("seed"),
    }
    content = {
        "job": job.name,
        "state": state,
        **(of_training if job.bundle else {}),
        "options": dict(job.variables),
        "content_hash": job.content_hash,
        "versions": versions(),
        "machine": {"system": platform.system(), "processor": platform.machine()},
        **facts,
    }
    write_whole(run / RUN_FILE, json.dumps(content, indent=1) + "\n")


def read_state(run: Path) -> State | None:
    """The state that ``run.json`` tells; None where it does not."""
    try:
        state: State | None = json.loads((run / RUN_FILE).read_text(encoding="utf-8")).get("state")
    except (OSError, ValueError, AttributeError):
        return None
    return state


def records_file(run: Path) -> Path:
    """The round records of a run; of one that the simulator was carrying out when it was killed, the server's own."""
    places = (run / RECORDS_FILE, run / SIMULATED_SERVER / RECORDS_FILE)
    return next((place for place in places if place.is_file()), places[0])


def versions() -> dict[str, str]:
    """What a run was made with."""
    packages = {"brats_fl": "brats-fl", "monai": "monai", "nvflare": "nvflare", "torch": "torch"}
    return {**{name: version(package) for name, package in packages.items()}, "python": platform.python_version()}


def now() -> str:
    """The time in UTC, ISO 8601, to the second."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")
