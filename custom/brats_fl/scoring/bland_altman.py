"""How far predicted volumes are from the reference's: bias and limits of agreement over cases."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Final

WITHIN_95: Final = 1.96
"""Standard deviations to each side of a normal distribution's mean that hold 95 % of it."""


@dataclass(frozen=True)
class VolumeBias:
    """Predicted less reference volume over cases, in ml."""

    bias_ml: float
    """Mean: above 0 the predictions are too large."""
    sd_ml: float | None
    """Standard deviation with n - 1; None of a single case, as are the limits."""
    lower_ml: float | None
    """About 95 % of cases lie between the limits, if the differences are normally distributed."""
    upper_ml: float | None


def volume_bias(predicted_ml: Sequence[float], reference_ml: Sequence[float]) -> VolumeBias | None:
    """Bias and limits of agreement; None without a case.

    Args:
        predicted_ml: A volume a case.
        reference_ml: The same cases' volumes in the reference.

    Source: Bland and Altman 1986, doi:10.1016/S0140-6736(86)90837-8.
    """
    differences = [one - other for one, other in zip(predicted_ml, reference_ml, strict=True)]
    if not differences:
        return None
    bias = fmean(differences)
    if len(differences) == 1:
        return VolumeBias(bias, None, None, None)
    sd = stdev(differences)
    return VolumeBias(bias, sd, bias - WITHIN_95 * sd, bias + WITHIN_95 * sd)
