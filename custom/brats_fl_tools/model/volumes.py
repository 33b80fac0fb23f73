"""Volumes of predicted masks, and the table of a segmentation: a row a case."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from brats_fl.cases.regions import to_library_labels
from brats_fl.cases.scans import VolumeReader
from brats_fl.constants import ED, NCR, REGION_LABELS
from brats_fl.gate import Finding
from brats_fl.segmenting import Outcome

LABELS = {"ncr": NCR, "ed": ED}
"""The label values that are no region by themselves; the enhancing tumour is one."""

VOLUME_COLUMNS = (*(f"{region}_ml" for region in ("wt", "tc", "et")), *(f"{label}_ml" for label in LABELS))
COLUMNS = ("case", "status", *VOLUME_COLUMNS, "findings", "failed_at", "reason")


@dataclass(frozen=True)
class SegmentedCase:
    """What became of a case, what the gate found in it, and its mask's volumes."""

    outcome: Outcome
    findings: Sequence[Finding] = ()
    volumes_ml: Mapping[str, float] | None = None
    """Of ``VOLUME_COLUMNS``; None where there is no mask."""


def measure_mask(mask: Path, labels: str) -> dict[str, float]:
    """Volumes of a mask in ml, as ``VOLUME_COLUMNS``.

    Args:
        mask: Its file.
        labels: The convention of its values.

    Raises:
        CaseError: It cannot be read, or holds other values.
    """
    volume = VolumeReader().read(mask)
    counts = np.bincount(to_library_labels(volume.voxels, labels).ravel(), minlength=4)
    parts = {**{name: REGION_LABELS[name] for name in ("wt", "tc", "et")}, **{k: (v,) for k, v in LABELS.items()}}
    return {f"{name}_ml": float(counts[list(values)].sum()) * volume.grid.voxel_ml for name, values in parts.items()}


def as_table(cases: Sequence[SegmentedCase]) -> str:
    """The table as CSV, volumes in ml to 3 digits; empty where there is no mask."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    for case in cases:
        volumes = {name: f"{value:.3f}" for name, value in (case.volumes_ml or {}).items()}
        rules = sorted({finding.rule for finding in case.findings})
        own = {"case": case.outcome.case, "status": case.outcome.status, "findings": " ".join(rules)}
        writer.writerow({**own, **volumes, "failed_at": case.outcome.step, "reason": case.outcome.reason})
    return text.getvalue()
