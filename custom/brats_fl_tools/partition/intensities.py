"""How bright a hospital's scans are, and what is left of it after normalisation: from a few cases of each."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import nibabel
import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track

from brats_fl.cases.scans import split_volume, volume_fault
from brats_fl.constants import MODALITIES
from brats_fl.errors import CaseError
from brats_fl_tools.data.scan_headers import READ_ERRORS

EDGES = np.linspace(-3, 4, 57)
"""Of the histogram's bins, in standard deviations from the mean of the brain."""

STEP = 7
"""Every seventh voxel of the brain is enough for a histogram: some 200,000 of a 1 mm scan."""

Histogram = NDArray[np.float64]


@dataclass(frozen=True)
class Intensities:
    """Of one modality at one hospital, means over its cases."""

    median: float
    """Median intensity in the brain, as the files have it."""
    density: Histogram
    """Probability per standard deviation in the bins of ``EDGES``, of the brain scaled to mean 0 and deviation 1."""


def measure_sites(scans: Mapping[str, Sequence[Sequence[Path]]]) -> dict[str, dict[str, Intensities]]:
    """Site -> modality -> intensities.

    Args:
        scans: Site -> cases -> the four scans in the order of ``MODALITIES``.

    Raises:
        CaseError: A scan cannot be read.
    """
    jobs = [
        (site, modality, scan)
        for site, cases in scans.items()
        for case in cases
        for modality, scan in zip(MODALITIES, case, strict=True)
    ]
    console = Console(stderr=True)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        found = pool.map(lambda job: measure(job[2]), jobs)
        measured = list(
            track(found, "reading a few scans", total=len(jobs), console=console, disable=not console.is_terminal)
        )
    of_site: dict[str, dict[str, Intensities]] = {site: {} for site in scans}
    for site, modality in {(site, modality) for site, modality, _ in jobs}:
        own = [m for m, (s, name, _) in zip(measured, jobs, strict=True) if (s, name) == (site, modality)]
        medians, densities = [m.median for m in own], [m.density for m in own]
        of_site[site][modality] = Intensities(float(np.mean(medians)), np.mean(densities, axis=0))
    return of_site


def measure(scan: Path) -> Intensities:
    """Intensities of one scan, 0 being background.

    Raises:
        CaseError: The scan cannot be read, or is empty.
    """
    file, number = split_volume(scan)
    try:
        image = nibabel.load(file)
        if fault := volume_fault(image.shape, number, file):
            raise CaseError(f"{scan.name} {fault}")
        voxels = np.asanyarray(image.dataobj if number is None else image.dataobj[..., number]).ravel(order="K")
    except READ_ERRORS as error:
        raise CaseError(f"{file} cannot be read ({error}); download or copy it again") from error
    brain = voxels[voxels != 0][::STEP].astype(np.float32)
    if not brain.size:
        raise CaseError(f"{file} is empty, all its voxels are 0; replace it")
    scaled = (brain - brain.mean()) / max(float(brain.std()), 1e-6)
    counts, _ = np.histogram(scaled, EDGES)
    return Intensities(float(np.median(brain)), counts / (brain.size * np.diff(EDGES)))
