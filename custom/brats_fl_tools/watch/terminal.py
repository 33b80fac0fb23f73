"""The same facts as a table that updates in place on a terminal."""

from __future__ import annotations

from rich.table import Table

from brats_fl_tools.pages.formats import format_bytes, format_dice, format_duration
from brats_fl_tools.watch.view import View


def as_table(view: View) -> Table:
    """A row a hospital, with what is to say of all in title and caption."""
    table = Table(title=headline(view), caption=view.trouble or None, title_justify="left", caption_style="yellow")
    table.add_column("hospital", overflow="fold")
    table.add_column("state")
    for column in ("round", "Dice", "loss", "last round", "down", "up"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("why", overflow="fold")
    for one in view.hospitals:
        table.add_row(
            one.name,
            one.state,
            "" if one.round is None else str(one.round),
            format_dice(one.dice),
            "" if one.loss is None else f"{one.loss:.3f}",
            format_duration(one.seconds),
            format_bytes(one.bytes_down),
            format_bytes(one.bytes_up),
            one.why,
            style="yellow" if one.needs_a_look else None,
        )
    return table


def headline(view: View) -> str:
    """Where the job is, in a line."""
    of = "" if view.rounds is None else f" of {view.rounds}"
    text = f"{view.job}: {view.state}, {view.rounds_done}{of} rounds done"
    if view.is_running:
        text += f", {view.answered} of {len(view.hospitals)} hospitals have answered in round {view.round}"
    if view.dice is not None:
        text += f", mean Dice {view.dice:.3f}"
    if view.seconds_left is not None:
        text += f", about {format_duration(view.seconds_left)} left"
    return text
