"""The page of a running job: asks for itself again every few seconds, without a script."""

from __future__ import annotations

from datetime import datetime
from typing import Final

from brats_fl_tools.pages.templates import page_environment
from brats_fl_tools.report.figures import learning_curves
from brats_fl_tools.report.run_folder import RunFolder
from brats_fl_tools.watch.sources import Seen
from brats_fl_tools.watch.terminal import headline
from brats_fl_tools.watch.view import view_of

REFRESH_SECONDS: Final = 5


class WatchPage:
    """Renders looks; the diagrams are drawn anew only when there is something new in them."""

    def __init__(self) -> None:
        self.drawn_of: RunFolder | None = None
        self.diagrams: list[object] = []

    def render(self, seen: Seen, now: datetime) -> str:
        """One HTML text that needs no other file.

        Args:
            seen: The last look.
            now: With its time zone.
        """
        if self.drawn_of is None or self.drawn_of.records != seen.run.records:
            self.drawn_of, self.diagrams = seen.run, list(learning_curves(seen.run))
        view = view_of(seen, now)
        return (
            page_environment()
            .get_template("watch_page.html")
            .render(
                view=view,
                headline=headline(view),
                diagrams=self.diagrams,
                refresh=REFRESH_SECONDS if view.is_running else None,
                at=now.strftime("%Y-%m-%d %H:%M:%S UTC"),
            )
        )
