"""``brats-fl check``: what is wrong with a hospital's cases, where, and how to mend it."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from brats_fl.errors import RunError
from brats_fl.files import write_whole
from brats_fl.gate import Finding, as_record, errors_of
from brats_fl.gate.lists import Entry
from brats_fl_tools.check.accepting import honour_acceptances, split_acceptance
from brats_fl_tools.check.table import print_findings
from brats_fl_tools.check.verdict import check_entries, entries_in, faults_in, read_sources
from brats_fl_tools.data.given_cases import describe_strangers


def check(
    where: Annotated[
        Path,
        typer.Argument(
            metavar="DATA",
            help="Folder with SITE/datalist.json, a data list, a case table, or scans as `import` reads them.",
        ),
    ],
    headers: Annotated[
        bool, typer.Option("--headers", help="Read no voxels: what every site checks at the start of a job.")
    ] = False,
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Also write the findings as JSON.", show_default="no")
    ] = None,
    html_file: Annotated[
        Path | None,
        typer.Option(
            "--html",
            metavar="FILE",
            help="Also write a page with pictures. It shows patients' scans and must stay in the hospital.",
            show_default="no",
        ),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option("--workers", min=1, help="Cases read at a time, 170 MB each.", show_default="one a core"),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace FILE where it is there.")] = False,
    accept: Annotated[
        list[str] | None,
        typer.Option(
            "--accept",
            metavar="RULE:CASE",
            help="Take the case for sound though RULE doubts it, and keep that in accepted.json beside its data list. "
            "Repeatable.",
            show_default="nothing",
        ),
    ] = None,
    mapping: Annotated[
        Path | None,
        typer.Option(
            "--mapping",
            metavar="JSON",
            help="Description of a folder in your own layout, as for `import`.",
            show_default="none",
        ),
    ] = None,
    by: Annotated[
        str, typer.Option("--by", metavar="NAME", help="Who accepts; kept and shown.", show_default="none")
    ] = "",
) -> None:
    """Print what is wrong with the cases of DATA, labelled or not, and how to mend it; no scan or list is changed.

    Exit 1 where a case has an error: a site refuses to train on it, `segment` to segment it. A
    warning wants somebody to look.
    """
    for file in (json_file, html_file):
        if file is not None:
            if file.exists() and not force:
                raise RunError(f"{file}: is there already; give --force to replace it")
            file.parent.mkdir(parents=True, exist_ok=True)  # a wrong folder is told before the cases are read
    for text in accept or []:
        split_acceptance(text, by)  # what cannot be accepted is told before the cases are read
    started = time.monotonic()
    sources = read_sources(where, mapping)
    entries, faults = entries_in(sources), faults_in(sources)
    findings = honour_acceptances(sources, check_entries(entries, workers or count_cores(), headers), accept or [], by)
    print_findings(findings, len(entries), time.monotonic() - started)
    if strangers := [file for source in sources for file in source.strangers]:
        typer.echo(describe_strangers(strangers), err=True)
    if json_file is not None:
        write_file(json_file, json.dumps(as_json(entries, findings, headers), indent=1) + "\n")
    if html_file is not None:
        from brats_fl_tools.check.page import render_page

        write_file(html_file, render_page(entries, findings, headers))
    if faults:
        listing = "\n".join(faults)
        raise RunError(f"{len(faults)} cases were not checked whole: their files cannot be told\n{listing}")
    if errors_of(findings):
        raise typer.Exit(1)


def count_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0))


def as_json(entries: Sequence[Entry], findings: Sequence[Finding], headers_only: bool) -> dict[str, Any]:
    """The findings for programs; it names cases, so it stays in the hospital."""
    errors = len(errors_of(findings))
    return {
        "cases": len(entries),
        "sites": sorted({entry.site for entry in entries}),
        "voxels_read": not headers_only,
        "errors": errors,
        "warnings": len(findings) - errors,
        "findings": [as_record(finding) for finding in findings],
    }


def write_file(path: Path, text: str) -> None:
    """Write a file whole, and say so."""
    write_whole(path, text)
    typer.echo(f"wrote {path}")
