"""``partition.html``: what the hospitals of a partition look like, in one page that opens without a network."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from brats_fl.cases.datalists import DATALIST_FILE, Case, read_datalist
from brats_fl.constants import MODALITIES, SPLITS
from brats_fl_tools.data.case_table import GRADES, CaseRow
from brats_fl_tools.pages.diagrams import Diagram, paint_strips, stack_bars
from brats_fl_tools.pages.formats import format_count
from brats_fl_tools.pages.svg import MARKERS, PALETTE, SURFACE, draw, legend_below
from brats_fl_tools.pages.templates import page_environment
from brats_fl_tools.partition.intensities import EDGES, Intensities, measure_sites
from brats_fl_tools.partition.plan import OWN_STRATEGY, Partition
from brats_fl_tools.partition.strategies import shuffle_names

CASES_MEASURED = 5
"""Cases of a hospital whose scans are read: enough to tell scanners apart, and read in seconds."""

UNKNOWN = "unknown"


@dataclass(frozen=True)
class HospitalRow:
    """A hospital's line of the table."""

    site: str
    left_out: bool
    patients: int
    cases: dict[str, int]
    grades: dict[str, int]
    tumour_ml: list[float]
    """Lower quartile, median and upper quartile of the whole tumour; empty where a volume is not known."""
    brightness: dict[str, float]
    """Modality -> median intensity in the brain."""
    institutions: dict[str, int]
    shift: float


def render_page(partition: Partition, manifest: Mapping[str, Any], folders: Mapping[str, Path]) -> str:
    """The page's text.

    Args:
        partition: Who has which case.
        manifest: Content of ``partition.json``.
        folders: Site -> folder of its data list; scans altered for the site are read in place of the originals.

    Raises:
        CaseError: A scan cannot be read.
    """
    measured = measure_sites(_choose_cases(manifest["options"]["seed"], folders))
    hospitals = [describe(partition, datalist.site, measured[datalist.site]) for datalist in partition.datalists]
    template = page_environment().get_template("partition_page.html")
    return template.render(
        manifest=manifest,
        options=_list_options(manifest["options"]),
        hospitals=hospitals,
        totals={split: sum(hospital.cases[split] for hospital in hospitals) for split in SPLITS},
        patients=sum(hospital.patients for hospital in hospitals),
        shifted=bool(partition.shifts),
        unlabelled=len(partition.unlabelled),
        shapes=[cases_diagram(hospitals), *grades_diagram(hospitals), *volumes_diagram(partition)],
        intensities=[intensity_diagram(modality, measured) for modality in MODALITIES],
        modalities=MODALITIES,
        splits=SPLITS,
        with_grades=any(set(hospital.grades) != {UNKNOWN} for hospital in hospitals),
        cases_measured=CASES_MEASURED,
    )


def _list_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options that had a say."""
    of_others = {name for name, strategy in OWN_STRATEGY.items() if strategy.value != options["strategy"]}
    return {name: value for name, value in options.items() if value is not None and name not in of_others}


def _choose_cases(seed: int, folders: Mapping[str, Path]) -> dict[str, list[Case]]:
    """Site -> a few cases, drawn by the seed."""
    chosen = {}
    for site, folder in folders.items():
        datalist = read_datalist(folder / DATALIST_FILE)
        cases = {case.case: case for split in SPLITS for case in datalist.split(split)}
        names = shuffle_names(cases, seed, "page")[:CASES_MEASURED]
        chosen[site] = [cases[name] for name in names]
    return chosen


def describe(partition: Partition, site: str, measured: Mapping[str, Intensities]) -> HospitalRow:
    """Counts and medians of a hospital."""
    rows = partition.cases[site]
    datalist = next(datalist for datalist in partition.datalists if datalist.site == site)
    volumes = _volumes(rows)
    return HospitalRow(
        site=site,
        left_out=site == partition.leave_out,
        patients=len({row.patient for row in rows}),
        cases={split: len(datalist.split(split)) for split in SPLITS},
        grades=dict(Counter(row.grade or UNKNOWN for row in rows)),
        tumour_ml=np.percentile(volumes, (25, 50, 75)).tolist() if volumes else [],
        brightness={modality: measured[modality].median for modality in MODALITIES},
        institutions=partition.institutions(site),
        shift=partition.shifts.get(site, 0.0),
    )


def _volumes(rows: Sequence[CaseRow]) -> list[float]:
    """Tumour volumes in ml; empty where one is not known."""
    volumes = [row.tumour_ml for row in rows if row.tumour_ml is not None]
    return volumes if len(volumes) == len(rows) else []


def cases_diagram(hospitals: Sequence[HospitalRow]) -> Diagram:
    """Cases of each hospital by split."""
    stacks = {split: [hospital.cases[split] for hospital in hospitals] for split in SPLITS}
    return _bars("cases", "Cases per hospital", "Labelled cases, by what they are for.", hospitals, stacks)


def grades_diagram(hospitals: Sequence[HospitalRow]) -> list[Diagram]:
    """Cases of each hospital by grade; nothing where no grade is known."""
    known = [name for name in (*GRADES, UNKNOWN) if any(name in hospital.grades for hospital in hospitals)]
    others = sorted({name for hospital in hospitals for name in hospital.grades} - set(known))
    if known == [UNKNOWN] and not others:
        return []
    stacks = {name: [hospital.grades.get(name, 0) for hospital in hospitals] for name in (*known, *others)}
    return [_bars("grades", "Grades", "High-grade (HGG) and low-grade (LGG) gliomas.", hospitals, stacks)]


def _bars(
    name: str, title: str, caption: str, hospitals: Sequence[HospitalRow], stacks: Mapping[str, Sequence[int]]
) -> Diagram:
    def paint(axes: Axes) -> None:
        stack_bars(axes, range(len(hospitals)), stacks, {})
        axes.set_xticks(range(len(hospitals)), [hospital.site for hospital in hospitals], rotation=30, ha="right")
        axes.set_ylabel("Cases")
        axes.yaxis.set_major_locator(MaxNLocator(integer=True))
        legend_below(axes)

    counts = "; ".join(
        f"{hospital.site}: " + ", ".join(f"{part} {numbers[at]}" for part, numbers in stacks.items())
        for at, hospital in enumerate(hospitals)
    )
    return Diagram(draw(name, f"{title}. {counts}", paint), title, caption)


def volumes_diagram(partition: Partition) -> list[Diagram]:
    """Tumour volume of every case by hospital; nothing where one is not known."""
    volumes = {site: _volumes(rows) for site, rows in partition.cases.items()}
    if not all(volumes.values()):
        return []

    def paint(axes: Axes) -> None:
        paint_strips(axes, volumes)
        axes.set_ylim(bottom=0)
        axes.set_ylabel("Whole tumour in ml")

    summary = "; ".join(
        f"{site}: {format_count(len(numbers), 'case')}, median {np.median(numbers):.0f} ml"
        for site, numbers in volumes.items()
    )
    title, caption = "Tumour volume", "A point is a case. The box spans the middle half, its bar is the median."
    return [Diagram(draw("volumes", f"{title}. {summary}", paint), title, caption)]


def intensity_diagram(modality: str, measured: Mapping[str, Mapping[str, Intensities]]) -> Diagram:
    """Histogram of one modality per hospital, after the normalisation that training applies."""
    middles = (EDGES[:-1] + EDGES[1:]) / 2

    def paint(axes: Axes) -> None:
        for index, (site, of_site) in enumerate(measured.items()):
            axes.plot(
                middles,
                of_site[modality].density,
                color=PALETTE[index % len(PALETTE)],
                marker=MARKERS[index % len(MARKERS)],
                markevery=(index, 6),
                markeredgecolor=SURFACE,
                label=site,
            )
        axes.set_xlabel("Standard deviations from the mean of the brain")
        axes.set_ylabel("Density")
        axes.set_ylim(bottom=0)
        legend_below(axes)

    medians = "; ".join(f"{site}: median {of_site[modality].median:.0f}" for site, of_site in measured.items())
    title = f"Intensities, {modality}"
    return Diagram(draw(f"intensity-{modality}", f"{title}, in the brain. {medians}", paint), title, "")
