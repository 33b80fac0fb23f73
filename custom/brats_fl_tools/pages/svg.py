"""Matplotlib figures as inline SVG that takes its colours and its font from the page."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable
from typing import Any

import matplotlib as mpl
from markupsafe import Markup, escape
from matplotlib.axes import Axes
from matplotlib.figure import Figure

# Stand-ins that the page's own colours replace, so that one picture serves a light and a dark page.
INK, MUTED, GRID, SURFACE = "#0a0b0c", "#0a0b0d", "#0a0b0e", "#0a0b0f"
_PAGE_COLOURS = {INK: "var(--ink)", MUTED: "var(--muted)", GRID: "var(--line)", SURFACE: "var(--surface)"}

# Okabe and Ito's palette, told apart with any common colour vision (doi:10.1038/nmeth.1618);
# the marker says the same again.
PALETTE = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#999999")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")

# 331 points: 9-point text is then 10 px on a telephone of 390 px and 15 px in a column of the wide page.
SIZE_INCHES = (4.6, 3.3)

_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 9,
    "text.parse_math": False,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": MUTED,
    "axes.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.7,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "figure.facecolor": "none",
    "legend.frameon": False,
    "lines.markersize": 5,
    "lines.markeredgewidth": 0.5,
    "lines.linewidth": 1.5,
}


def draw(name: str, alt: str, paint: Callable[[Axes], None]) -> Markup:
    """One figure as an ``<svg>`` element, the same text for the same input.

    Args:
        name: Makes the element ids of this figure its own within the page.
        alt: What the figure says, for a reader who does not see it.
        paint: Draws on the axes it is given.
    """
    with mpl.rc_context({**_STYLE, "svg.hashsalt": name}), warnings.catch_warnings():
        # Letters that matplotlib's own font lacks: the page's font has them.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure = Figure(figsize=SIZE_INCHES, layout="constrained")
        paint(figure.subplots())
        buffer = io.StringIO()
        no_metadata = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(buffer, format="svg", metadata=no_metadata)
    return Markup(_for_page(name, alt, buffer.getvalue()))  # matplotlib has escaped every text in it


def _for_page(name: str, alt: str, text: str) -> str:
    """Element without prolog, namespaces and fixed size, with ids of its own and the page's colours."""
    text = text[text.index("<svg") :].strip()
    view_box = re.search(r'viewBox="([\d. ]+)"', text)
    head = f'<svg role="img" aria-label="{escape(alt)}" viewBox="{view_box.group(1) if view_box else ""}">'
    text = re.sub(r"^<svg[^>]*>", lambda _: head, text)
    text = text.replace("xlink:href", "href").replace("'DejaVu Sans', sans-serif", "system-ui, sans-serif")
    text = re.sub(r'\bid="', f'id="{name}-', text)
    text = re.sub(r'href="#', f'href="#{name}-', text)
    text = re.sub(r"url\(#", f"url(#{name}-", text)
    for stand_in, colour in _PAGE_COLOURS.items():
        text = text.replace(stand_in, colour)
    return text


def legend_below(axes: Axes, columns: int = 3) -> None:
    """Legend under the axes, where it covers no data."""
    handles, labels = axes.get_legend_handles_labels()
    if handles:
        figure = axes.get_figure()
        assert figure is not None
        figure.legend(handles, labels, loc="outside lower center", ncols=columns, fontsize=8.5, columnspacing=1.2)
