"""What a model must reach, said before the first run: the thresholds of a study, a file of their own.

Its SHA-256 is recorded before anything is trained, so that nobody can say later that it was written to fit.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Final

from brats_fl.errors import RunError
from brats_fl.reading import Reader
from brats_fl.typed import shorten

READER: Final = Reader(
    RunError, "mend it before the first run", "no such file of thresholds; write it, or leave it out"
)


@dataclass(frozen=True)
class Thresholds:
    """What is asked of the federated models; what is None is not asked."""

    least_mean_dice: float | None = None
    """Mean Dice of the regions over all test cases."""
    least_worst_site_dice: float | None = None
    """The same of the hospital where it is lowest."""
    least_share_of_central: float | None = None
    """Federated mean Dice over that of the model of all lists pooled."""
    above_local: bool = False
    """Whether no hospital may do better with the model of its own cases alone."""
    most_hd95_mm: float | None = None
    """Median HD95 of a region."""
    most_volume_bias_ml: float | None = None
    """Mean difference of a region's volume from the reference, its sign left out."""

    def __post_init__(self) -> None:
        """Check the ranges.

        Raises:
            ValueError: A Dice is not in [0, 1], another figure is below 0, or nothing is asked.
        """
        if all(getattr(self, field.name) == field.default for field in fields(self)):
            raise ValueError("it asks for nothing; set at least one of " + ", ".join(f.name for f in fields(self)))
        for name in ("least_mean_dice", "least_worst_site_dice"):
            value = getattr(self, name)
            if value is not None and not 0 <= value <= 1:
                raise ValueError(f"{name} must be from 0 to 1 (got {shorten(value)})")
        for name in ("least_share_of_central", "most_hd95_mm", "most_volume_bias_ml"):
            value = getattr(self, name)
            if value is not None and value < 0:
                raise ValueError(f"{name} must be 0 or more (got {shorten(value)})")


def read_thresholds(path: Path) -> Thresholds:
    """The thresholds of a file.

    Raises:
        RunError: It cannot be read, has an unknown key or a value out of its range, or asks for nothing.
    """
    return READER.typed(Thresholds, READER.toml(path), path)
