"""Runs FLARE's simulator on a job folder in a process of its own; ``simulator`` starts it."""

from __future__ import annotations

import os
import sys
import threading
import time

from brats_fl_tools.runs.processes import end_tree


def main() -> int:
    """Arguments: job folder, workspace, site names with commas between, GPUs or nothing. Exit code: the simulator's."""
    from nvflare.private.fed.app.simulator.simulator_runner import SimulatorRunner

    job, workspace, sites, gpu = sys.argv[1:5]
    count = len(sites.split(","))
    threading.Thread(target=end_with_parent, args=(os.getppid(),), daemon=True).start()
    # A thread for each client: with fewer, FLARE swaps clients in and out of memory at every task (five times slower).
    # With more than one group of GPUs it takes one thread for each group.
    runner = SimulatorRunner(
        job_folder=job, workspace=workspace, clients=sites, threads=count, gpu=gpu or None, max_clients=count
    )
    return int(runner.run() or 0)


def end_with_parent(parent: int) -> None:
    """End this process and those that it started when the command is killed and cannot do it."""
    while os.getppid() == parent:
        time.sleep(1)
    end_tree(os.getpid())


if __name__ == "__main__":
    sys.exit(main())
