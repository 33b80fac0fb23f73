"""A rank beside the trainer, see ``ranks``: carries out each task that rank 0 passes on, and keeps what comes of it."""

from __future__ import annotations

import os
import shutil
import sys
import threading
import time
from pathlib import Path

import torch.distributed as dist

from brats_fl.ranks import join
from brats_fl.tasks import LocalSettings, Task, TaskFailure
from brats_fl.trainer_process import TaskLoop

GRACE_SECONDS = 10.0
"""How long a rank that failed waits before it leaves: what fails here as a rule fails in rank 0, which says why."""


def main() -> None:
    """Arguments: rank, number of ranks, the file through which they meet."""
    rank, size, meeting = int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
    threading.Thread(target=leave_with_trainer, args=(meeting,), daemon=True, name="leave").start()
    join(rank, size, meeting)
    loop: TaskLoop | None = None
    while True:
        told: list[tuple[LocalSettings, Task] | None] = [None]
        try:
            dist.broadcast_object_list(told, src=0)
        except RuntimeError:  # rank 0 is gone
            break
        assert told[0] is not None
        settings, task = told[0]
        loop = loop or TaskLoop(settings, ranks=size)
        if isinstance(result := loop.carry_out(task), TaskFailure):
            print(f"rank {rank}: {task.name} failed: {result.text}", file=sys.stderr)
            time.sleep(GRACE_SECONDS)
            sys.exit(1)


def leave_with_trainer(meeting: Path) -> None:
    """End this process when the trainer, which holds the other end of its input, is gone."""
    sys.stdin.buffer.read()
    shutil.rmtree(meeting.parent, ignore_errors=True)
    os._exit(0)


if __name__ == "__main__":
    main()
