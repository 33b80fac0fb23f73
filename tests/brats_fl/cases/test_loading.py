from __future__ import annotations

import logging
import shutil
import subprocess
import sys
import threading
import time
from collections import namedtuple
from pathlib import Path
from typing import Any

import pytest
import torch
from monai.data import DataLoader, Dataset
from monai.transforms import Compose, Lambda

from brats_fl.cases import loading
from brats_fl.cases.cache import CaseCache
from brats_fl.cases.loading import CaseDataset, PrefetchLoader, affordable_workers
from brats_fl.errors import CaseError, StepError
from brats_fl.machine import shared_memory_fault


def numbers(count: int, transform: Any = None) -> Dataset:
    return Dataset([{"image": torch.tensor([float(number)])} for number in range(count)], transform)


def values(loader: Any) -> list[list[float]]:
    return [batch["image"].flatten().tolist() for batch in loader]


def prefetch_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "prefetch"]


def test_batches_and_their_order_are_those_of_a_plain_loader():
    data = numbers(7)

    assert values(PrefetchLoader(data, batch_size=2)) == [[0, 1], [2, 3], [4, 5], [6]]
    assert values(PrefetchLoader(data, batch_size=2)) == values(DataLoader(data, batch_size=2))


def test_shuffled_order_is_that_of_a_plain_loader_with_the_same_seed():
    data = numbers(20)

    torch.manual_seed(3)
    plain = values(DataLoader(data, batch_size=4, shuffle=True))
    torch.manual_seed(3)
    prefetched = values(PrefetchLoader(data, batch_size=4, shuffle=True))

    assert prefetched == plain
    assert prefetched != values(DataLoader(data, batch_size=4))


def test_loader_can_be_read_again_and_leaves_no_thread_behind():
    loader = PrefetchLoader(numbers(3), batch_size=1)

    assert values(loader) == values(loader) == [[0], [1], [2]]
    assert prefetch_threads() == []


class OneBroken(Dataset):
    """Numbers, of which 2 cannot be read."""

    def _transform(self, index: int) -> Any:
        if index == 2:
            raise CaseError("case-2: t1c cannot be read")
        return self.data[index]


def test_error_in_a_case_is_raised_where_the_batch_is_asked_for():
    batches = iter(PrefetchLoader(OneBroken(numbers(5).data), batch_size=1))

    assert [float(next(batches)["image"]) for _ in range(2)] == [0, 1]  # the batches before it are not lost
    with pytest.raises(CaseError, match="case-2: t1c cannot be read"):
        next(batches)
    assert prefetch_threads() == []


def test_stopping_early_ends_the_thread():
    batches = iter(PrefetchLoader(numbers(1000), batch_size=1, prefetch=2))
    next(batches)
    assert len(prefetch_threads()) == 1

    batches.close()

    assert prefetch_threads() == []


def test_no_more_than_the_wanted_number_of_batches_is_prepared_ahead():
    prepared = []

    def note(item: dict[str, Any]) -> dict[str, Any]:
        prepared.append(item)
        return item

    batches = iter(PrefetchLoader(numbers(100, note), batch_size=1, prefetch=2))
    next(batches)
    time.sleep(0.3)

    assert len(prepared) <= 4  # one given out, two ready, one in the thread's hand
    batches.close()


def test_next_batch_is_prepared_while_the_last_is_worked_on():
    second_is_read = threading.Event()

    def note(item: dict[str, Any]) -> dict[str, Any]:
        if item["image"] == 1:
            second_is_read.set()
        return item

    batches = iter(PrefetchLoader(numbers(10, note), batch_size=1, prefetch=2))
    next(batches)

    assert second_is_read.wait(timeout=10)
    batches.close()


@pytest.mark.parametrize(("free_mb", "workers"), [(64, 0), (600, 0), (700, 4), (24_000, 4)])
def test_container_with_little_shared_memory_reads_its_cases_in_one_process(
    free_mb: int, workers: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    usage = namedtuple("usage", "total used free")(0, 0, free_mb * 10**6)  # 4 processes, 2 batches of 84 MB each
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)

    with caplog.at_level(logging.WARNING, loading.__name__):
        assert affordable_workers(4, tmp_path) == workers

    assert ("--shm-size" in caplog.text) is (workers == 0)


def test_machine_without_shared_memory_reads_its_cases_in_one_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    with caplog.at_level(logging.WARNING, loading.__name__):
        assert affordable_workers(4, tmp_path / "none") == 0
    assert "none is not there: cases are read in the process that trains" in caplog.text
    assert affordable_workers(0, tmp_path / "none") == 0
    monkeypatch.setattr(sys, "platform", "darwin")  # a Mac has another kind
    assert affordable_workers(4, tmp_path / "none") == 4


def test_shared_memory_that_may_not_be_written_is_none(tmp_path: Path):
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "ro", "tmpfs", str(tmp_path)], check=False)
    if mounted.returncode:
        pytest.skip("no disk can be mounted here")
    try:
        assert shared_memory_fault(4, tmp_path) == f"{tmp_path} may not be written"
    finally:
        subprocess.run(["umount", "-l", str(tmp_path)], check=True)


def test_transform_that_fails_names_case_and_files_from_a_dataset_and_from_the_cache(tmp_path: Path):
    item = {"case": "P_001", "image": ["/data/P_001_t1ce.nii.gz"]}

    def fail(_: object) -> object:
        raise TypeError("odd")

    for dataset in (CaseDataset([item], fail), CaseCache([item], Compose([Lambda(fail)]), tmp_path)):
        with pytest.raises(StepError) as caught:
            dataset[0]
        said = "P_001: reading and preparing: TypeError: odd (/data/P_001_t1ce.nii.gz)"
        assert str(caught.value) == said
