"""What a study takes, from what a step takes: a reader can redo every figure."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.study_files import TWO_JOBS, write_study

from brats_fl_tools.jobs.source import read_source
from brats_fl_tools.study.costs import Cost, cache_bytes, cost_of, exchanged, size
from brats_fl_tools.study.definition import read_study
from brats_fl_tools.study.expansion import expand, find_job
from brats_fl_tools.study.measuring import Measured

MEASURED = Measured(step_seconds=0.5, memory_bytes=600_000_000, parameters=1_000_000)


def costs_of(tmp_path: Path, kind: str, label: str, text: str = TWO_JOBS, job: str = "") -> Cost:
    path = write_study(tmp_path, text)
    study = read_study(path)
    runs = [run for run in expand(study, path, tmp_path / "out") if (run.kind, run.label) == (kind, label)]
    source = read_source(job) if job else find_job(study, label, path)
    return cost_of(study, source, label, kind, runs, MEASURED)


def test_model_goes_to_every_hospital_and_back_in_every_round(tmp_path: Path):
    cost = costs_of(tmp_path, "federated", "fedavg")

    assert (cost.runs, cost.steps, cost.seconds) == (2, 120, 60.0)  # two seeds; 3 rounds x 10 steps x 2 hospitals
    assert cost.network_bytes == 2 * (2 * 4_000_000 * 2 * 3)  # seeds; both ways, 4 MB, hospitals, rounds
    assert cost.disk_bytes == 2 * 4_000_000 * (5 + 2)
    assert cost.memory_bytes == 806e6 + 2 * (273e6 + 600e6)


def test_scaffold_sends_its_controls_beside_the_model(tmp_path: Path):
    path = write_study(tmp_path)
    study = read_study(path)

    found = {label: exchanged(study, label, find_job(study, label, path)) for label in study.jobs}

    assert found == {"fedavg": 2, "scaffold": 4}
    plain, scaffold = (costs_of(tmp_path, "federated", label) for label in ("fedavg", "scaffold"))
    assert scaffold.network_bytes == 2 * plain.network_bytes


def test_compressed_weights_take_their_share_and_what_goes_beside_them_or_masked_is_whole(tmp_path: Path):
    compressed = TWO_JOBS.replace("[set]", '[set]\ncompression = "int8"')

    def models(label: str, job: str = "") -> float:
        """Of a hospital's round, in models of 4 MB."""
        return costs_of(tmp_path, "federated", label, compressed, job).network_bytes / (2 * 4_000_000 * 2 * 3)

    assert models("fedavg") == pytest.approx(2 * 260 / 1024)
    assert models("scaffold") == pytest.approx(2 * 260 / 1024 + 2)
    assert models("fedavg", "brats_unet_secagg") == pytest.approx(260 / 1024 + 1)


@pytest.mark.parametrize(
    ("kind", "steps", "at_once"), [("local", 120, 1), ("central", 60, 1), ("leave-one-out", 120, 1)]
)
def test_baseline_needs_no_network(kind: str, steps: int, at_once: int, tmp_path: Path):
    cost = costs_of(tmp_path, kind, "fedavg")

    assert (cost.what, cost.steps, cost.network_bytes) == (f"brats_unet {kind}", steps, 0)
    assert cost.memory_bytes == 806e6 + at_once * 873e6


def test_cache_holds_every_case_of_all_partitions_once(tmp_path: Path):
    path = write_study(tmp_path, TWO_JOBS.replace('sites = "sites"', 'partitions = { a = "sites", b = "sites" }'))
    study = read_study(path)
    runs = expand(study, path, tmp_path / "out")
    bundle = find_job(study, "fedavg", path).bundle

    assert bundle is not None
    assert cache_bytes(study, runs, [bundle]) == 9 * 40e6 / 8  # 5 + 4 cases at 2 mm


def test_sizes_are_readable():
    assert [size(count) for count in (999, 154e6, 2.75e9)] == ["1 kB", "154.0 MB", "2.8 GB"]
