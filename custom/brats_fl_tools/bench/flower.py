"""Our sites' own work on Flower's simulator: the whole of what an author of a Flower app would write.

``peers`` runs this in an environment that has Flower, which ours has not. A site trains by ``train_round``, as in our
simulator, so that what differs is what carries the models.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import Any

from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg
from flwr.simulation import run_simulation

from brats_fl.bundle import build_network
from brats_fl.constants import SITES
from brats_fl.exchange import WEIGHTS
from brats_fl.tasks import LocalSettings, Task
from brats_fl.training import LocalTraining, train_round

PROFILE = "small"


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
    strategy, server = TimedFedAvg(fraction_evaluate=0.0, min_available_nodes=len(SITES)), ServerApp()

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


def train(message: Message, context: Context) -> Message:
    """A site's part of a round."""
    begin, asked = time.perf_counter(), message.content["config"]
    site = SITES[int(context.node_config["partition-id"])]
    training = training_of(site, *(asked[name] for name in ("bundle", "sites", "state", "rounds", "steps")))
    weights = {name: array.numpy() for name, array in message.content["arrays"].items()}
    result = train_round(training, Task("train", {WEIGHTS: weights}, int(asked["server-round"]) - 1))
    local = ArrayRecord({name: Array(weights[name] + change) for name, change in result.update.items()})
    own = {"num-examples": int(result.statistics["cases"]), "seconds": time.perf_counter() - begin}
    return Message(RecordDict({"arrays": local, "metrics": MetricRecord(own)}), reply_to=message)


@lru_cache
def training_of(site: str, bundle: str, sites: str, state: str, rounds: str, steps: str) -> LocalTraining:
    """A site's training, kept by the process that made it: Flower may give the site another one each round."""
    import torch

    torch.set_num_threads(1)
    datalist, own = Path(sites) / site / "datalist.json", Path(state) / site
    own.mkdir(parents=True, exist_ok=True)
    overrides = {"steps_per_epoch": int(steps)}
    training = LocalTraining(
        LocalSettings(Path(bundle), datalist, own, site, int(rounds), profile=PROFILE, overrides=overrides)
    )
    training.initialize()
    return training


if __name__ == "__main__":
    main()
