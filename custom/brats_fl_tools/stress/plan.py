"""Which degradations in which grades: all of the table, or what was asked for.

PyTorch is not imported here: the command line asks for names and grades only.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, NamedTuple

from brats_fl.constants import MODALITIES
from brats_fl.numbers import is_finite
from brats_fl.typed import shorten


@dataclass(frozen=True)
class Degradation:
    """A way in which scans may be worse, and its grades."""

    name: str
    title: str
    unit: str
    """Of the strength, as it stands under an axis."""
    strengths: tuple[float, ...]
    """The grades, from mild to severe."""
    limits: tuple[float, float]
    """Least and largest strength that there is; the first is left out where it is the neutral one."""
    neutral: float | None
    """Strength at which nothing changes; None where strengths are numbers of ``names``."""
    names: tuple[str, ...] = ()

    def label(self, strength: float) -> str:
        """A grade in the table: ``0.5``, ``t1c``."""
        return self.names[int(strength)] if self.names else f"{strength:g}"


UNCHANGED: Final = "none"
"""Degradation, and grade, of the scans as they are."""

DEGRADATIONS: Final[Mapping[str, Degradation]] = MappingProxyType(
    {
        one.name: one
        for one in (
            # 0.3 standard deviations is the most that training adds.
            Degradation("noise", "Noise", "× the brain's SD", (0.25, 0.5, 1.0), (0, 10), 0),
            # BrainWeb's fields of 20 and 40 % go from 0.9 to 1.1 and from 0.8 to 1.2 (doi:10.1109/42.816072).
            Degradation("bias", "Bias field", "× from least to largest", (1.2, 1.5, 2.5), (1, 20), 1),
            Degradation("blur", "Blur", "mm FWHM", (2.0, 4.0, 6.0), (0, 30), 0),
            # nnU-Net trains with 0.7 to 1.5 (doi:10.1038/s41592-020-01008-z).
            Degradation("gamma", "Gamma", "as exponent", (0.5, 0.7, 1.5, 2.0), (0.1, 10), 1),
            Degradation("shift", "Shift of one modality", "mm", (1.0, 2.0, 4.0), (0, 50), 0),
            # 2-D scans of BraTS have slices of up to 6 mm (Menze et al. 2015, doi:10.1109/TMI.2014.2377694).
            Degradation("resolution", "Thick slices", "mm", (3.0, 5.0, 7.0), (0, 50), 0),
            Degradation("missing", "Missing modality", "", (0, 1, 2, 3), (0, len(MODALITIES) - 1), None, MODALITIES),
        )
    }
)
"""Name on the command line and in tables -> degradation, in the order in which they are made and shown."""


class Grade(NamedTuple):
    """A degradation in one strength; ``UNCHANGED`` twice stands for the scans as they are."""

    degradation: str
    grade: str


AS_IT_IS: Final = Grade(UNCHANGED, UNCHANGED)


def make_plan(only: str | None = None, grades: Sequence[str] = ()) -> dict[Grade, float]:
    """The grades to make, with their strengths; the scans as they are first, once for all degradations.

    Args:
        only: Names of degradations with commas between them; None for all, or for those that ``grades`` names.
        grades: ``NAME=STRENGTH,STRENGTH`` in place of a degradation's own grades.

    Raises:
        ValueError: A name or a strength is none.
    """
    own = dict(_parse_grades(text) for text in grades)
    names = [_known(name.strip()) for name in only.split(",")] if only is not None else list(own or DEGRADATIONS)
    if unused := [name for name in own if name not in names]:
        raise ValueError(f"--grades {unused[0]}=...: --only leaves {unused[0]} out")
    plan = {AS_IT_IS: 0.0}
    for degradation in (one for name, one in DEGRADATIONS.items() if name in names):
        for strength in own.get(degradation.name, degradation.strengths):
            plan[Grade(degradation.name, degradation.label(strength))] = strength
    return plan


def _parse_grades(text: str) -> tuple[str, tuple[float, ...]]:
    name, equals, strengths = text.partition("=")
    if not equals:
        raise ValueError(f"--grades must be NAME=STRENGTH,STRENGTH (got {shorten(text)})")
    degradation = DEGRADATIONS[_known(name.strip())]
    return degradation.name, tuple(
        sorted({_parse_strength(degradation, part.strip()) for part in strengths.split(",")})
    )


def _known(name: str) -> str:
    if name not in DEGRADATIONS:
        raise ValueError(f"no degradation {shorten(name)}; there are {', '.join(DEGRADATIONS)}")
    return name


def _parse_strength(degradation: Degradation, text: str) -> float:
    if degradation.names:
        if text not in degradation.names:
            raise ValueError(
                f"grade of {degradation.name} must be one of {', '.join(degradation.names)} (got {shorten(text)})"
            )
        return degradation.names.index(text)
    least, most = degradation.limits
    try:
        strength = float(text)
    except ValueError:
        strength = math.nan
    if not is_finite(strength) or not least <= strength <= most or strength == degradation.neutral:
        other = (
            f", other than {degradation.neutral:g}, which changes nothing" if degradation.neutral is not None else ""
        )
        raise ValueError(
            f"grade of {degradation.name} must be a number from {least:g} to {most:g} ({degradation.unit}){other} "
            f"(got {shorten(text)})"
        )
    return strength


def severity(degradation: Degradation, strength: float) -> float:
    """How far a strength is from a scan as it is: what is milder has less, within one degradation."""
    return 0.0 if degradation.neutral is None else abs(strength - degradation.neutral)
