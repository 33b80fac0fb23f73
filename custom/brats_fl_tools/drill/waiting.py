"""Waiting for what must come, and not longer."""

from __future__ import annotations

import time
from collections.abc import Callable

from brats_fl.errors import RunError

WAIT_SECONDS = 600.0
POLL_SECONDS = 0.3


def wait_until(
    condition: Callable[[], bool], what: str, seconds: float = WAIT_SECONDS, poll_seconds: float = POLL_SECONDS
) -> float:
    """Return, with the seconds it took, when a condition holds.

    Raises:
        RunError: It does not in time.
    """
    begin = time.monotonic()
    while not condition():
        if time.monotonic() - begin > seconds:
            raise RunError(f"waited {seconds:.0f} s for {what} in vain")
        time.sleep(poll_seconds)
    return time.monotonic() - begin
