"""Diagrams that more than one page draws: points with boxes, stacked bars."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from markupsafe import Markup
from matplotlib.axes import Axes

from brats_fl_tools.pages.svg import INK, MARKERS, MUTED, PALETTE

STACK_COLOURS = ("#0072b2", "#56b4e9", "#cc79a7", "#b3b3b3")


@dataclass(frozen=True)
class Diagram:
    """A drawn figure and its caption."""

    svg: Markup
    title: str
    caption: str


def paint_strips(axes: Axes, values: Mapping[str, Sequence[float]]) -> None:
    """A column a name: a point for each number, and a box of the middle half with the median."""
    line = {"color": MUTED, "linewidth": 1}
    axes.boxplot(
        list(values.values()),
        widths=0.55,
        showfliers=False,
        medianprops={"color": INK, "linewidth": 1.8},
        boxprops=line,
        whiskerprops=line,
        capprops=line,
    )
    for place, numbers in enumerate(values.values(), start=1):
        colour = PALETTE[(place - 1) % len(PALETTE)]
        marker = MARKERS[(place - 1) % len(MARKERS)]
        axes.scatter(place + _spread(len(numbers)), numbers, s=20, color=colour, marker=marker, alpha=0.8, zorder=3)
    axes.set_xticks(range(1, len(values) + 1), list(values), rotation=30, ha="right")
    axes.grid(visible=False, axis="x")


def _spread(count: int) -> npt.NDArray[np.float64]:
    """Sideways places of points that would lie on each other, (count,); the same in every report."""
    return 0.16 * np.sin(np.arange(count) * 2.4)  # 2.4 rad is the golden angle: neighbours fall apart


def stack_bars(
    axes: Axes, places: Sequence[int], stacks: Mapping[str, Sequence[float]], labels: Mapping[str, str]
) -> None:
    """Bars at the places, one part on the other in the order of ``stacks``; a part without a label bears its name."""
    bottom = np.zeros(len(places))
    for index, (part, heights) in enumerate(stacks.items()):
        label = labels.get(part, part)
        axes.bar(places, heights, bottom=bottom, width=0.7, color=STACK_COLOURS[index], label=label)
        bottom += np.asarray(heights)
    axes.grid(visible=False, axis="x")
