"""What the data gate finds in a study's lists, in its report: counted, and no case by its name."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

from tests.study_folders import even, write_study_folder
from tests.tiny_sites import make_tiny_sites

from brats_fl.cases.datalists import DATALIST_FILE, read_datalist
from brats_fl.gate import Finding, check_headers
from brats_fl.gate.acceptance import Acceptance, write_acceptances
from brats_fl_tools.acceptance.evidence import gather_evidence
from brats_fl_tools.acceptance.gate import GateFindings, check_study, count_findings
from brats_fl_tools.study.record import read_record

DICE = {"hospital-1": even(0.8), "hospital-2": even(0.7)}


def test_findings_are_counted_by_hospital_and_rule():
    space = Finding("G09-not-template-space", "is elsewhere", "a1", site="b")
    place = Finding("G47-label-not-on-image", "lies elsewhere", "a1", "label", "b")
    found = [space, place, replace(place, case="a2"), replace(place, case="a3", accepted="accepted by X"),
             replace(place, case="a4", doubtful=True), replace(space, site="a")]  # fmt: skip

    counts = count_findings(found)

    assert [(one.site, one.rule[:3], one.errors, one.warnings, one.accepted) for one in counts] == [
        ("b", "G09", 0, 1, 0),
        ("b", "G47", 2, 1, 1),
        ("a", "G09", 0, 1, 0),
    ]


def checked(out: Path, sites: Path | None = None) -> GateFindings:
    (found,) = check_study(gather_evidence(out, read_record(out)).candidates, sites)
    return found


def test_lists_that_are_at_hand_are_checked_and_what_was_accepted_is_told_apart(tmp_path: Path):
    out = write_study_folder(tmp_path / "study", (DICE,))
    make_tiny_sites(tmp_path / "now", {"hospital-1": (1, 0, 1)})
    datalist = tmp_path / "now" / "hospital-1" / DATALIST_FILE
    label = Path(str(read_datalist(datalist).training[0].label))
    label.unlink()

    found = checked(out, tmp_path / "now")

    assert (found.cases, found.absent) == ({"hospital-1": 2}, ("hospital-2",))
    by_rule = {one.rule: (one.errors, one.warnings, one.accepted) for one in found.counts}
    assert by_rule["G01-file-missing"] == (1, 0, 0)
    assert by_rule["G08-spacing-not-1mm"] == (
        0,
        1,
        0,
    )  # 2 mm; the other case was not read on
    assert "hospital-1-case" not in json.dumps(asdict(found))

    spacing = next(one for one in check_headers(read_datalist(datalist)) if one.rule == "G08-spacing-not-1mm")
    write_acceptances(
        datalist, [Acceptance(spacing.rule, spacing.case, spacing.scan, spacing.found, "X", "2026-01-01")]
    )
    again = {one.rule: one for one in checked(out, tmp_path / "now").counts}
    assert (again["G08-spacing-not-1mm"].warnings, again["G08-spacing-not-1mm"].accepted) == (0, 1)


def test_scans_that_are_not_there_are_said_to_be_absent_and_not_to_be_wrong(tmp_path: Path):
    found = checked(write_study_folder(tmp_path / "study", (DICE,)))

    assert (found.cases, found.absent, found.counts) == ({}, ("hospital-1", "hospital-2"), ())
