"""The report of a run: one HTML page for readers, ``metrics.json`` for programs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from brats_fl.errors import RunError
from brats_fl.files import CASE_TABLE_FILE, write_whole
from brats_fl_tools.one_writer import writes
from brats_fl_tools.report.comparison import as_json, compare
from brats_fl_tools.report.metrics import build_metrics, build_reported_metrics, read_reported, score
from brats_fl_tools.report.page import render_page, render_reported
from brats_fl_tools.report.run_folder import read_run

REPORT_FILE = "report.html"
METRICS_FILE = "metrics.json"


@dataclass(frozen=True)
class ReportFiles:
    """What was written, and a line on everything that the page had to leave out."""

    page: Path
    metrics: Path
    notes: tuple[str, ...]


@writes("run", within=REPORT_FILE)
def write_report(
    run: Path, against: Sequence[Path] = (), *, force: bool = False, sites: Path | None = None
) -> ReportFiles:
    """Write the report of a run into its folder; each file appears whole or not at all.

    A run of a real federation has no table of cases: its report shows what the hospitals said of the final model.

    Args:
        run: The run folder, or that of an evaluation.
        against: Folders to compare with; of a run ``run.json`` and ``evaluation.csv`` are enough.
        force: Whether an earlier report may be replaced.
        sites: Where the data lists are, for pictures; by default where the folder says they were.

    Raises:
        RunError: A file of a run is missing or wrong, or a report is there and ``force`` is not given.
    """
    page_path, metrics_path = run / REPORT_FILE, run / METRICS_FILE
    for path in (page_path, metrics_path):
        refuse_to_overwrite(path, force)
    folder = read_run(run, with_cases=(run / CASE_TABLE_FILE).is_file() or bool(against))
    if not folder.results:
        reported = read_reported(folder)
        page = render_reported(folder, reported)
        write_file(metrics_path, json.dumps(build_reported_metrics(folder, reported), indent=1, allow_nan=False) + "\n")
        write_file(page_path, page.html)
        return ReportFiles(page_path, metrics_path, page.notes)
    scores = score(folder)
    comparisons = [compare(folder, read_run(other, with_rounds=False)) for other in against]
    metrics = build_metrics(folder, scores)
    if comparisons:
        metrics["against"] = [as_json(comparison) for comparison in comparisons]
    page = render_page(folder, scores, comparisons, sites)
    write_file(metrics_path, json.dumps(metrics, indent=1, allow_nan=False) + "\n")
    write_file(page_path, page.html)
    return ReportFiles(page_path, metrics_path, page.notes)


def refuse_to_overwrite(path: Path, force: bool) -> None:
    """Raise ``RunError`` where a report is there and ``force`` is not given."""
    if path.exists() and not force:
        raise RunError(f"{path}: is there already; give --force to write it again")


def write_file(path: Path, text: str) -> None:
    """Write a file of a report; ``RunError`` where there is no room or no right."""
    try:
        write_whole(path, text)
    except OSError as error:
        raise RunError(f"{path}: cannot be written ({error}); make room or choose another folder") from error
