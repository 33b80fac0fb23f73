"""Our federation on Flower's simulator, its server's side; ``flower_site`` is the sites'.

``peers`` runs this in an environment that has Flower, which ours has not.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg
from flwr.simulation import run_simulation

from brats_fl.bundle import build_network
from brats_fl.constants import SITES
from brats_fl_tools.bench.flower_site import PROFILE, train


def main() -> None:
    """Run the rounds; write when each began, the slowest site's seconds and a site's bytes to OUT."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    for name in ("--bundle", "--sites", "--state", "--out"):
        parser.add_argument(name, type=Path, required=True)
    for name in ("--rounds", "--steps"):
        parser.add_argument(name, type=int, required=True)
    work = parser.parse_args()
    network = build_network(work.bundle, PROFILE, seed=0)
    first = ArrayRecord({name: Array(value.numpy()) for name, value in network.state_dict().items()})
    all_of_them = {"min_train_nodes": len(SITES), "min_available_nodes": len(SITES)}
    strategy, server = TimedFedAvg(fraction_evaluate=0.0, **all_of_them), ServerApp()

    @server.main()
    def serve(grid: Grid, context: Context) -> None:
        asked = {name: str(getattr(work, name)) for name in ("bundle", "sites", "state", "rounds", "steps")}
        strategy.start(grid, first, num_rounds=work.rounds, train_config=ConfigRecord(asked))
        work.out.write_text(json.dumps(vars(strategy.seen)), encoding="utf-8")

    client = ClientApp()
    client.train()(train)
    # As many actors as sites, as our simulator has as many processes.
    resources = {"init_args": {"num_cpus": len(SITES)}, "client_resources": {"num_cpus": 1}}
    run_simulation(server, client, num_supernodes=len(SITES), backend_config=resources)


class Seen:
    """What the server saw of each round."""

    def __init__(self) -> None:
        self.starts: list[float] = []
        """In s since the epoch."""
        self.slowest: list[float] = []
        self.bytes_down = self.bytes_up = 0
        """Of the last round, a site."""


class TimedFedAvg(FedAvg):
    """Flower's ``FedAvg``, which also notes times and sizes."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.seen = Seen()

    def configure_train(self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid) -> Any:
        """Note when a round begins."""
        self.seen.starts.append(time.time())
        self.seen.bytes_down = size_of(arrays)
        return super().configure_train(server_round, arrays, config, grid)

    def aggregate_train(self, server_round: int, replies: Iterable[Message]) -> Any:
        """Note how long the slowest site worked."""
        come = list(replies)
        if failed := [reply.error for reply in come if reply.has_error()]:
            raise RuntimeError(f"round {server_round}: {failed[0]}")
        self.seen.slowest.append(max(reply.content["metrics"]["seconds"] for reply in come))
        self.seen.bytes_up = size_of(come[0].content["arrays"])
        return super().aggregate_train(server_round, come)


def size_of(arrays: ArrayRecord) -> int:
    """Bytes of the arrays as they are sent."""
    return sum(len(array.data) for array in arrays.values())


if __name__ == "__main__":
    main()
