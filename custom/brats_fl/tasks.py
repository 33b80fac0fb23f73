"""What a site is asked to do and what comes of it: the words between the executor and the trainer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

Weights = Mapping[str, npt.NDArray[np.float32]]
"""Name of a parameter -> its values, or their change."""


class TrainingAborted(Exception):  # noqa: N818  (an order that was carried out, not an error)
    """The task was called off."""


@dataclass(frozen=True)
class LocalSettings:
    """What a site needs to know to take part in a study."""

    bundle: Path
    """Root of the bundle."""
    datalist: Path
    """The site's data list."""
    state_dir: Path
    """Where the site keeps its own last model; never leaves the site."""
    site: str
    rounds: int
    """Of the whole study: the learning rate decays over all of them."""
    local_epochs: int = 1
    profile: str = "full"
    """``full`` or the name of an overlay of the bundle, such as ``small``."""
    seed: int = 0
    overrides: Mapping[str, Any] = field(default_factory=dict)
    """Variables of the bundle to set, such as ``{"learning_rate": 0.0005}``."""


@dataclass(frozen=True)
class Task:
    """One thing to do with the global model."""

    name: Literal["train", "validate"]
    weights: Weights
    round_index: int = 0


@dataclass(frozen=True)
class TaskResult:
    """What a site sends back."""

    metrics: Mapping[str, float]
    """Of the weights that came with the task, on the site's validation cases; empty where it has none."""
    statistics: Mapping[str, Any]
    """``cases`` and seconds; of a training also ``steps`` and the mean ``loss``."""
    update: Weights | None = None
    """Local minus global weights; None where nothing was trained."""


@dataclass(frozen=True)
class TaskFailure:
    """Why a task failed."""

    code: str
    """What the site may send out."""
    text: str
    """For the site's own log only: it may name cases and paths."""
