"""The curves of a run, where they lie: one folder of the run folder, in the simulator and in a federation alike."""

from __future__ import annotations

import shutil
from pathlib import Path

from brats_fl.tracking import TRACKING_FOLDER


def take_curves(server_run_dir: Path, run: Path) -> None:
    """Move the server's curves to ``run/tracking``, where a simulation's are from the start.

    They do not stay where they were: TensorBoard shows twice what lies in two places of a run folder.
    """
    if (server_run_dir / TRACKING_FOLDER).is_dir():
        shutil.rmtree(run / TRACKING_FOLDER, ignore_errors=True)
        shutil.move(server_run_dir / TRACKING_FOLDER, run / TRACKING_FOLDER)


def keep_curves(server_run_dir: Path, earlier: Path, rounds_done: int) -> None:
    """Copy the curves of a job that was lost after so many rounds; those of the job that goes on are others."""
    if (server_run_dir / TRACKING_FOLDER).is_dir():
        kept = earlier / f"{TRACKING_FOLDER}-{rounds_done:04d}"
        shutil.copytree(server_run_dir / TRACKING_FOLDER, kept, dirs_exist_ok=True)
