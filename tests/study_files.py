"""A study of two hospitals whose scans nobody looks at: what a test is about are its runs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from brats_fl.cases.datalists import DATALIST_FILE, Case, DataList, write_datalist

TWO_JOBS = """
name = "two jobs"
profile = "small"
rounds = 3
sites = "sites"
baselines = ["local", "central", "leave-one-out"]
seeds = [0, 7]

[set]
steps_per_epoch = 10

[jobs.fedavg]
job = "brats_unet_fedavg"

[jobs.scaffold]
job = "brats_unet_scaffold"
set = { learning_rate = 0.05 }
"""

ONE_JOB = """
name = "one job"
profile = "small"
rounds = 3
sites = "sites"
baselines = ["local"]

[jobs.brats_unet_fedavg]
"""


def a_case(name: str, patient: str = "") -> Case:
    """A case without files."""
    return Case(name, patient or name, tuple(f"/{name}/{k}.nii" for k in range(4)), f"/{name}/seg.nii")


def write_sites(folder: Path, counts: Mapping[str, tuple[int, int, int]] | None = None) -> Path:
    """Lists of hospitals, ``{"hospital-1": (training, validation, testing)}``; the folder."""
    for site, (training, validation, testing) in (counts or {"hospital-1": (3, 1, 1), "hospital-2": (2, 1, 1)}).items():
        names = [a_case(f"{site}-{number}") for number in range(training + validation + testing)]
        parts = (names[:training], names[training : training + validation], names[training + validation :])
        write_datalist(folder / site / DATALIST_FILE, DataList(site, *map(tuple, parts)))
    return folder


def write_study(folder: Path, text: str = TWO_JOBS) -> Path:
    """A study file beside its sites; its path."""
    write_sites(folder / "sites")
    (folder / "study.toml").write_text(text, encoding="utf-8")
    return folder / "study.toml"
