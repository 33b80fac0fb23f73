"""The page of a statistics job: five hospitals side by side, from what each released."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes

from brats_fl.constants import MODALITIES, REGIONS
from brats_fl.errors import RunError
from brats_fl.reading import Reader
from brats_fl.round_records import RECORDS_FILE, read_records
from brats_fl.sharing.case_features import FEATURES, Feature, feature_of
from brats_fl.sharing.site_statistics import Protection
from brats_fl_tools.pages.diagrams import Diagram
from brats_fl_tools.pages.formats import REGION_NAMES
from brats_fl_tools.pages.svg import MARKERS, MUTED, PALETTE, SURFACE, draw, legend_below
from brats_fl_tools.pages.templates import page_environment
from brats_fl_tools.runs.folder import RUN_FILE

STATISTICS_FILE = "statistics.json"
READER = Reader(RunError, "give the run folder of a job brats_statistics of this release")
DATASET = "cases"
"""As in ``brats_fl.components.statistics``, which is not imported here: it would bring all of FLARE along."""

T = TypeVar("T")

ALL = "Global"
"""FLARE's name for all hospitals together."""

GREY_ALPHA = 0.45
DODGE = 0.14
"""Of a bin's width, between the points of two hospitals in it."""

CHANCE = 0.05
"""That noise alone lifts any bin of a hospital's release, without a case in it, above the level up to which bins are
grey."""

RELEASED_BINS = sum(feature.bins for feature in FEATURES)

FEWEST_CASES = 20
"""At a noise of one case: with fewer, means are mostly noise (``docs/statistics.md``); in proportion at more noise."""


@dataclass(frozen=True)
class Column:
    """A hospital, or all together."""

    site: str
    cases: int
    means: Mapping[str, float]
    deviations: Mapping[str, float]
    histograms: Mapping[str, Sequence[float]]
    noise_scale: float | None = None
    """Of the Laplace noise in each bin, in cases; None where the hospital did not tell, as with earlier releases."""

    @property
    def is_noise(self) -> bool:
        """Whether its means are mostly noise, for lack of cases."""
        return self.cases < FEWEST_CASES * (self.noise_scale or 1.0)


def render_statistics(run: Path) -> str:
    """The page's text.

    Raises:
        RunError: A file of the run is missing or wrong.
    """
    records = read_records(run / RECORDS_FILE)
    columns = read_statistics(run / STATISTICS_FILE, read_noise(records))
    hospitals = [column for column in columns if column.site != ALL]
    refused = {record["site"]: record["status"] for record in records if record["status"] != "ok"}
    template = page_environment().get_template("statistics_page.html")
    return template.render(
        facts=READER.json_object(run / RUN_FILE),
        hospitals=hospitals,
        all=next(column for column in columns if column.site == ALL),
        refused=refused,
        scales=sorted({column.noise_scale for column in hospitals if column.noise_scale is not None}),
        noise_ceiling=noise_ceiling,
        chance=CHANCE,
        modalities=MODALITIES,
        regions=REGIONS,
        region_names=REGION_NAMES,
        intensities=[histogram_diagram(feature_of(name), hospitals) for name in MODALITIES],
        volumes=[histogram_diagram(feature_of(f"{region}_ml"), hospitals) for region in REGIONS],
        spacing=histogram_diagram(feature_of("voxel_mm"), hospitals),
    )


def read_noise(records: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Hospital -> scale of its noise in cases, from the epsilon that it told; without those that told none."""
    return {
        record["site"]: Protection(epsilon=record["epsilon"]).noise_scale for record in records if "epsilon" in record
    }


def noise_ceiling(scale: float) -> float:
    """Cases in a bin up to which noise alone may have put them there.

    Args:
        scale: Of the Laplace noise, in cases.

    Returns:
        The level that any bin of a hospital's whole release passes without a case in it with a probability of at most
        ``CHANCE``: one bin passes t with exp(-t / scale) / 2, and that times the number of bins bounds it for all
        (Boole's inequality). For one histogram it would be lower, but a page shows eight of each hospital.
    """
    return scale * float(np.log(RELEASED_BINS / (2 * CHANCE)))


def read_statistics(path: Path, noise: Mapping[str, float] = MappingProxyType({})) -> list[Column]:
    """Hospitals in the order of their names, then all together, from the file that FLARE's server wrote.

    Args:
        path: The file.
        noise: Hospital -> scale of its noise, of those that told it.

    Raises:
        RunError: The file is missing, or not of the present release.
    """
    content = READER.json_object(path)
    listed = READER.at(dict, content, [FEATURES[0].name, "count"], path)
    sites = sorted(listed, key=lambda site: (site == ALL, site))
    if ALL not in listed:
        READER.refuse(path, f"has no {ALL}, all hospitals together")
    return [_read_column(path, content, site, noise.get(site)) for site in sites]


def _read_column(path: Path, content: Mapping[str, Any], site: str, noise_scale: float | None) -> Column:
    def values(statistic: str, kind: type[T]) -> dict[str, T]:
        keys = {feature.name: [feature.name, statistic, site, DATASET] for feature in FEATURES}
        return {name: READER.at(kind, content, where, path) for name, where in keys.items()}

    histograms = {}
    for feature in FEATURES:
        bins = values("histogram", list[list[float]])[feature.name]
        if len(bins) != feature.bins or any(len(one) != 3 or one[2] < 0 for one in bins):
            READER.refuse(path, f"{feature.name}: histogram of {site} must have {feature.bins} bins: from, to, count")
        histograms[feature.name] = [count for _, _, count in bins]
    count = values("count", int)[FEATURES[0].name]
    return Column(site, count, values("mean", float), values("stddev", float), histograms, noise_scale)


def stands_out(counts: Sequence[float], noise_scale: float | None) -> npt.NDArray[np.bool_]:
    """Which bins have more than noise alone may have put there; all that are not empty where the noise is not known."""
    values = np.asarray(counts, dtype=np.float64)
    return values > (0.0 if noise_scale is None else noise_ceiling(noise_scale))


def histogram_diagram(feature: Feature, hospitals: Sequence[Column]) -> Diagram:
    """Share of each hospital's cases in each bin: points with the noise's standard deviation, grey where it may be all.

    No line joins the points: it would draw a shape where there is noise.
    """

    def paint(axes: Axes) -> None:
        for index, hospital in enumerate(hospitals):
            _paint_hospital(axes, feature, hospital, index, len(hospitals))
        axes.plot([], [], ".", color=MUTED, alpha=GREY_ALPHA, label="may be noise alone")
        axes.set_ylim(bottom=0)
        axes.set_ylabel("Share of cases")
        if feature.name in MODALITIES:
            ticks = np.arange(feature.low, feature.high + 1, 2)
            axes.set_xticks(ticks, [f"{2**tick:,.0f}" for tick in ticks])
            axes.set_xlabel("Intensity in the brain, as the files have it")
        else:
            axes.set_xlabel(feature.unit)
        legend_below(axes)

    title = {
        **{name: f"Intensities, {name}" for name in MODALITIES},
        **{f"{region}_ml": f"{REGION_NAMES[region].capitalize()} volume" for region in REGIONS},
        "voxel_mm": "Voxel spacing",
    }[feature.name]
    means = "; ".join(
        f"{hospital.site}: mean {hospital.means[feature.name]:.3g}, {_count_standing(feature, hospital)}"
        for hospital in hospitals
    )
    return Diagram(draw(f"statistics-{feature.name}", f"{title} in {feature.unit}. {means}", paint), title, "")


def _paint_hospital(axes: Axes, feature: Feature, hospital: Column, index: int, count: int) -> None:
    counts = np.asarray(hospital.histograms[feature.name], dtype=np.float64)
    whole = max(counts.sum(), 1e-9)
    width = (feature.high - feature.low) / feature.bins
    places = feature.middles + (index - (count - 1) / 2) * DODGE * width
    seen = stands_out(hospital.histograms[feature.name], hospital.noise_scale)
    grey = ~seen & (counts > 0)
    axes.plot(places[grey], counts[grey] / whole, ".", color=MUTED, alpha=GREY_ALPHA, zorder=1.5)
    spread = np.sqrt(2) * (hospital.noise_scale or 0.0) / whole  # a Laplace variable's deviation is its scale x root 2
    axes.errorbar(
        places[seen],
        counts[seen] / whole,
        yerr=np.full(np.count_nonzero(seen), spread),
        linestyle="none",
        elinewidth=0.8,
        color=PALETTE[index % len(PALETTE)],
        marker=MARKERS[index % len(MARKERS)],
        markeredgecolor=SURFACE,
        label=hospital.site,
    )


def _count_standing(feature: Feature, hospital: Column) -> str:
    seen = stands_out(hospital.histograms[feature.name], hospital.noise_scale)
    return f"{np.count_nonzero(seen)} of {feature.bins} bins above the noise"
