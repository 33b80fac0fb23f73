"""How bright a hospital's scans are, and what is left of it after normalisation: from a few cases of each."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track

from brats_fl.cases.datalists import Case
from brats_fl.cases.scans import read_volumes
from brats_fl.constants import MODALITIES

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


def measure_sites(cases: Mapping[str, Sequence[Case]]) -> dict[str, dict[str, Intensities]]:
    """Site -> modality -> intensities.

    Args:
        cases: Site -> cases whose scans are read.

    Raises:
        CaseError: A scan cannot be read, is constant or not finite, or the scans of a case differ in their grids.
    """
    jobs = [(site, case) for site, own in cases.items() for case in own]
    console = Console(stderr=True)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        found = pool.map(lambda job: measure_case(job[1]), jobs)
        measured = list(
            track(found, "reading a few cases", total=len(jobs), console=console, disable=not console.is_terminal)
        )
    of_site: dict[str, dict[str, Intensities]] = {}
    for site in cases:
        own = [intensities for intensities, (name, _) in zip(measured, jobs, strict=True) if name == site]
        of_site[site] = {modality: _mean([case[modality] for case in own]) for modality in MODALITIES}
    return of_site


def _mean(found: Sequence[Intensities]) -> Intensities:
    return Intensities(float(np.mean([one.median for one in found])), np.mean([one.density for one in found], axis=0))


def measure_case(case: Case) -> dict[str, Intensities]:
    """Modality -> intensities of a case; raises as ``measure_sites``."""
    scans = dict(zip(MODALITIES, case.image, strict=True))
    return {name: measure(volume.voxels) for name, volume in read_volumes(case.case, scans)}


def measure(voxels: NDArray[Any]) -> Intensities:
    """Intensities of one scan, 0 being background.

    Args:
        voxels: (H, W, D), finite, one of them at least not 0.
    """
    flat = voxels.ravel(order="K")
    brain = flat[flat != 0][::STEP].astype(np.float32)
    scaled = (brain - brain.mean()) / max(float(brain.std()), 1e-6)
    counts, _ = np.histogram(scaled, EDGES)
    return Intensities(float(np.median(brain)), counts / (brain.size * np.diff(EDGES)))
