"""Rules that need no voxel: files are there, whole and readable, and the files of a case share a usable grid."""

from __future__ import annotations

from types import MappingProxyType
from typing import Final

import numpy as np

from brats_fl.cases.datalists import Case, scans_of
from brats_fl.cases.grids import Grid, find_odd_grids, main_grid, show
from brats_fl.cases.scans import read_grid
from brats_fl.errors import ScanError, ScanFault
from brats_fl.gate.findings import Finding

RULE_OF: Final = MappingProxyType(
    {
        ScanFault.MISSING: "G01-file-missing",
        ScanFault.UNREADABLE: "G02-file-unreadable",
        ScanFault.TRUNCATED: "G03-file-truncated",
        ScanFault.NOT_3D: "G04-not-3d",
        ScanFault.BAD_GRID: "G07-grid-invalid",
    }
)
"""Fault of a file -> the rule that it breaks."""

TEMPLATE_MM: Final = (240.0, 240.0, 155.0)
"""Field of view of BraTS's space, which is SRI24's (Rohlfing et al. 2010, doi:10.1002/hbm.20906)."""

TEMPLATE_CORNER_MM: Final = (0.5, 239.5, -0.5)
"""Outer corner of the first voxel in scanner coordinates (RAS), the same at 1 mm and at 2 mm."""

TEMPLATE_AXES: Final = ("L", "P", "S")


def check_case_headers(case: Case) -> tuple[list[Finding], dict[str, Grid]]:
    """Findings about the files of a case, and the grid of every scan whose file is sound."""
    findings: list[Finding] = []
    grids: dict[str, Grid] = {}
    for name, scan in scans_of(case).items():
        try:
            grids[name] = read_grid(scan)
        except ScanError as error:
            findings.append(file_finding(error, case.case, name))
    findings += [
        Finding("G05-shape-differs" if odd.shape_differs else "G06-affine-differs", odd.found, case.case, odd.scan)
        for odd in find_odd_grids(grids)
    ]
    if grids and (off := _off_template(main_grid(grids))):
        findings.append(Finding("G09-not-template-space", off, case.case))
    return findings, grids


def file_finding(error: ScanError, case: str, scan: str) -> Finding:
    """The fault of a file as a finding."""
    return Finding(RULE_OF[error.fault], error.found, case, scan)


def _off_template(grid: Grid) -> str | None:
    """How a grid differs from BraTS's field of view, whatever its voxel size; None where it does not."""
    if grid.axes != "".join(TEMPLATE_AXES):
        return f"orientation {grid.axes}, not {''.join(TEMPLATE_AXES)}"
    extent = np.array(grid.shape) * grid.spacing_mm
    # A voxel size that does not divide the field of view is rounded up to whole voxels.
    if np.any(np.abs(extent - TEMPLATE_MM) >= grid.spacing_mm):
        return f"field of view {show(np.round(extent, 1))} mm, not {show(TEMPLATE_MM)} mm"
    corner = grid.affine[:3] @ [-0.5, -0.5, -0.5, 1]
    if np.abs(corner - TEMPLATE_CORNER_MM).max() > 1.0:
        return f"field of view begins at {show(np.round(corner, 1))} mm, not at {show(TEMPLATE_CORNER_MM)} mm"
    return None
