"""All rules for one case: headers first, then the voxels of each file, read once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from brats_fl.cases.datalists import Case
from brats_fl.cases.grids import Grid, main_grid
from brats_fl.cases.regions import to_library_labels
from brats_fl.constants import MODALITIES
from brats_fl.errors import CaseError
from brats_fl.gate.appearance import check_copies, check_order
from brats_fl.gate.brain import check_background, check_same_place, check_wholeness
from brats_fl.gate.findings import Finding
from brats_fl.gate.headers import check_case_headers
from brats_fl.gate.labels import check_in_brain, check_parts, check_values
from brats_fl.gate.tumour_fit import check_place
from brats_fl.gate.voxels import ReadCase, read_case


@dataclass(frozen=True)
class CaseVerdict:
    """What the gate found in one case."""

    findings: list[Finding]
    grid: Grid | None = None
    """The one that most of its scans have; None where none is sound."""
    looks: Mapping[str, bytes] = field(default_factory=dict)
    """Modality -> ``fingerprints.describe_scan``, to find the scan in other cases."""


def check_case_headers_only(case: Case) -> CaseVerdict:
    """The rules for one case that need no voxel."""
    findings, grids = check_case_headers(case)
    return CaseVerdict(findings, main_grid(grids) if grids else None)


def check_case(case: Case) -> CaseVerdict:
    """Every rule for one case; its files are read once, one full-size scan and the case at 2 mm in memory."""
    findings, grids = check_case_headers(case)
    if not grids:
        return CaseVerdict(findings)
    grid = main_grid(grids)
    read = read_case(case, grids, grid)
    findings += read.findings
    if read.label_values is not None:
        findings += check_values(case, read.label_values)
    if len({grid.shape for grid in grids.values()}) == 1 and read.thin.scans:
        findings += _check_brains(case, read, grid)
        findings += _check_label(case, read)
    return CaseVerdict(findings, grid, read.looks)


def _check_brains(case: Case, read: ReadCase, grid: Grid) -> list[Finding]:
    findings = check_background(case.case, read.thin, read.backgrounds)
    if not findings:  # a head is not measured as a brain
        findings += check_wholeness(case.case, read.thin, grid)
        findings += check_same_place(case.case, read.thin)
    return findings + check_copies(case.case, read.thin)


def _check_label(case: Case, read: ReadCase) -> list[Finding]:
    """Rules that need scans and label. Where the label lies wrong, what depends on its place is left."""
    if read.thin.label is None:
        return []
    try:
        label = to_library_labels(read.thin.label, case.labels)
    except CaseError:  # its values have their own rules
        return []
    if not label.any():
        return []
    findings = check_in_brain(case.case, read.thin, label)
    findings += check_place(case.case, read.thin, label)
    if not findings:
        findings += check_parts(case, read.thin, label)
        if set(read.thin.scans) == set(MODALITIES):
            findings += check_order(case.case, read.thin, label)
    return findings
