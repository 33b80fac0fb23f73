"""The page of a statistics job: five hospitals side by side, from what each released."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from brats_fl.constants import MODALITIES, REGIONS
from brats_fl.errors import RunError
from brats_fl.round_records import RECORDS_FILE, read_records
from brats_fl.sharing.case_features import FEATURES, Feature, feature_of
from brats_fl_tools.pages.diagrams import Diagram
from brats_fl_tools.pages.formats import REGION_NAMES
from brats_fl_tools.pages.svg import MARKERS, PALETTE, SURFACE, draw, legend_below
from brats_fl_tools.pages.templates import page_environment
from brats_fl_tools.runs.folder import RUN_FILE

STATISTICS_FILE = "statistics.json"
DATASET = "cases"
"""As in ``brats_fl.components.statistics``, which is not imported here: it would bring all of FLARE along."""

ALL = "Global"
"""FLARE's name for all hospitals together."""


@dataclass(frozen=True)
class Column:
    """A hospital, or all together."""

    site: str
    cases: int
    means: Mapping[str, float]
    deviations: Mapping[str, float]
    histograms: Mapping[str, Sequence[float]]


def render_statistics(run: Path) -> str:
    """The page's text.

    Raises:
        RunError: A file of the run is missing or wrong.
    """
    columns = read_statistics(run / STATISTICS_FILE)
    hospitals = [column for column in columns if column.site != ALL]
    refused = {record["site"]: record["status"] for record in read_records(run / RECORDS_FILE)}
    template = page_environment().get_template("statistics_page.html")
    return template.render(
        facts=_read(run / RUN_FILE),
        hospitals=hospitals,
        all=next(column for column in columns if column.site == ALL),
        refused=refused,
        modalities=MODALITIES,
        regions=REGIONS,
        region_names=REGION_NAMES,
        intensities=[histogram_diagram(feature_of(name), hospitals) for name in MODALITIES],
        volumes=[histogram_diagram(feature_of(f"{region}_ml"), hospitals) for region in REGIONS],
        spacing=histogram_diagram(feature_of("voxel_mm"), hospitals),
    )


def read_statistics(path: Path) -> list[Column]:
    """Hospitals in the order of their names, then all together, from the file that FLARE's server wrote.

    Raises:
        RunError: The file is missing, or not of the present release.
    """
    content = _read(path)
    try:
        sites = sorted(content[FEATURES[0].name]["count"], key=lambda site: (site == ALL, site))
        return [_read_column(content, site) for site in sites]
    except (KeyError, TypeError, IndexError) as error:
        raise RunError(f"{path}: {error!r} is missing; run the job with this version of brats-fl") from error


def _read_column(content: Mapping[str, Any], site: str) -> Column:
    def values(statistic: str) -> dict[str, Any]:
        return {feature.name: content[feature.name][statistic][site][DATASET] for feature in FEATURES}

    histograms = {name: [count for _, _, count in bins] for name, bins in values("histogram").items()}
    return Column(site, int(values("count")[FEATURES[0].name]), values("mean"), values("stddev"), histograms)


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RunError(f"{path}: cannot be read ({error}); give the run folder of a job brats_statistics") from error


def histogram_diagram(feature: Feature, hospitals: Sequence[Column]) -> Diagram:
    """Share of each hospital's cases in each bin."""

    def paint(axes: Axes) -> None:
        for index, hospital in enumerate(hospitals):
            counts = np.asarray(hospital.histograms[feature.name])
            axes.plot(
                feature.middles,
                counts / max(counts.sum(), 1e-9),
                color=PALETTE[index % len(PALETTE)],
                marker=MARKERS[index % len(MARKERS)],
                markeredgecolor=SURFACE,
                label=hospital.site,
            )
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
    means = "; ".join(f"{hospital.site}: mean {hospital.means[feature.name]:.3g}" for hospital in hospitals)
    return Diagram(draw(f"statistics-{feature.name}", f"{title}. {means} {feature.unit}", paint), title, "")
