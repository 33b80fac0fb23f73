"""Rows of a case table that name no file."""

from __future__ import annotations

from pathlib import Path

from brats_fl.constants import MODALITIES
from brats_fl_tools.data.case_table import CaseRow


def make_row(
    case: str,
    institution: str = "",
    patient: str = "",
    hospital: str = "",
    label: bool = True,
    grade: str = "",
    tumour_ml: float | None = 10.0,
) -> CaseRow:
    """A case of its own patient, unless one is given."""
    folder = Path("/scans", case)
    return CaseRow(
        case=case,
        patient=patient or case,
        image=tuple(folder / f"{modality}.nii" for modality in MODALITIES),
        label=folder / "seg.nii" if label else None,
        labels="brats2018-2021",
        shape=(4, 5, 6),
        spacing_mm=(1.0, 1.0, 1.0),
        institution=institution,
        hospital=hospital,
        grade=grade,
        tumour_ml=tumour_ml,
    )


def make_rows(**sizes: int) -> list[CaseRow]:
    """``A=2`` gives the cases A-0 and A-1 of institution A."""
    return [make_row(f"{name}-{number}", name) for name, size in sizes.items() for number in range(size)]
