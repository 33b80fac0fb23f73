"""Cases as a network takes them: prepared in a background thread, and no error gets lost or lacks its case's name."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from monai.data import DataLoader, Dataset

from brats_fl.failures import during
from brats_fl.machine import MORE_SHARED_MEMORY, SHARED_MEMORY, shared_memory_fault

logger = logging.getLogger(__name__)

POLL_SECONDS = 0.05


def affordable_workers(wanted: int, shared_memory: Path = SHARED_MEMORY) -> int:
    """The processes that may read cases: none where the memory that they pass batches on through cannot hold them.

    A container of Docker's has 64 MB of it unless told otherwise, less than one batch of the full profile, and torch
    ends with "unable to allocate shared memory" at the first.
    """
    fault = shared_memory_fault(wanted, shared_memory)
    if not fault:
        return wanted
    logger.warning("%s: cases are read in the process that trains. For more speed %s", fault, MORE_SHARED_MEMORY)
    return 0


class CaseDataset(Dataset):
    """MONAI's ``Dataset`` of the items of a data list, whose failures name the case and its files."""

    def _transform(self, index: int) -> Any:
        with during("reading and preparing", [self.data[index]]):
            return super()._transform(index)


class PrefetchLoader(DataLoader):
    """``DataLoader`` that keeps up to ``prefetch`` batches ready, drawn in one background thread, in a fixed order.

    MONAI's ``ThreadDataLoader`` does the same, but an exception in its thread ends the epoch without a word: a corrupt
    case would shorten training instead of stopping it. Here it is raised where the batch is asked for.
    """

    def __init__(self, dataset: Dataset, prefetch: int = 2, num_workers: int = 0, **kwargs: Any) -> None:
        super().__init__(dataset, num_workers=affordable_workers(num_workers), **kwargs)
        self.prefetch = prefetch

    def __iter__(self) -> Iterator[Any]:
        """Batches in order; ends the thread when the caller stops asking."""
        ready: queue.Queue[tuple[str, Any]] = queue.Queue(self.prefetch)
        stopped = threading.Event()
        source = super().__iter__()

        def put(kind: str, value: Any) -> None:
            while not stopped.is_set():
                try:
                    ready.put((kind, value), timeout=POLL_SECONDS)
                except queue.Full:
                    continue
                return

        def fill() -> None:
            try:
                for batch in source:
                    put("batch", batch)
                    if stopped.is_set():
                        return
            except BaseException as error:  # handed to the thread that asked, whatever it is
                put("error", error)
            else:
                put("end", None)

        thread = threading.Thread(target=fill, daemon=True, name="prefetch")
        thread.start()
        try:
            while True:
                kind, value = ready.get()
                if kind == "end":
                    return
                if kind == "error":
                    raise value
                yield value
        finally:
            stopped.set()
            thread.join()
