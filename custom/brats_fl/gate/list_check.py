"""All rules for a list of cases: the cheap part that a job begins with, and the whole."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from brats_fl.cases.datalists import DataList
from brats_fl.gate.case import CaseVerdict, check_case_headers_only
from brats_fl.gate.findings import Finding
from brats_fl.gate.lists import Entry, entries_of, find_copies, find_odd_spacings, find_repeats


def check_headers(datalist: DataList) -> list[Finding]:
    """Findings that need no voxel: files are there, whole and readable, grids agree, nothing is listed twice.

    About 10 ms a case. ``refuse_errors`` makes an exception of the errors among them.
    """
    entries = entries_of([datalist])
    return check_list(entries, [check_case_headers_only(entry.case) for entry in entries])


def check_list(entries: Sequence[Entry], verdicts: Sequence[CaseVerdict]) -> list[Finding]:
    """The findings of every case, with its site, and those about the list as a whole.

    Args:
        entries: The cases, as ``entries_of`` gives them.
        verdicts: What was found in each, in the same order.
    """
    findings = [
        replace(finding, site=entry.site)
        for entry, verdict in zip(entries, verdicts, strict=True)
        for finding in verdict.findings
    ]
    by_case: Mapping[tuple[str, str], CaseVerdict] = {
        (entry.site, entry.case.case): verdict for entry, verdict in zip(entries, verdicts, strict=True)
    }
    findings += find_repeats(entries)
    listed_twice = {(finding.site, finding.case) for finding in findings if finding.rule == "G13-scan-twice"}
    looks = {key: verdict.looks for key, verdict in by_case.items() if key not in listed_twice}
    findings += find_copies(entries, looks)
    grids = {key: verdict.grid for key, verdict in by_case.items() if verdict.grid is not None}
    findings += find_odd_spacings(entries, grids)
    return findings
