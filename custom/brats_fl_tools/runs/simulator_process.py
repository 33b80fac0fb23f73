"""Runs FLARE's simulator on a job folder in a process of its own; ``simulator`` starts it."""

from __future__ import annotations

import os
import sys
import threading
import time

from brats_fl_tools.runs.processes import end_tree


def main() -> int:
    """Arguments: job folder, workspace, site names with commas between, GPUs or nothing, sites at once."""
    from nvflare.private.fed.app.simulator.simulator_runner import SimulatorRunner

    job, workspace, sites, gpu, at_once = sys.argv[1:6]
    threading.Thread(target=end_with_parent, args=(os.getppid(),), daemon=True).start()
    # A thread for each client that works at once: where they are fewer than the clients, FLARE starts a client's
    # process anew for every task.
    # With more than one group of GPUs it takes one thread for each group.
    runner = SimulatorRunner(
        job_folder=job,
        workspace=workspace,
        clients=sites,
        threads=int(at_once),
        gpu=gpu or None,
        max_clients=len(sites.split(",")),
    )
    return int(runner.run() or 0)


def end_with_parent(parent: int) -> None:
    """End this process and those that it started when the command is killed and cannot do it."""
    while os.getppid() == parent:
        time.sleep(1)
    end_tree(os.getpid())


if __name__ == "__main__":
    sys.exit(main())
