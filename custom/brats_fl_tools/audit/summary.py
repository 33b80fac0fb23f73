"""``audit.json``: the figures of an audit, without a picture, a voxel or the name of a case."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import Any, Final

from brats_fl.constants import MODALITIES
from brats_fl.errors import RunError
from brats_fl.files import write_whole
from brats_fl.reading import Reader
from brats_fl_tools.audit.membership import Membership

SUMMARY_FILE: Final = "audit.json"
PAGE_FILE: Final = "audit.html"

STATES: Final = {"start": "Before training", "trained": "The trained model"}
"""States of the network from which each update is attacked."""

CONTROL: Final = "other"
"""A step on another case: what an attack finds in an update in which nothing of the scan is."""

ALWAYS: Final = ("step", "round", "mean", CONTROL)
"""Updates that each audit attacks; others are protections of the step."""

READER: Final = Reader(RunError, "write it again with `brats-fl audit`")


@dataclass(frozen=True)
class Attack:
    """One gradient inversion."""

    state: str
    """Of the network: ``start`` or ``trained``."""
    update: str
    """What was attacked, a key of ``titles``."""
    correlation: Mapping[str, float]
    """Modality -> with the scan, over the brain."""
    beyond_label: Mapping[str, float]
    """The same with the mean of each tissue taken out, which the label that the attacker was given may tell."""
    distance: float
    """1 less the cosine of the gradients at the end."""
    seconds: float

    @property
    def mean(self) -> float:
        """Over the modalities."""
        return fmean(self.correlation.values())

    @property
    def mean_beyond(self) -> float:
        """Over the modalities, beyond the label."""
        return fmean(self.beyond_label.values())


@dataclass(frozen=True)
class Inversion:
    """All gradient inversions, of one patch."""

    patch: int
    """Voxels along each axis."""
    iterations: int
    restarts: int
    seed: int
    titles: Mapping[str, str]
    """Update -> its name."""
    label_alone: Mapping[str, float]
    """Correlation of the best guess from the label, which the attacker was given."""
    attacks: tuple[Attack, ...]


@dataclass(frozen=True)
class Summary:
    """Content of ``audit.json``."""

    model: str
    model_sha256: str
    reference_sha256: str | None
    bundle: str
    profile: str
    sites: Mapping[str, int]
    """Training cases of each."""
    synthetic_cases: int
    """Of the training cases."""
    secure_aggregation: bool | None
    """Whether the run's server saw sums alone; None where the model is of no run folder."""
    seen_checked: bool
    """Whether the model's run told which cases it was trained on."""
    inversion: Inversion
    membership: Membership | None
    """None where no case was left to compare with."""
    finished: str
    versions: Mapping[str, str]
    machine: Mapping[str, Any]
    commit: str | None = None


def read_summary(path: Path) -> Summary:
    """An ``audit.json``.

    Raises:
        RunError: It is missing, damaged or none.
    """
    summary = READER.typed(Summary, READER.json_object(path), path)
    inversion = summary.inversion
    wanted = [(state, update) for state in STATES for update in inversion.titles]
    if not set(ALWAYS) <= set(inversion.titles) or [(one.state, one.update) for one in inversion.attacks] != wanted:
        READER.refuse(path, "lacks an attack of an audit")
    tables = [inversion.label_alone, *(t for one in inversion.attacks for t in (one.correlation, one.beyond_label))]
    if any(set(table) != set(MODALITIES) for table in tables):
        READER.refuse(path, f"an attack must have a correlation of each of {', '.join(MODALITIES)}")
    if (found := summary.membership) and found.is_too_small == bool(found.scores):
        READER.refuse(path, "membership must have scores where the patients are enough to say, and there alone")
    return summary


def as_text(summary: Summary) -> str:
    """The file's content."""
    return json.dumps(asdict(summary), indent=1) + "\n"


def write_summary(path: Path, summary: Summary) -> None:
    """Write ``audit.json``; the file appears whole or not at all."""
    write_whole(path, as_text(summary))
