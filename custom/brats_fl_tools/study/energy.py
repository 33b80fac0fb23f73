"""The energy that this machine's processors and memory took, where the kernel tells it and this user may read it.

Linux counts it in ``/sys/class/powercap/intel-rapl:*``, of Intel and AMD; a GPU, disks and fans are not in it. Whatever
else computes on the machine is.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

POWERCAP: Final = Path("/sys/class/powercap")
SAMPLE_SECONDS: Final = 60.0
"""A counter begins again after 0.26 MJ or more: at 1,000 W in four minutes."""


class EnergyMeter:
    """Adds up what the counters say from when it is made; several threads may ask it."""

    def __init__(self, root: Path = POWERCAP) -> None:
        self.root = root
        self._last = read_counters(root)
        self._spent = 0.0
        self._lock = threading.Lock()

    def joules(self) -> float | None:
        """So far; None where the machine does not tell. To be asked at least once before a counter begins again."""
        with self._lock:
            now = read_counters(self.root)
            if not now or now.keys() != self._last.keys():
                self._last = {}  # told no longer: what was meanwhile is not known any more
                return None
            for zone, (count, limit) in now.items():
                self._spent += ((count - self._last[zone][0]) % (limit + 1)) / 1e6
            self._last = now
            return self._spent


def read_counters(root: Path = POWERCAP) -> dict[str, tuple[int, int]]:
    """Zone -> microjoules, and the most that its counter holds; of processors and memory, none counted twice."""
    found: dict[str, tuple[int, int]] = {}
    for zone in sorted(root.glob("intel-rapl:*")):
        try:
            name = (zone / "name").read_text(encoding="ascii").strip()
            # A package holds its cores, and `psys` the packages; `intel-rapl-mmio` counts the same once more.
            if name.startswith("package") or name == "dram":
                found[zone.name] = (
                    int((zone / "energy_uj").read_text()),
                    int((zone / "max_energy_range_uj").read_text()),
                )
        except (OSError, ValueError):
            return {}  # a part of it would be told for the whole
    return found


@contextmanager
def metering(root: Path = POWERCAP) -> Iterator[EnergyMeter]:
    """A meter that is asked often enough while the block runs."""
    meter, done = EnergyMeter(root), threading.Event()

    def keep_sampling() -> None:
        while not done.wait(SAMPLE_SECONDS):
            meter.joules()

    thread = threading.Thread(target=keep_sampling, daemon=True)
    thread.start()
    try:
        yield meter
    finally:
        done.set()
        thread.join()
