"""Rules about a whole list, or about the lists of several hospitals on one machine: nothing counts twice."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from brats_fl.cases.datalists import Case, DataList, scans_of
from brats_fl.cases.grids import Grid
from brats_fl.cases.scans import split_volume
from brats_fl.constants import LABEL, SPLITS
from brats_fl.gate.findings import Finding

NEAR_1_MM = 0.1
"""Voxel sizes within this of 1 mm are near it."""


class Entry(NamedTuple):
    """A case where a list names it."""

    site: str
    split: str
    case: Case


def entries_of(datalists: Iterable[DataList]) -> list[Entry]:
    """Every entry of the lists, site by site, split by split."""
    return [Entry(d.site, split, case) for d in datalists for split in SPLITS for case in d.split(split)]


def find_repeats(entries: Sequence[Entry]) -> list[Finding]:
    """Cases, patients and scan files that stand in more than one place; a finding for every place but the first."""
    findings = []
    first_case: dict[str, Entry] = {}
    first_patient: dict[str, Entry] = {}
    first_scan: dict[tuple[str, int | None], Entry] = {}
    for entry in entries:
        case = entry.case
        first = first_case.setdefault(case.case, entry)
        if first is not entry:
            findings.append(_repeat("G11-case-twice", f"is also in {_place(first, entry)}", entry))
            continue
        first = first_patient.setdefault(case.patient, entry)
        if (first.site, first.split) != (entry.site, entry.split):
            found = f"patient {case.patient} is also in {_place(first, entry)}, as {first.case.case}"
            findings.append(_repeat("G12-patient-twice", found, entry))
        for name, scan in scans_of(case).items():
            file, number = split_volume(scan)
            first = first_scan.setdefault((str(file.resolve()), number), entry)
            if first is not entry or _named_before(case, name, scan):
                found = f"{Path(scan).name} is also listed for {_named(first, entry)}"
                findings.append(Finding("G13-scan-twice", found, case.case, name, entry.site))
    return findings


def _named_before(case: Case, name: str, scan: str) -> bool:
    """Whether an earlier scan of the same case is the same file."""
    names = list(scans_of(case))
    return name != LABEL and scan in list(case.image)[: names.index(name)]


def _repeat(rule: str, found: str, entry: Entry) -> Finding:
    return Finding(rule, found, entry.case.case, site=entry.site)


def _place(first: Entry, other: Entry) -> str:
    return first.split if first.site == other.site else f"{first.split} of {first.site}"


def _named(first: Entry, other: Entry) -> str:
    if first.case.case == other.case.case:
        return "another modality of the case"
    return first.case.case if first.site == other.site else f"{first.case.case} of {first.site}"


def find_copies(entries: Sequence[Entry], looks: Mapping[tuple[str, str], Mapping[str, bytes]]) -> Iterator[Finding]:
    """Cases with scans that show the same picture as a scan of an earlier case, whatever their files are called.

    Args:
        entries: The cases.
        looks: (site, case) -> modality -> its ``fingerprints.describe_scan``; cases that could not be read are absent.
    """
    first_look: dict[bytes, Entry] = {}
    for entry in entries:
        same: dict[Entry, list[str]] = defaultdict(list)
        for name, look in looks.get((entry.site, entry.case.case), {}).items():
            first = first_look.setdefault(look, entry)
            if first.case.case != entry.case.case:
                same[first].append(name)
        for first, names in same.items():
            verb = "shows" if len(names) == 1 else "show"
            found = f"{', '.join(names)} {verb} the same as scans of {first.case.case}, in {_place(first, entry)}"
            yield Finding("G13-scan-twice", found, entry.case.case, site=entry.site)


def find_odd_spacings(entries: Sequence[Entry], grids: Mapping[tuple[str, str], Grid]) -> Iterator[Finding]:
    """One finding for each site and each voxel size that is not near 1 mm.

    Args:
        entries: The cases.
        grids: (site, case) -> the case's grid; cases without a sound scan are absent.
    """
    groups: dict[tuple[str, str], list[str]] = defaultdict(list)
    for entry in entries:
        grid = grids.get((entry.site, entry.case.case))
        if grid is not None and np.abs(grid.spacing_mm - 1).max() > NEAR_1_MM:
            spacing = " x ".join(f"{size:.3g}" for size in grid.spacing_mm)
            groups[entry.site, spacing].append(entry.case.case)
    totals: dict[str, int] = defaultdict(int)
    for entry in entries:
        totals[entry.site] += 1
    for (site, spacing), cases in groups.items():
        found = f"{len(cases)} of {totals[site]} cases have voxels of {spacing} mm, such as {cases[0]}"
        yield Finding("G08-spacing-not-1mm", found, cases[0] if len(cases) == 1 else "", site=site)
