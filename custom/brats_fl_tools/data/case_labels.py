"""What is in a label file: its values, the tumour's volume, and whether the values are of a convention."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import track

from brats_fl.cases.regions import count_voxels, fitting_tables, list_values, round_nearly_whole
from brats_fl.cases.scans import VolumeReader
from brats_fl.constants import LABEL_TABLES
from brats_fl.errors import CaseError
from brats_fl_tools.data.case_table import CaseRow


@dataclass(frozen=True)
class LabelFacts:
    """What the voxels of a label say."""

    values: tuple[int, ...]
    """Label values in the file other than 0, sorted."""
    tumour_ml: float
    """Volume of everything that is marked, the whole tumour, to 0.001 ml."""


def read_label(file: Path) -> LabelFacts:
    """Values and volume of a label.

    Args:
        file: A NIfTI file, or a volume of a 4-D one as ``path#k``.

    Raises:
        CaseError: The file cannot be read to its end, or a value is no whole number.
    """
    label = VolumeReader().read(file)
    flat = label.voxels.ravel(order="K")  # in the file's own order: five times as fast to search
    marked = round_nearly_whole(flat[flat != 0])
    marked = marked[marked != 0]
    values, counts = np.unique(marked, return_counts=True)
    odd = ~np.isfinite(values) | (values != np.rint(values))
    if odd.any():
        found = f"{list_values(values[odd])} in {count_voxels(int(counts[odd].sum()))}"
        raise CaseError(f"{file} holds {found}; a label's values are whole numbers: resample it by nearest neighbour")
    return LabelFacts(tuple(int(value) for value in values), round(marked.size * label.grid.voxel_ml, 3))


def check_convention(file: Path, values: Sequence[int], labels: str) -> None:
    """Raise ``CaseError`` where a label holds a value that its convention does not have."""
    unknown = [value for value in values if value not in LABEL_TABLES[labels]]
    if not unknown:
        return
    fitting = fitting_tables(values)
    mend = (
        f"if all labels follow {' or '.join(fitting)}, say so with --labels or in the mapping"
        if fitting
        else "no convention has it"
    )
    # BraTS 2024's post-treatment cases mark the resection cavity with 4, which is no part of any region here.
    cavity = "; a 4 after BraTS 2023 may be a resection cavity, which no region has" if labels == "brats2023" else ""
    allowed = ", ".join(str(value) for value in LABEL_TABLES[labels])
    raise CaseError(
        f"{file} holds the label value {unknown[0]}, {labels} has {allowed} only; {mend}{cavity}; else mend the label"
    )


def with_volumes(rows: Sequence[CaseRow]) -> list[CaseRow]:
    """Rows whose ``tumour_ml`` is filled in, from the label where the table does not tell.

    Raises:
        CaseError: A label cannot be read.
    """
    console = Console(stderr=True)
    with ThreadPoolExecutor() as pool:
        filled = pool.map(_with_volume, rows)
        return list(track(filled, "reading labels", total=len(rows), console=console, disable=not console.is_terminal))


def _with_volume(row: CaseRow) -> CaseRow:
    if row.tumour_ml is not None or row.label is None:
        return row
    return replace(row, tumour_ml=read_label(row.label).tumour_ml)
