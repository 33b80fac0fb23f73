"""The figures that a case has per region beside Dice, HD95 and volumes: their columns, limits and which end is bad."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final, Literal

from brats_fl.files import CASE_TABLE_COLUMNS


@dataclass(frozen=True)
class Column:
    """A further figure of the evaluation table; ``docs/metrics.md`` has its definition."""

    name: str
    title: str
    """For a reader, with its unit."""
    worst: Literal["lowest", "largest"]
    digits: int = 5
    """Decimals in the table."""
    highest: float = 1.0
    """No value is above; none is below 0."""
    is_count: bool = False
    """Whether cases are added up and not averaged."""


FURTHER: Final = (
    Column("nsd_1mm", "Surface Dice at 1 mm", "lowest"),
    Column("sensitivity", "Sensitivity", "lowest"),
    Column("precision", "Precision", "lowest"),
    Column("lesion_dice", "Lesion-wise Dice", "lowest"),
    Column("lesion_hd95_mm", "Lesion-wise HD95 in mm", "largest", digits=3, highest=math.inf),
    Column("lesions_found", "Lesions found", "lowest", digits=0, highest=math.inf, is_count=True),
    Column("lesions_missed", "Lesions missed", "largest", digits=0, highest=math.inf, is_count=True),
    Column("lesions_false", "False lesions", "largest", digits=0, highest=math.inf, is_count=True),
    Column("ece", "Calibration error", "largest"),
    Column("entropy_bits", "Entropy in bits", "largest"),
)
"""After the columns of ``CASE_TABLE_COLUMNS``, in this order; a field is empty where the figure is not known."""

ALL_COLUMNS: Final = (*CASE_TABLE_COLUMNS, *(column.name for column in FURTHER))
