"""Writes the acceptance report of a study into its folder: a page for the committee, a file for programs."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Final

from brats_fl_tools.acceptance.content import as_json, judge_study
from brats_fl_tools.acceptance.model_card import write_cards
from brats_fl_tools.acceptance.page import render_acceptance
from brats_fl_tools.one_writer import writes
from brats_fl_tools.report import PAGE_IN_3D, REPORT_FILE, ReportFiles, refuse_to_overwrite, write_file, write_in_3d
from brats_fl_tools.report.viewer import Wanted

ACCEPTANCE_FILE: Final = "acceptance.json"


@writes("out", within=REPORT_FILE)
def write_acceptance(
    out: Path,
    *,
    force: bool = False,
    sites: Path | None = None,
    sound: Collection[str] = (),
    institutions: Mapping[str, str] = MappingProxyType({}),
    wanted: Wanted | None = None,
    with_gate: bool = True,
) -> ReportFiles:
    """Write ``report.html`` and ``acceptance.json`` into the folder of a study; each appears whole or not at all.

    Every federated run gets its model's card, which ``brats-fl export`` takes along.

    Args:
        out: The folder.
        force: Whether an earlier report may be replaced.
        sites: Where the data lists are, for pictures; by default where the runs say.
        sound: Hospitals whose labels were looked at and found sound.
        institutions: Case -> institution, where a case table names it.
        wanted: For ``report-3d.html``, the page with cases in 3-D; by default none is written.
        with_gate: Whether the data gate reads the cases of the lists that are at hand.

    Raises:
        RunError: As ``judge_study``, or a report is there and ``force`` is not given.
    """
    page_path, figures_path = out / REPORT_FILE, out / ACCEPTANCE_FILE
    for path in (page_path, figures_path, out / PAGE_IN_3D):
        refuse_to_overwrite(path, force)
    acceptance = judge_study(out, sound, institutions, sites, with_gate)
    page = render_acceptance(out, acceptance, sites, wanted)
    write_file(figures_path, json.dumps(as_json(acceptance), indent=1, allow_nan=False) + "\n")
    write_cards(out, acceptance)
    write_file(page_path, page.html)
    return ReportFiles(page_path, figures_path, page.notes, write_in_3d(out, page))
