"""The report of a run: one HTML page for readers, ``metrics.json`` for programs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from brats_fl.errors import RunError
from brats_fl.files import CASE_TABLE_FILE, write_whole
from brats_fl_tools.one_writer import writes
from brats_fl_tools.report.comparison import as_json, compare
from brats_fl_tools.report.groups import as_json as groups_as_json
from brats_fl_tools.report.groups import group_cases
from brats_fl_tools.report.metrics import build_metrics, build_reported_metrics, read_reported, score
from brats_fl_tools.report.page import Page, render_page, render_reported
from brats_fl_tools.report.run_folder import read_run
from brats_fl_tools.report.viewer import Wanted

REPORT_FILE = "report.html"
METRICS_FILE = "metrics.json"
PAGE_IN_3D = "report-3d.html"
"""The report once more, with whole scans in it: never collected, exported or sent."""


@dataclass(frozen=True)
class ReportFiles:
    """What was written, and a line on everything that the page had to leave out."""

    page: Path
    metrics: Path
    notes: tuple[str, ...]
    in_3d: Path | None = None
    """The page with cases in 3-D, where it was asked for."""


@writes("run", within=REPORT_FILE)
def write_report(
    run: Path,
    against: Sequence[Path] = (),
    *,
    force: bool = False,
    sites: Path | None = None,
    institutions: Mapping[str, str] = MappingProxyType({}),
    wanted: Wanted | None = None,
) -> ReportFiles:
    """Write the report of a run into its folder; each file appears whole or not at all.

    A run of a real federation has no table of cases: its report shows what the hospitals said of the final model.

    Args:
        run: The run folder, or that of an evaluation.
        against: Folders to compare with; of a run ``run.json`` and ``evaluation.csv`` are enough.
        force: Whether an earlier report may be replaced.
        sites: Where the data lists are, for pictures; by default where the folder says they were.
        institutions: Case -> institution, where a case table names it.
        wanted: For ``report-3d.html``, the page with cases in 3-D; by default none is written.

    Raises:
        RunError: A file of a run is missing or wrong, or a report is there and ``force`` is not given.
    """
    page_path, metrics_path = run / REPORT_FILE, run / METRICS_FILE
    for path in (page_path, metrics_path, run / PAGE_IN_3D):
        refuse_to_overwrite(path, force)
    folder = read_run(run, with_cases=(run / CASE_TABLE_FILE).is_file() or bool(against))
    if not folder.results:
        reported = read_reported(folder)
        page = render_reported(folder, reported)
        write_file(metrics_path, json.dumps(build_reported_metrics(folder, reported), indent=1, allow_nan=False) + "\n")
        write_file(page_path, page.html)
        notes = (*page.notes, *(["no case in 3-D: none is here"] if wanted else []))
        return ReportFiles(page_path, metrics_path, notes, write_in_3d(run, page))
    scores = score(folder)
    comparisons = [compare(folder, read_run(other, with_rounds=False)) for other in against]
    metrics = build_metrics(folder, scores) | groups_as_json(group_cases(folder.scored(folder.split), institutions))
    if comparisons:
        metrics["against"] = [as_json(comparison) for comparison in comparisons]
    page = render_page(folder, scores, comparisons, sites, institutions, wanted)
    write_file(metrics_path, json.dumps(metrics, indent=1, allow_nan=False) + "\n")
    write_file(page_path, page.html)
    return ReportFiles(page_path, metrics_path, page.notes, write_in_3d(run, page))


def write_in_3d(folder: Path, page: Page) -> Path | None:
    """Write the page with cases in 3-D, where there is one; of an earlier report none stays beside a new one."""
    path = folder / PAGE_IN_3D
    if page.in_3d is None:
        path.unlink(missing_ok=True)
        return None
    write_file(path, page.in_3d)
    return path


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
