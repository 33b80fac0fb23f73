"""Runs FLARE's simulator on a job folder in a process of its own; ``simulate`` starts it."""

from __future__ import annotations

import sys


def main() -> int:
    """Arguments: job folder, workspace, site names with commas between. Exit code: the simulator's."""
    from nvflare.private.fed.app.simulator.simulator_runner import SimulatorRunner

    job, workspace, sites = sys.argv[1:4]
    # A thread for each client: with fewer, FLARE swaps clients in and out of memory at every task (five times slower).
    runner = SimulatorRunner(job_folder=job, workspace=workspace, clients=sites, threads=len(sites.split(",")))
    return int(runner.run() or 0)


if __name__ == "__main__":
    sys.exit(main())
