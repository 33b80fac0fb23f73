"""``brats-fl report``: a page of whatever a folder holds, a run, an evaluation, statistics, or a whole study."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final

import typer

from brats_fl.cases.datalists import DATALIST_FILE
from brats_fl.errors import DataListError
from brats_fl.sharing.cross_site import CROSS_SITE_FILE
from brats_fl_tools.data.case_table import read_case_table
from brats_fl_tools.report import PAGE_IN_3D, REPORT_FILE, refuse_to_overwrite, write_file, write_report
from brats_fl_tools.report.cross_site_page import render_cross_site
from brats_fl_tools.report.statistics_page import STATISTICS_FILE, render_statistics
from brats_fl_tools.report.viewer import FETCH, Wanted
from brats_fl_tools.study.record import STUDY_FILE

PAGES_OF_RESULTS: Final = {STATISTICS_FILE: render_statistics, CROSS_SITE_FILE: render_cross_site}
"""Result of a job that trains nothing -> who makes its page."""


def report(
    run: Annotated[Path, typer.Argument(help="Run folder, a study's folder, or one that brats-fl evaluate wrote.")],
    against: Annotated[
        list[Path] | None,
        typer.Option(help="Another such folder to compare with; repeatable. Not of a study.", show_default="none"),
    ] = None,
    sites: Annotated[
        Path | None,
        typer.Option(
            help="Folder with SITE/datalist.json, for the pictures.", show_default="where the folder says they were"
        ),
    ] = None,
    cases: Annotated[
        Path | None,
        typer.Option(
            metavar="CSV",
            help="Case table of `import`: tells each case's institution, for figures by it.",
            show_default="where the case's name tells it",
        ),
    ] = None,
    viewer: Annotated[
        Path | None,
        typer.Option(
            metavar="TGZ",
            help=f"NiiVue as `{FETCH}` writes it: also RUN/{PAGE_IN_3D}, with cases in 3-D. Holds whole scans.",
            show_default="none",
        ),
    ] = None,
    viewer_case: Annotated[
        list[str] | None,
        typer.Option(
            metavar="CASE",
            help="Shown in 3-D beside the worst and the best; CASE or SITE/CASE, repeatable.",
            show_default="none",
        ),
    ] = None,
    sound: Annotated[
        list[str] | None,
        typer.Option(
            metavar="SITE",
            help="Of a study: a hospital whose labels you looked at and found sound; it is not named. Repeatable.",
            show_default="none",
        ),
    ] = None,
    gate: Annotated[
        bool,
        typer.Option(
            "--gate/--no-gate",
            help="Of a study: run the data gate over the lists that are at hand, which reads all scans.",
        ),
    ] = True,
    force: Annotated[bool, typer.Option("--force", help="Write over an earlier report.")] = False,
) -> None:
    """Write RUN/report.html, one page that opens without a network, and RUN/metrics.json.

    Without evaluation.csv, as where hospitals keep theirs: what they reported on their validation cases.
    Of what brats-fl evaluate wrote, without a run: its figures and, where it wrote masks, pictures.
    Of a job brats_statistics or brats_cross_site: RUN/report.html alone, hospitals side by side or models by hospitals.
    Of a study: the acceptance report, its verdict first, and acceptance.json in place of metrics.json.
    """
    is_study = (run / STUDY_FILE).is_file()
    if is_study and against:
        raise typer.BadParameter(f"--against: {run} is a study, which has its own baselines; leave it out")
    if sound and not is_study:
        raise typer.BadParameter(f"--sound: {run} is no study; leave it out")
    if viewer_case and viewer is None:
        raise typer.BadParameter(f"--viewer-case: needs --viewer, the package that `{FETCH}` writes")
    if sites is not None and not sites.is_dir() and not (run / sites).is_dir():
        raise DataListError(f"--sites {sites}: no such folder; give the one that holds SITE/{DATALIST_FILE}")
    wanted = Wanted(viewer, tuple(viewer_case or ())) if viewer else None
    institutions = {row.case: row.institution for row in read_case_table(cases)} if cases else {}
    for result, render in PAGES_OF_RESULTS.items():
        if (run / result).is_file():
            if cases or viewer:
                raise typer.BadParameter(f"--cases, --viewer: {run} holds no table of cases; leave them out")
            page = run / REPORT_FILE
            refuse_to_overwrite(page, force)
            write_file(page, render(run))
            typer.echo(f"wrote {page}")
            return
    if is_study:
        from brats_fl_tools.acceptance.command import write_acceptance

        files = write_acceptance(
            run, force=force, sites=sites, sound=sound or (), institutions=institutions, wanted=wanted, with_gate=gate
        )
    else:
        files = write_report(run, against or (), force=force, sites=sites, institutions=institutions, wanted=wanted)
    for note in files.notes:
        typer.echo(f"note: {note}", err=True)
    typer.echo(f"wrote {files.metrics}")
    typer.echo(f"wrote {files.page}")
    if files.in_3d:
        typer.echo(f"wrote {files.in_3d}: it holds whole scans and must stay in the hospital")
