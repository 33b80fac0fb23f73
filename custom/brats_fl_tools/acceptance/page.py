"""The page of a study: verdict, figures with intervals, who gains, cost, failures, and how to run it again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from matplotlib.axes import Axes

import brats_fl
from brats_fl.constants import MISSED_HD95_MM, REGIONS
from brats_fl_tools.acceptance.case_figures import COLUMNS, MEAN
from brats_fl_tools.acceptance.comparing import ALL, DICE, METRICS, Metric
from brats_fl_tools.acceptance.content import Acceptance, Section
from brats_fl_tools.acceptance.hospitals import FAR, Contribution, Gain
from brats_fl_tools.acceptance.spoilt import describe as describe_spoilt
from brats_fl_tools.acceptance.statistics import FEWEST, Estimate
from brats_fl_tools.audit.figures import list_warnings as audit_warnings
from brats_fl_tools.audit.figures import sum_up as sum_up_audit
from brats_fl_tools.pages.diagrams import Diagram
from brats_fl_tools.pages.formats import MINUS, NONE, REGION_NAMES, format_count, format_difference, list_words
from brats_fl_tools.pages.pictures import AGREEMENT_COLOURS, AGREEMENT_MEANINGS
from brats_fl_tools.pages.svg import INK, MUTED, PALETTE, draw
from brats_fl_tools.report.comparison import RESAMPLES
from brats_fl_tools.report.facts import describe_machine
from brats_fl_tools.report.groups import SIZE_LIMITS_ML
from brats_fl_tools.report.overlays import Overlays, draw_overlays
from brats_fl_tools.report.page import Page, as_page
from brats_fl_tools.report.ranking import FEWEST_FOR_RANK
from brats_fl_tools.report.reliability import draw_reliability
from brats_fl_tools.report.run_folder import RunFolder, read_run
from brats_fl_tools.report.viewer import Wanted, build_viewer
from brats_fl_tools.runs.folder import MASKS_FOLDER
from brats_fl_tools.stress.page import draw_degradation, sum_up
from brats_fl_tools.stress.summary import degradations_in
from brats_fl_tools.study.record import RunRecord

FAILURES: Final = 3
"""Cases of a job that are shown as pictures."""

NO_THRESHOLDS: Final = "no verdict"

BASELINE_NAMES: Final = {
    "federated": "federated",
    "local": "local: each hospital alone",
    "central": "central: all lists pooled",
    "leave-one-out": "leave-one-out: all hospitals but the one tested",
}


def render_acceptance(
    out: Path, acceptance: Acceptance, sites: Path | None = None, wanted: Wanted | None = None
) -> Page:
    """The page: one HTML text that needs no other file.

    Args:
        out: Folder of the study.
        acceptance: What is to be said.
        sites: Where the data lists are, if not where the runs say.
        wanted: For the page with cases in 3-D.
    """
    pictures = [(section, draw_failures(out, section, sites)) for section in acceptance.sections]
    notes = [note for _, overlays in pictures for note in overlays.notes]
    return as_page(
        "acceptance_page.html",
        dict.fromkeys(notes),
        build_viewer(wanted, viewed_runs(out, acceptance), sites) if wanted else None,
        version=brats_fl.__version__,
        acceptance=acceptance,
        record=acceptance.record,
        verdict=acceptance.verdict,
        word=acceptance.verdict.word or NO_THRESHOLDS,
        warnings=list_warnings(acceptance),
        diagrams={section.candidate.name: effects(section) for section in acceptance.sections},
        reliability={
            one.candidate.name: [
                diagram
                for kind, pooled in one.reliability.items()
                for diagram in draw_reliability(f"reliability-{number}-{kind}", pooled, kind)
            ]
            for number, one in enumerate(acceptance.sections)
        },
        stresses=[
            (name, sum_up(summary), [draw_degradation(summary, one) for one in degradations_in(summary.grades)])
            for section in acceptance.sections
            for name, summary in section.stress.items()
        ],
        audits=[
            (name, summary, sum_up_audit(summary), audit_warnings(summary))
            for section in acceptance.sections
            for name, summary in section.audits.items()
        ],
        pictures=pictures,
        tells_energy=any(one.joules is not None for one in acceptance.costs),
        list_words=list_words,
        machine=describe_machine(acceptance.record.machine),
        names=BASELINE_NAMES,
        metric_of=metric_of,
        interval=format_interval,
        figure=format_figure,
        p_value=format_p,
        dice_metric=DICE,
        columns=COLUMNS,
        regions=REGIONS,
        region_names=REGION_NAMES,
        all_cases=ALL,
        mean=MEAN,
        fewest=FEWEST,
        fewest_for_rank=FEWEST_FOR_RANK,
        size_limits_ml=[f"{limit:g}" for limit in SIZE_LIMITS_ML],
        far=f"{FAR:g}",
        resamples=f"{RESAMPLES:,}",
        missed_hd95_mm=MISSED_HD95_MM,
        agreement_colours={name: "#{:02x}{:02x}{:02x}".format(*rgb) for name, rgb in AGREEMENT_COLOURS.items()},
        agreement_meanings=AGREEMENT_MEANINGS,
    )


def viewed_runs(out: Path, acceptance: Acceptance) -> dict[str, RunFolder]:
    """Job -> its run whose cases are shown; the name is empty where there is one job."""
    found = {one.candidate.name: pictured_run(out, one) for one in acceptance.sections}
    runs = {name: read_run(out / run.folder, with_rounds=False) for name, run in found.items()}
    return runs if len(runs) > 1 else {"": next(iter(runs.values()))}


def pictured_run(out: Path, section: Section) -> RunRecord:
    """A job's first run that has masks; the first where none has."""
    runs = section.candidate.own_runs
    return next((one for one in runs if (out / one.folder / MASKS_FOLDER).is_dir()), runs[0])


def format_figure(value: float | None, metric: Metric, signed: bool = False) -> str:
    """A figure with the decimals of its metric: one of mm and ml, three of ratios."""
    if value is None:
        return NONE
    if signed:
        return format_difference(value, _unit(metric))
    text = f"{abs(value):.1f}" if _unit(metric) == "mm" else f"{abs(value):.3f}"
    return f"{MINUS}{text}" if value < 0 and float(text) else text


def metric_of(key: str) -> Metric:
    """The metric that a threshold is asked of."""
    return next((one for one in METRICS if one.name in key), DICE)


def _unit(metric: Metric) -> str:
    return "mm" if metric.name.endswith(("_mm", "_ml")) else "dice"


def format_interval(found: Estimate | None, metric: Metric = DICE, signed: bool = False) -> str:
    """``0.512 to 0.634``; with too few patients, that."""
    if found is None or found.low is None:
        return f"fewer than {FEWEST} patients"
    return f"{format_figure(found.low, metric, signed)} to {format_figure(found.high, metric, signed)}"


def format_p(value: float | None) -> str:
    """p with three decimals; below that, that it is."""
    return NONE if value is None else "< 0.001" if value < 0.001 else f"{value:.3f}"


def list_warnings(acceptance: Acceptance) -> list[str]:
    """What the figures must not be taken for."""
    evidence, stated = acceptance.evidence, acceptance.record.thresholds
    texts = [describe_spoilt(one) for one in acceptance.spoilt]
    if evidence.synthetic_cases:
        texts.append(
            f"{format_count(evidence.synthetic_cases, 'test case')} of a run are synthetic: the figures say nothing of "
            "how well the model does on patients."
        )
    if stated and stated.replaced:
        before = ["none" if digest == "none" else f"those of SHA-256 {digest[:12]}" for digest in stated.replaced]
        texts.append(f"The thresholds were changed after runs had begun: before there were {list_words(before)}.")
    if evidence.unchecked:
        texts.append(f"Whether a model saw a test case was not checked of {list_words(evidence.unchecked)}.")
    if evidence.without_patients:
        texts.append(
            f"No data list can be read any more in {list_words(evidence.without_patients)}: there every case counts as "
            "a patient of its own, so that intervals may be too narrow."
        )
    if acceptance.sound:
        texts.append(
            f"Whoever wrote this report states that the labels of {list_words(acceptance.sound)} were looked at and "
            "are sound; signs against them are not counted."
        )
    if max((len(one.spreads["federated"].values) for one in acceptance.sections), default=0) < 2:
        texts.append("One seed: how much another training of the same would differ is not in any interval.")
    return texts


def effects(section: Section) -> list[Diagram]:
    """Who gains and who contributes, as points with intervals; what has no baseline is left out."""
    found = []
    for name, title, caption, entries in (
        ("gains", "Federated less local, own test cases", "Right of the line the hospital gains.", section.gains),
        (
            "contributions",
            "Federated less without the hospital, the others' test cases",
            "Right of the line the others gain by it. The intervals hold for all hospitals together.",
            section.contributions,
        ),
    ):
        if entries:
            found.append(_forest(f"{name}-{section.candidate.name}", title, caption, entries))
    return found


def _forest(name: str, title: str, caption: str, entries: Sequence[Gain | Contribution]) -> Diagram:
    said = "; ".join(
        f"{one.site} {format_difference(one.difference.value, 'dice')} ({format_interval(one.difference, signed=True)})"
        for one in entries
    )

    def paint(axes: Axes) -> None:
        places = range(len(entries), 0, -1)
        axes.axvline(0, color=MUTED, linestyle=":", linewidth=1)
        for place, one in zip(places, entries, strict=True):
            low, high = one.difference.low, one.difference.high
            if low is not None and high is not None:
                axes.plot([low, high], [place, place], color=INK, linewidth=1.2)
            axes.plot([one.difference.value], [place], marker="o", color=PALETTE[0])
        axes.set_yticks(list(places), [one.site for one in entries])
        axes.set_ylim(0.5, len(entries) + 0.5)
        axes.set_xlabel("Difference in mean Dice")
        axes.grid(visible=False, axis="y")

    return Diagram(draw("".join(c if c.isalnum() else "-" for c in name), f"{title}: {said}", paint), title, caption)


def draw_failures(out: Path, section: Section, sites: Path | None) -> Overlays:
    """The cases with the lowest mean Dice of a job's first run that has masks."""
    run = pictured_run(out, section)
    overlays = draw_overlays(read_run(out / run.folder, with_rounds=False), sites, worst=FAILURES)
    if overlays.shown:
        return overlays
    note = (
        f"{section.candidate.name}: no failure is shown as a picture. Masks make them: `brats-fl evaluate {run.bundle} "
        f"--model {run.folder / 'global_model.pt'} --profile {run.profile} --sites {run.sites_dir} --out "
        f"{run.folder} --masks --force`."
    )
    return replace(overlays, notes=(note, *overlays.notes[1:]))
