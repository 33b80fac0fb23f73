"""The voxels of a case, read once, and the rules that look at one scan at a time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from brats_fl.cases.datalists import Case, scans_of
from brats_fl.cases.grids import Grid
from brats_fl.cases.regions import round_nearly_whole
from brats_fl.cases.scan_values import PERHAPS_HOT, SURELY_HOT, background_of, describe_reach, reach_of
from brats_fl.cases.scans import VolumeReader, count_not_finite
from brats_fl.constants import LABEL
from brats_fl.errors import ScanError
from brats_fl.gate.findings import Finding
from brats_fl.gate.headers import file_finding
from brats_fl.sharing.fingerprints import describe_scan

THIN_MM: Final = 2.0
"""Rules that compare regions look at every voxel of a 2 mm sample, every second one of a 1 mm scan."""

SATURATED_SHARE: Final = 0.005
"""Of the brain. A sound scan has 1 in 100,000 voxels at its maximum; clipped at its 99th percentile it has 1 in 100."""

_UNUSABLE: Final = ("G21-not-finite", "G22-constant")


@dataclass(frozen=True)
class ThinCase:
    """Scans and label of a case on a grid of about 2 mm, all of one shape (X, Y, Z)."""

    scans: Mapping[str, NDArray[np.float32]]
    """Modality -> intensities; only the modalities that can be used."""
    brains: Mapping[str, NDArray[np.bool_]]
    """Modality -> where the scan is not its background."""
    label: NDArray[Any] | None
    """Values of the file."""
    spacing_mm: NDArray[np.float64]
    """Voxel size of this grid."""

    @property
    def brain(self) -> NDArray[np.bool_]:
        """Where all scans show brain."""
        return np.logical_and.reduce(list(self.brains.values()))


class LabelValues(NamedTuple):
    """What a label holds; values that are nearly whole count as whole."""

    values: NDArray[Any]
    """Sorted."""
    counts: NDArray[np.int64]
    """Voxels that have each."""


@dataclass(frozen=True)
class ReadCase:
    """What reading a case's voxels gave."""

    findings: list[Finding]
    thin: ThinCase
    backgrounds: dict[str, float]
    """Modality -> value outside the brain."""
    looks: dict[str, bytes]
    """Modality -> ``fingerprints.describe_scan``."""
    label_values: LabelValues | None
    """What the label holds."""


def read_case(case: Case, grids: Mapping[str, Grid], main: Grid) -> ReadCase:
    """Read the sound files of a case, one after the other, and check each scan by itself.

    Args:
        case: The case.
        grids: Scan -> its grid, as ``check_case_headers`` found them, one at least; others are not read.
        main: The grid that most of them have. It says which voxels are in the sample: a scan whose header states
            another spacing has as many voxels, and its sample must be as large to be compared.
    """
    findings: list[Finding] = []
    scans: dict[str, NDArray[np.float32]] = {}
    backgrounds: dict[str, float] = {}
    looks: dict[str, bytes] = {}
    label = label_values = None
    reader, steps = VolumeReader(), thin_steps(main)
    for name, scan in scans_of(case).items():
        if name not in grids:
            continue
        try:
            voxels = reader.read(scan).voxels
        except ScanError as error:
            findings.append(file_finding(error, case.case, name))
            continue
        thin = voxels[steps]
        if name == LABEL:
            label, label_values = np.ascontiguousarray(thin), count_values(voxels)
            continue
        faults = scan_faults(voxels, thin)
        findings += [Finding(rule, found, case.case, name) for rule, found in faults]
        if not any(rule in _UNUSABLE for rule, _ in faults):
            findings += check_reach(case.case, name, voxels)
            scans[name] = np.ascontiguousarray(thin, dtype=np.float32)
            backgrounds[name] = background_of(voxels)
            looks[name] = describe_scan(voxels, grids[name].affine)
    brains = {name: scan != np.float32(backgrounds[name]) for name, scan in scans.items()}
    spacing_mm = main.spacing_mm * [step.step for step in steps]
    return ReadCase(findings, ThinCase(scans, brains, label, spacing_mm), backgrounds, looks, label_values)


def thin_steps(grid: Grid) -> tuple[slice, ...]:
    """Slices that take every voxel of a grid of about 2 mm."""
    steps = np.maximum(1, np.rint(THIN_MM / grid.spacing_mm)).astype(int)
    return tuple(slice(None, None, int(step)) for step in steps)


def count_values(voxels: NDArray[Any]) -> LabelValues:
    """Values that a label holds, and how often."""
    if voxels.dtype.kind in "iu" and voxels.size and voxels.min() >= 0 and voxels.max() < 256:
        # Many times as fast as sorting nine million voxels.
        counts = np.bincount(voxels.ravel(order="K").astype(np.uint8))
        values = np.flatnonzero(counts)
        return LabelValues(values, counts[values])
    return LabelValues(*np.unique(round_nearly_whole(voxels), return_counts=True))


def scan_faults(voxels: NDArray[Any], thin: NDArray[Any]) -> list[tuple[str, str]]:
    """Rules that a scan breaks by its values alone: ``(rule, what was found)``.

    Args:
        voxels: All of it, (H, W, D).
        thin: A part of it, evenly spread, to count in.
    """
    if count := count_not_finite(voxels):
        return [("G21-not-finite", f"{count} voxels are NaN or infinite")]
    low, high = float(voxels.min()), float(voxels.max())
    brain = thin[thin != background_of(voxels)]
    if low == high or brain.size < 0.01 * thin.size or brain.min() == brain.max():
        what = f"every voxel is {low:g}" if low == high else "all but the background is one value, or nearly nothing"
        return [("G22-constant", what)]
    faults = []
    if low < 0:
        share = np.count_nonzero(brain < 0) / brain.size
        faults.append(("G23-negative", f"goes down to {low:g}; {share:.1%} of the brain is negative"))
    saturated = np.count_nonzero(brain == high) / brain.size
    if saturated > SATURATED_SHARE:
        faults.append(("G24-saturated", f"{saturated:.1%} of the brain has the highest value, {high:g}"))
    return faults


def check_reach(case: str, name: str, voxels: NDArray[Any]) -> list[Finding]:
    """A scan with voxels far beyond all others."""
    reach = reach_of(voxels)
    if reach <= PERHAPS_HOT:
        return []
    return [Finding("G27-hot-voxels", describe_reach(reach), case, name, doubtful=reach <= SURELY_HOT)]
