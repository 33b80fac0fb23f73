"""The page of a stress: one sentence, a curve a degradation, bars for what is missing, and the figures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from matplotlib.axes import Axes

import brats_fl
from brats_fl.constants import REGIONS
from brats_fl_tools.pages.diagrams import Diagram
from brats_fl_tools.pages.formats import REGION_NAMES, format_count, format_dice, list_words
from brats_fl_tools.pages.svg import INK, MARKERS, MUTED, PALETTE, SURFACE, draw, legend_below
from brats_fl_tools.pages.templates import page_environment
from brats_fl_tools.report.comparison import FEWEST_FOR_INTERVAL
from brats_fl_tools.stress.plan import DEGRADATIONS, UNCHANGED
from brats_fl_tools.stress.summary import (
    FALL,
    MEAN,
    GradeFigures,
    Summary,
    degradations_in,
    first_falls,
    of_degradation,
)

AS_IT_IS: Final = "as it is"


def render_page(summary: Summary) -> str:
    """Page of a stress: one HTML text that needs no other file; it names hospitals and no case."""
    names = degradations_in(summary.grades)
    return (
        page_environment()
        .get_template("stress_page.html")
        .render(
            version=brats_fl.__version__,
            summary=summary,
            headline=sum_up(summary),
            warnings=list_warnings(summary),
            diagrams=[draw_degradation(summary, name) for name in names],
            tables=[(DEGRADATIONS[name], of_degradation(summary.grades, name)) for name in names],
            before=unchanged(summary),
            columns=(*REGIONS, MEAN),
            regions=REGIONS,
            fall=f"{FALL:g}",
        )
    )


def unchanged(summary: Summary) -> GradeFigures:
    """Figures of the scans as they are."""
    return of_degradation(summary.grades, UNCHANGED)[0]


def sum_up(summary: Summary) -> str:
    """Which degradation costs most, and from which grade on each is more than a small loss, in a few sentences."""
    before, names = unchanged(summary), degradations_in(summary.grades)
    start = (
        f"On {format_count(summary.cases, 'test case')} the scans as they are have a mean Dice of "
        f"{format_dice(before.dice[MEAN])}."
    )
    if not names:
        return start
    worst = max((one for one in summary.grades if one.degradation != UNCHANGED), key=lambda one: one.loss)
    if worst.loss <= 0:
        return f"{start} No grade lowers it."
    most = (
        f"Most is lost by {_describe([worst])}: {format_dice(worst.dice[MEAN])}, which is {format_dice(worst.loss)} "
        f"less{_describe_interval(worst)}."
    )
    falls = {name: first_falls(of_degradation(summary.grades, name)) for name in names}
    falling = [_describe(figures) for figures in falls.values() if figures]
    holding = [_lower(DEGRADATIONS[name].title) for name, figures in falls.items() if not figures]
    first = f"More than {FALL:g} is lost by {'; '.join(falling)}." if falling else f"No grade costs more than {FALL:g}."
    rest = f" In no grade so with {list_words(holding)}." if holding and falling else ""
    return f"{start} {most} {first}{rest}"


def _describe(figures: Sequence[GradeFigures]) -> str:
    """``noise, 0.5 × the brain's SD``; ``a missing t1c or t2f``."""
    degradation = DEGRADATIONS[figures[0].degradation]
    *most, last = (one.grade for one in figures)
    grades = f"{', '.join(most)} or {last}" if most else last
    return f"a missing {grades}" if degradation.names else f"{_lower(degradation.title)}, {grades} {degradation.unit}"


def _describe_interval(figures: GradeFigures) -> str:
    if figures.loss_interval is None:
        return ""
    low, high = figures.loss_interval
    return f" (95 % interval over the cases {low:.3f} to {high:.3f})"


def _lower(title: str) -> str:
    return title[0].lower() + title[1:]


def list_warnings(summary: Summary) -> list[str]:
    """What the figures must not be taken for."""
    texts = []
    if summary.cases < FEWEST_FOR_INTERVAL:
        texts.append(
            f"{format_count(summary.cases, 'case')}: too few to tell a loss from chance. {FEWEST_FOR_INTERVAL} are the "
            "fewest for an interval, and tens of cases for a decision."
        )
    if summary.synthetic_cases:
        texts.append(
            f"{summary.synthetic_cases} of the {format_count(summary.cases, 'case')} are synthetic: the figures say "
            "nothing of how well the model does on patients."
        )
    if summary.seen_in_training is None:
        texts.append("Whether the model saw these cases in training was not checked.")
    elif summary.seen_in_training:
        texts.append(
            f"The model was trained or chosen on {len(summary.seen_in_training)} of these cases: their figures flatter "
            "it."
        )
    if unchanged(summary).dice[MEAN] <= FALL:
        texts.append("The model finds next to nothing on the scans as they are: there is nothing that it could lose.")
    return texts


def draw_degradation(summary: Summary, name: str) -> Diagram:
    """Mean Dice per region over the grades of a degradation, from the scans as they are on."""
    degradation, before = DEGRADATIONS[name], unchanged(summary)
    figures = [before, *of_degradation(summary.grades, name)]
    said = "; ".join(
        f"{REGION_NAMES[region]} " + ", ".join(f"{format_dice(one.dice[region])} at {_label(one)}" for one in figures)
        for region in REGIONS
    )
    title = degradation.title
    if degradation.neutral is None:
        caption = "A bar is the mean over the cases with this scan absent; the line spans the middle half of the cases."
        painter = lambda axes: _paint_bars(axes, figures)  # noqa: E731
    else:
        neutral = degradation.neutral
        places = sorted(
            [(neutral if one is before else one.strength, one) for one in figures], key=lambda place: place[0]
        )
        caption = (
            "A point is the mean over the cases, the band the middle half of them; the dotted line marks the scans as "
            "they are."
        )
        painter = lambda axes: _paint_curves(axes, places, neutral, degradation.unit)  # noqa: E731
    return Diagram(draw(f"stress-{name}", f"{title}, mean Dice: {said}", painter), title, caption)


def _label(figures: GradeFigures) -> str:
    return AS_IT_IS if figures.degradation == UNCHANGED else figures.grade


def _paint_curves(axes: Axes, places: Sequence[tuple[float, GradeFigures]], neutral: float, unit: str) -> None:
    strengths = [strength for strength, _ in places]
    axes.axvline(neutral, color=MUTED, linestyle=":", linewidth=1, zorder=1)
    for index, region in enumerate(REGIONS):
        low, high = zip(*(one.dice_middle_half[region] for _, one in places), strict=True)
        axes.fill_between(strengths, low, high, color=PALETTE[index], alpha=0.15, linewidth=0)
        means = [one.dice[region] for _, one in places]
        axes.plot(
            *(strengths, means),
            color=PALETTE[index],
            marker=MARKERS[index],
            markeredgecolor=SURFACE,
            label=REGION_NAMES[region],
        )
    axes.set_xlabel(f"Strength, {unit}")
    _finish(axes)


def _paint_bars(axes: Axes, figures: Sequence[GradeFigures]) -> None:
    width = 0.8 / len(REGIONS)
    for index, region in enumerate(REGIONS):
        places = [place + (index - 1) * width for place in range(len(figures))]
        means = [one.dice[region] for one in figures]
        axes.bar(places, means, width=width * 0.92, color=PALETTE[index], label=REGION_NAMES[region])
        low, high = zip(*(one.dice_middle_half[region] for one in figures), strict=True)
        axes.vlines(places, low, high, color=INK, linewidth=1)
    labels = [_label(one) if one.degradation == UNCHANGED else f"without {one.grade}" for one in figures]
    axes.set_xticks(range(len(figures)), labels, rotation=30, ha="right")
    axes.grid(visible=False, axis="x")
    _finish(axes)


def _finish(axes: Axes) -> None:
    axes.set_ylim(0, 1.03)  # a marker at 1 is seen whole
    axes.set_ylabel("Dice")
    legend_below(axes)
