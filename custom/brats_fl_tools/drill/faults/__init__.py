"""The faults: each breaks something in a running federation and says what came of it.

A module for each kind of thing that breaks; here they are one table, in the order in which the drill goes through them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from brats_fl_tools.drill.faults import (
    admission,
    attendance,
    contracts,
    disks,
    doors,
    ledgers,
    masking,
    network,
    privacy,
    processes,
    sites,
    size,
    statistics,
    submissions,
    unapproved,
)
from brats_fl_tools.drill.faults.verdicts import Fault

FAULTS: Final[Mapping[str, Fault]] = {
    **processes.FAULTS,
    **attendance.FAULTS,
    **network.FAULTS,
    **sites.FAULTS,
    **statistics.FAULTS,
    **disks.FAULTS,
    **admission.FAULTS,
    **submissions.FAULTS,
    **unapproved.FAULTS,
    **doors.FAULTS,
    **privacy.FAULTS,
    **contracts.FAULTS,
    **ledgers.FAULTS,
    **masking.FAULTS,
    **size.FAULTS,
}
