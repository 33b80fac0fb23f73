"""Energy of a machine's processors, from counters as Linux shows them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from tests.study_folders import a_run

from brats_fl_tools.study.command import energy_of
from brats_fl_tools.study.energy import EnergyMeter, metering

LIMIT = 262_143_328_850


def write_zone(root: Path, zone: str, name: str, microjoules: int, limit: int = LIMIT) -> None:
    (root / zone).mkdir(parents=True, exist_ok=True)
    for file, value in (("name", name), ("energy_uj", microjoules), ("max_energy_range_uj", limit)):
        (root / zone / file).write_text(f"{value}\n")


def test_packages_and_memory_are_added_up_and_nothing_counts_twice(tmp_path: Path):
    zones = {"intel-rapl:0": "package-0", "intel-rapl:1": "package-1", "intel-rapl:0:0": "core",
             "intel-rapl:0:1": "dram", "intel-rapl:2": "psys", "intel-rapl-mmio:0": "package-0"}  # fmt: skip
    for zone, name in zones.items():
        write_zone(tmp_path, zone, name, 1_000_000)
    with metering(tmp_path) as meter:
        assert meter.joules() == 0
        for zone, name in zones.items():
            write_zone(tmp_path, zone, name, 3_000_000)

        assert meter.joules() == 6  # 2 J each of two packages and the memory


def test_counter_that_begins_again_is_gone_on_with(tmp_path: Path):
    write_zone(tmp_path, "intel-rapl:0", "package-0", 9_000_000, limit=9_999_999)
    meter = EnergyMeter(tmp_path)
    write_zone(tmp_path, "intel-rapl:0", "package-0", 500_000, limit=9_999_999)

    assert meter.joules() == 1.5


def test_machine_without_counters_or_one_that_hides_them_tells_nothing(tmp_path: Path):
    assert EnergyMeter(tmp_path).joules() is None
    write_zone(tmp_path, "intel-rapl:0", "package-0", 1)
    meter = EnergyMeter(tmp_path)
    (tmp_path / "intel-rapl:0" / "energy_uj").unlink()

    assert meter.joules() is None
    write_zone(tmp_path, "intel-rapl:0", "package-0", 2)
    assert meter.joules() is None  # what it took meanwhile is not known


Joules = float | None


@pytest.mark.parametrize(
    ("seconds", "earlier", "before", "now", "expected"),
    [
        (0.0, None, 10.0, 25.5, 15.5),
        (60.0, 100.0, 10.0, 25.5, 115.5),
        (60.0, None, 10.0, 25.5, None),  # its first part was not told
        (0.0, None, None, None, None),
    ],
)
def test_energy_of_a_run_is_that_of_all_its_parts(
    seconds: float, earlier: Joules, before: Joules, now: Joules, expected: Joules, tmp_path: Path
):
    known = replace(a_run(tmp_path, "federated", ("hospital-1",)), seconds=seconds, joules=earlier)

    assert energy_of(known, before, now) == expected
