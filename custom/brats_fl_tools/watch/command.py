"""``brats-fl watch``: a table or lines in the terminal, and a page, until the job ends."""

from __future__ import annotations

import sys
import time
from contextlib import ExitStack, nullcontext
from datetime import datetime, timezone
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.live import Live

from brats_fl.errors import RunError
from brats_fl.files import write_whole
from brats_fl_tools.kit.kits import read_kit
from brats_fl_tools.runs.progress import Progress
from brats_fl_tools.runs.session import pause
from brats_fl_tools.watch.gauges import CONTENT_TYPE, as_gauges
from brats_fl_tools.watch.page import WatchPage
from brats_fl_tools.watch.server import HOST, serving
from brats_fl_tools.watch.sources import Look, Seen, source_at, source_of
from brats_fl_tools.watch.terminal import as_table, headline
from brats_fl_tools.watch.view import view_of

HTML = "text/html; charset=utf-8"


def watch(
    run: Annotated[Path | None, typer.Argument(metavar="[RUN]", help="Run folder, of any mode.")] = None,
    kit: Annotated[
        Path | None, typer.Option("--kit", help="Admin's kit: the job that its federation runs now, in place of RUN.")
    ] = None,
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="Of the page; 0 for any that is free.")] = 0,
    gauges: Annotated[
        Path | None, typer.Option("--gauges", metavar="FILE", help="Write the facts for Prometheus to FILE, too.")
    ] = None,
    stay: Annotated[bool, typer.Option("--stay", help="Keep the page when the job has ended, until Ctrl-C.")] = False,
) -> None:
    """Follow a running job until it ends: in the terminal, and on a page of this machine alone.

    Reads only. Ctrl-C ends the watching and not the job.
    """
    if (run is None) == (kit is None):
        raise typer.BadParameter("give RUN, or --kit KIT in its place")
    if gauges is not None and not gauges.parent.is_dir():
        raise RunError(f"{gauges}: there is no folder {gauges.parent}; make it, or give --gauges another file")
    source = source_of(run.resolve()) if run else source_at(read_kit(kit))  # type: ignore[arg-type]
    try:
        with source as look:
            Watch(look, gauges).follow(port, stay)
    except KeyboardInterrupt:
        typer.echo("no longer watched; the job goes on without it")


class Watch:
    """Looks again and again, and keeps the last look for whoever asks for it.

    Args:
        look: Looks once.
        gauges: File for Prometheus; None for none.
    """

    def __init__(self, look: Look, gauges: Path | None) -> None:
        self.look = look
        self.gauges = gauges
        self.seen: Seen = look()
        self.page = WatchPage()

    def follow(self, port: int, stay: bool) -> None:
        """Show the job until it ends."""
        pages = {"/": self.html, "/metrics": self.metrics}
        with serving(port, pages) as opened, self._terminal() as shown:
            where = f"http://{HOST}:{opened}/"
            shown.say(f"watching: {where}")
            news = time.monotonic()
            while True:
                shown.show(self.seen)
                if self.gauges is not None:
                    write_whole(self.gauges, self.metrics()[1])
                if not self.seen.is_running:
                    break
                time.sleep(pause(time.monotonic() - news))
                before, self.seen = self.seen, self.look()
                news = time.monotonic() if len(self.seen.lines) > len(before.lines) else news
            shown.say(headline(view_of(self.seen, _now())))
            while stay:
                time.sleep(1)

    def html(self) -> tuple[str, str]:
        """The page as it is now."""
        return HTML, self.page.render(self.seen, _now())

    def metrics(self) -> tuple[str, str]:
        """The gauges as they are now."""
        return CONTENT_TYPE, as_gauges(view_of(self.seen, _now()))

    @staticmethod
    def _terminal() -> Any:
        return OnTerminal() if sys.stdout.isatty() else nullcontext(AsLines())


class OnTerminal(ExitStack):
    """A table that is drawn over the one before."""

    def __enter__(self) -> OnTerminal:
        """Begin drawing."""
        super().__enter__()
        self.live = self.enter_context(Live(console=Console(), auto_refresh=False, transient=False))
        return self

    def say(self, line: str) -> None:
        """Print a line above the table."""
        self.live.console.print(line, highlight=False)

    def show(self, seen: Seen) -> None:
        """Draw what is known now."""
        self.live.update(as_table(view_of(seen, _now())), refresh=True)


class AsLines:
    """A line for each record, as ``simulate`` and ``submit`` print them."""

    def __init__(self) -> None:
        self.progress = Progress()
        self.trouble = ""

    def say(self, line: str) -> None:
        """Print a line."""
        typer.echo(line)

    def show(self, seen: Seen) -> None:
        """Print what is new."""
        self.progress.show(seen.lines)
        if seen.trouble != self.trouble:
            self.trouble = seen.trouble
            typer.echo(f"the server does not answer: {seen.trouble}" if seen.trouble else "the server answers again")


def _now() -> datetime:
    return datetime.now(timezone.utc)
