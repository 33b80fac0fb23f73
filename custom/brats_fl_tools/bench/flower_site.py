"""A site of our federation on Flower's simulator: ``train_round``, as in ours, so that the carrier is what differs.

In a module of its own, which Flower's processes import by its name.
"""

from __future__ import annotations

import time
from functools import lru_cache
from pathlib import Path
from typing import Final

from flwr.app import Array, ArrayRecord, Context, Message, MetricRecord, RecordDict

from brats_fl.constants import SITES
from brats_fl.exchange import WEIGHTS
from brats_fl.tasks import LocalSettings, Task
from brats_fl.training import LocalTraining, train_round

PROFILE: Final = "small"


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
    datalist, own = Path(sites) / site / "datalist.json", Path(state) / site
    own.mkdir(parents=True, exist_ok=True)
    overrides = {"steps_per_epoch": int(steps)}
    training = LocalTraining(
        LocalSettings(Path(bundle), datalist, own, site, int(rounds), profile=PROFILE, overrides=overrides)
    )
    training.initialize()
    return training
