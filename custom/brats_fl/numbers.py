"""What counts as a number, where it comes from a site, a job or a file."""

from __future__ import annotations

import sys
from typing import TypeGuard

LARGEST = sys.float_info.max


def is_finite(value: object) -> TypeGuard[float]:
    """Whether a value is a finite number that a float can hold: JSON has whole numbers of any length."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and -LARGEST <= value <= LARGEST
