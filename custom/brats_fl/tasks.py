"""What a site is asked to do and what comes of it: the words between the executor and the trainer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from brats_fl.errors import TrainingAborted as TrainingAborted
from brats_fl.exchange import WEIGHTS, Payloads, Weights


@dataclass(frozen=True)
class LocalSettings:
    """What a site needs to know to take part in a study."""

    bundle: Path
    """Root of the bundle."""
    datalist: Path
    """The site's data list."""
    state_dir: Path
    """Where the site keeps what is its own in this study, such as its last model; never leaves the site."""
    site: str
    rounds: int
    """Of the whole study: the learning rate decays over all of them."""
    local_epochs: int = 1
    profile: str = "full"
    """``full`` or the name of an overlay of the bundle, such as ``small``."""
    seed: int = 0
    overrides: Mapping[str, Any] = field(default_factory=dict)
    """Variables of the bundle to set, such as ``{"learning_rate": 0.0005}``."""
    algorithm: str = "fedavg"
    """Name of the federated algorithm."""
    algorithm_settings: Mapping[str, float] = field(default_factory=dict)
    code: Path | None = None
    """Folder of the code that came with the job; None where it brought none."""
    split: Literal["validation", "testing"] = "validation"
    """Cases that models are evaluated on."""
    budget: Path | None = None
    """Where the site's privacy budget is, or would be; a job without noise needs none."""


@dataclass(frozen=True)
class Task:
    """One thing to do, with a model that came with it, or of it: ``local_model`` asks for the site's own."""

    name: Literal["train", "validate", "local_model"]
    payloads: Payloads
    """``weights``, and what the algorithm sends beside them."""
    round_index: int = 0

    @property
    def weights(self) -> Weights:
        """The global model."""
        return self.payloads[WEIGHTS]


@dataclass(frozen=True)
class TaskResult:
    """What a site sends back."""

    metrics: Mapping[str, float]
    """Of the weights that came with the task, on the site's validation cases; empty where it has none."""
    statistics: Mapping[str, Any]
    """``cases`` and seconds; of a training also ``steps`` and the mean ``loss``."""
    payloads: Payloads = field(default_factory=dict)
    """``weights``, local minus global, and what the algorithm sends beside them; empty where nothing was trained."""

    @property
    def update(self) -> Weights:
        """Local minus global weights."""
        return self.payloads[WEIGHTS]


@dataclass(frozen=True)
class TaskFailure:
    """Why a task failed."""

    code: str
    """What the site may send out."""
    text: str
    """For the site's own log only: it may name cases and paths."""
