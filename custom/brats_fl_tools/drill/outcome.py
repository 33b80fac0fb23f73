"""What came of a job: its records, and its model against what the hospitals trained."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from brats_fl.round_records import MEAN_PHASE
from brats_fl.site_state import LOCAL_MODEL_FILE, find_state_dir

Array = npt.NDArray[np.floating]
Model = Mapping[str, Array]
Records = list[dict[str, Any]]


@dataclass(frozen=True)
class Outcome:
    """What came of a job."""

    exit_code: int
    output: str
    run: Path
    records: Records

    def status(self, site: str, round_index: int) -> str:
        """A site's part in a round: ``ok``, a code, or ``absent``."""
        return status_of(self.records, site, round_index)


def status_of(records: Records, site: str, round_index: int) -> str:
    """A site's part in a round: ``ok``, a code, or ``absent``."""
    found = [
        record["status"]
        for record in records
        if record["phase"] == "train" and record["site"] == site and record["round"] == round_index
    ]
    return found[-1] if found else "absent"


def means(records: Records) -> Records:
    """The server's own lines, one a round that is over."""
    return [record for record in records if record["phase"] == MEAN_PHASE]


def accepted_cases(records: Records, round_index: int) -> dict[str, int]:
    """Site -> training cases, of the sites whose update of a round was accepted."""
    return {
        record["site"]: record["cases"]
        for record in records
        if record["phase"] == "train" and record["round"] == round_index and record["status"] == "ok"
    }


def local_model_file(run: Path, site: str, kit: Path) -> Path:
    """Where a site keeps the model that it trained last in the study of a run."""
    study = json.loads(next((run / "job").glob("*/meta.json")).read_text(encoding="utf-8"))["study"]
    return find_state_dir(site, study, kit, environ={}) / LOCAL_MODEL_FILE


def weighted_mean_of(models: Mapping[str, Model], cases: Mapping[str, int]) -> dict[str, Array]:
    """Mean of the sites' models by their cases, in float64; not the code that the server runs."""
    total: dict[str, Any] = {}
    for site, model in models.items():
        for name, value in model.items():
            total[name] = total.get(name, 0.0) + value.astype(np.float64) * cases[site]
    return {name: value / sum(cases[site] for site in models) for name, value in total.items()}


def largest_difference(model: Model, other: Model) -> float:
    """Largest difference of a parameter; infinite where one is no number."""
    differences = (float(np.abs(model[name] - other[name]).max()) for name in model)
    return max(value if np.isfinite(value) else float("inf") for value in differences)


def load(path: Path | BinaryIO) -> dict[str, Array]:
    """Parameters of a checkpoint as arrays."""
    import torch

    state = torch.load(path, map_location="cpu", weights_only=True)["model"]
    return {name: value.numpy() for name, value in state.items()}
