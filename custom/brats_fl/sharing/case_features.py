"""What statistics count of a case: intensities, tumour volumes and voxel sizes, each as a histogram that sums to 1."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from brats_fl.cases.datalists import Case, scans_of
from brats_fl.cases.regions import to_library_labels
from brats_fl.cases.scans import Volume, read_volumes
from brats_fl.constants import LABEL, MODALITIES, REGION_LABELS, REGIONS
from brats_fl.errors import CaseError

Histogram = NDArray[np.float64]


@dataclass(frozen=True)
class Feature:
    """A property of cases with a range that is fixed, so that no hospital's extremes show in it."""

    name: str
    unit: str
    low: float
    high: float
    bins: int

    @property
    def edges(self) -> NDArray[np.float64]:
        """Edges of the bins, (bins + 1,)."""
        return np.linspace(self.low, self.high, self.bins + 1, dtype=np.float64)

    @property
    def middles(self) -> NDArray[np.float64]:
        """Middles of the bins, (bins,)."""
        return np.asarray((self.edges[1:] + self.edges[:-1]) / 2, dtype=np.float64)


LARGEST_ML: Final = {"tc": 160, "wt": 320, "et": 160}

FEATURES: Final = (
    # Scanners differ by factors: medians of the brain are 80 to 8,000 in scans of five institutions. Half octaves.
    *(Feature(modality, "log2 of the intensity in the brain", 4, 16, 24) for modality in MODALITIES),
    *(Feature(f"{region}_ml", "ml", 0, LARGEST_ML[region], 16) for region in REGIONS),
    # Quarters of a millimetre, 1 mm in the middle of a bin.
    Feature("voxel_mm", "mm", 0.125, 6.125, 24),
)
"""What is counted, the same in every hospital and job; what lies outside a range counts in the bin at its end."""


def measure_case(case: Case) -> dict[str, Histogram]:
    """Feature -> a case's histogram, which sums to 1.

    Raises:
        CaseError: A file cannot be read, a scan is empty or not finite, the files' grids differ, or a label has a value
            that its convention lacks.
    """
    found: dict[str, Histogram] = {}
    scans = scans_of(case)
    for name, volume in read_volumes(case.case, scans):  # one scan in memory
        try:
            of_scan = measure_label(volume, case.labels) if name == LABEL else {name: measure_scan(volume, name)}
        except CaseError as error:
            raise CaseError(f"{case.case}: {name}: {error} ({scans[name]})") from None
        found |= of_scan
        found["voxel_mm"] = share(volume.grid.spacing_mm, feature_of("voxel_mm"))
    return found


def measure_scan(volume: Volume, modality: str) -> Histogram:
    """How the voxels of a brain are shared out over intensities."""
    brain = volume.voxels[volume.voxels != 0]
    if not brain.size:
        raise CaseError("is empty, all its voxels are 0; replace the scan")
    return share(np.log2(np.maximum(brain, 1)), feature_of(modality))


def measure_label(volume: Volume, table: str) -> dict[str, Histogram]:
    """Volume of each region, a histogram with one value."""
    label = to_library_labels(volume.voxels, table)
    part_ml = {part: np.count_nonzero(label == part) * volume.grid.voxel_ml for part in REGION_LABELS["wt"]}
    found: dict[str, Histogram] = {}
    for region in REGIONS:
        ml = sum(part_ml[part] for part in REGION_LABELS[region])
        found[f"{region}_ml"] = share(np.array([ml]), feature_of(f"{region}_ml"))
    return found


def share(values: NDArray[Any], feature: Feature) -> Histogram:
    """Histogram of values in a feature's bins, which sums to 1."""
    inside = np.clip(values, feature.low, np.nextafter(feature.high, feature.low))
    return np.histogram(inside, feature.edges)[0] / values.size


def feature_of(name: str) -> Feature:
    """The feature of this name."""
    return next(feature for feature in FEATURES if feature.name == name)
