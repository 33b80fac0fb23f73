"""Where the pages' templates are and what they may call; each page is one HTML text that needs no other file."""

from __future__ import annotations

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined

from brats_fl_tools.pages import formats

PLACES = tuple(
    f"brats_fl_tools.{room}"
    for room in ("pages", "report", "partition", "check", "model", "stress", "watch", "acceptance", "audit")
)


def page_environment() -> Environment:
    """Jinja's environment for every page: all text is escaped, a missing value is an error."""
    environment = Environment(
        loader=ChoiceLoader([PackageLoader(place, ".") for place in PLACES]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "dice": formats.format_dice,
        "mm": formats.format_mm,
        "ml": formats.format_ml,
        "metric": formats.format_metric,
        "difference": formats.format_difference,
        "duration": formats.format_duration,
        "count": formats.format_count,
        "bytes": formats.format_bytes,
    }
    return environment
