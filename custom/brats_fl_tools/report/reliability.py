"""Reliability diagram: what the network's probabilities say, and what comes true, from the bins of an evaluation."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
from matplotlib.axes import Axes

from brats_fl.constants import REGIONS
from brats_fl.errors import RunError
from brats_fl.reading import Reader
from brats_fl.scoring.calibration import NEAR_TUMOUR_MM, Bin, Reliability
from brats_fl.typed import shorten
from brats_fl_tools.pages.diagrams import Diagram
from brats_fl_tools.pages.formats import REGION_NAMES
from brats_fl_tools.pages.svg import MARKERS, MUTED, PALETTE, draw, legend_below
from brats_fl_tools.report.run_facts import RELIABILITY

Bins = dict[str, dict[str, list[Bin]]]

READER: Final = Reader(RunError, "evaluate again")


def pool_reliability(evaluations: Iterable[tuple[Path, Mapping[str, Any]]]) -> dict[str, Reliability]:
    """Region -> the voxels of all hospitals and evaluations together; empty where no evaluation counted them.

    Args:
        evaluations: Place, for messages, and content of each ``evaluation.json``.

    Raises:
        RunError: Its bins are none.
    """
    pooled: dict[str, Reliability] = {}
    for place, evaluation in evaluations:
        for regions in READER.typed(Bins, evaluation.get(RELIABILITY, {}), place, RELIABILITY).values():
            for region, bins in regions.items():
                found = _as_reliability(place, region, bins)
                pooled[region] = pooled[region] + found if region in pooled else found
    return {region: pooled[region] for region in REGIONS if region in pooled}


def _as_reliability(place: Path, region: str, bins: list[Bin]) -> Reliability:
    if region not in REGIONS:
        READER.refuse(place, f"{RELIABILITY}: region must be one of {', '.join(REGIONS)} (got {shorten(region)})")
    try:
        return Reliability.of_bins(bins)
    except ValueError as error:
        READER.refuse(place, f"{RELIABILITY} of {region}: {error}")


def draw_reliability(name: str, pooled: Mapping[str, Reliability], model: str = "") -> list[Diagram]:
    """The diagram, or none where nothing was counted.

    Args:
        name: Makes it the page's own.
        pooled: Region -> its voxels by their probability.
        model: Whose they are, where there are several diagrams.
    """
    errors = {region: error for region, one in pooled.items() if (error := one.expected_error()) is not None}
    if not errors:
        return []
    said = ", ".join(f"{region.upper()} {error:.3f}" for region, error in errors.items())
    title = f"Reliability of the probabilities{f', {model}' if model else ''}"
    caption = (
        f"Brain within {NEAR_TUMOUR_MM:g} mm of the tumour, all cases together, ten bins. On the dotted line what the "
        "network says comes true; below it the network promises too much, above it too little. Calibration error over "
        f"these voxels: {said}."
    )

    def paint(axes: Axes) -> None:
        axes.plot([0, 1], [0, 1], color=MUTED, linestyle=":", linewidth=1)
        for place, region in enumerate(errors):
            points = [(one.mean_probability, one.share) for one in pooled[region].bins() if one.voxels]
            axes.plot(
                *np.array(points, dtype=np.float64).T,
                color=PALETTE[place],
                marker=MARKERS[place],
                label=REGION_NAMES[region],
            )
        axes.set_xlim(-0.02, 1.02)
        axes.set_ylim(-0.02, 1.02)
        axes.set_xlabel("Mean probability that the network gives")
        axes.set_ylabel("Share that is of the region")
        legend_below(axes)

    return [Diagram(draw(name, f"{title}. Calibration error: {said}", paint), title, caption)]
