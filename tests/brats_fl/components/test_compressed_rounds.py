"""Rounds of a federation whose weights travel compressed: server and sites are the real parts, only training is not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from nvflare.apis.dxo import DXO, DataKind, from_shareable
from nvflare.apis.event_type import EventType
from nvflare.apis.fl_constant import FLContextKey, ReturnCode
from nvflare.apis.fl_context import FLContext
from nvflare.apis.shareable import Shareable, make_copy
from nvflare.apis.signal import Signal
from nvflare.apis.utils.fl_context_utils import gen_new_peer_ctx
from nvflare.app_common.abstract.model import ModelLearnableKey, make_model_learnable
from nvflare.app_common.app_constant import AppConstants
from nvflare.fuel.utils import fobs
from tests.flare import Engine, as_sent

from brats_fl.components.aggregator import AlgorithmAggregator, global_weights
from brats_fl.components.exchange import BASE, HELD, MODEL, PayloadGenerator
from brats_fl.components.executor import ERROR_HEADER, BratsExecutor
from brats_fl.digests import digest_of_model
from brats_fl.exchange import WEIGHTS, Weights
from brats_fl.tasks import Task, TaskResult

SHAPES = {"conv.weight": (8, 5, 9), "prelu": (1,)}
GOALS = {"hospital-1": 1.0, "hospital-2": -0.5}
"""What the values of each hospital's best model lie around."""
BYTES = 4 * (360 + 1)
BYTES_INT8 = 360 + 2 * 4 + 4  # two blocks and their scales; the single value is whole


def around(centre: float, seed: int) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    return {name: random.normal(centre, 0.1, shape).astype(np.float32) for name, shape in SHAPES.items()}


class HalfTheWay:
    """In the place of training: goes half the way to a goal."""

    settings = "known"

    def __init__(self, goal: Weights, sends: tuple[str, ...]) -> None:
        self.goal, self.sends = goal, sends

    def run(self, task: Task, aborted: Callable[[], bool]) -> TaskResult:
        update = {name: (self.goal[name] - value) / 2 for name, value in task.weights.items()}
        beside = {name: {key: -value for key, value in update.items()} for name in self.sends}
        statistics = {"cases": 1, "steps": 1, "loss": 0.5, "seconds": 1.0}
        return TaskResult({"val_mean_dice": 0.5}, statistics, {WEIGHTS: update, **beside})


class Site:
    """A site's job process."""

    def __init__(self, root: Path, name: str, compression: str, sends: tuple[str, ...] = ()) -> None:
        self.name, self.engine = name, Engine(root, name)
        self.executor = BratsExecutor("brats_unet", "tiny", 1, 0, compression=compression)
        self.executor.trainer = HalfTheWay(around(GOALS[name], len(name)), sends)  # type: ignore[assignment]

    def does(self, task: Shareable) -> Shareable:
        reply = self.executor.execute(AppConstants.TASK_TRAIN, task, self.engine.new_context(), Signal())
        reply.add_cookie(AppConstants.CONTRIBUTION_ROUND, task.get_cookie(AppConstants.CONTRIBUTION_ROUND))
        return reply

    @property
    def model(self) -> Weights:
        assert self.executor.held is not None
        return self.executor.held.weights


class Server:
    """The server's job process."""

    def __init__(self, root: Path, compression: str, algorithm: str = "fedavg", model: Weights | None = None) -> None:
        self.engine = Engine(root, "server")
        self.aggregator = AlgorithmAggregator(1, 1e9, algorithm, compression=compression)
        self.engine.get_component = lambda name: {"aggregator": self.aggregator}[name]  # type: ignore[attr-defined]
        self.generator = PayloadGenerator("aggregator", compression)
        self.learnable = make_model_learnable(dict(model or around(0.0, 0)), {})
        self.number = 0
        self.sizes: dict[str, int] = {}

    @property
    def model(self) -> Weights:
        weights: Weights = self.learnable[ModelLearnableKey.WEIGHTS]
        return weights

    def context(self, site: Site | None = None, **props: Any) -> FLContext:
        fl_ctx = self.engine.new_context()
        fl_ctx.set_prop(AppConstants.GLOBAL_MODEL, self.learnable, private=True, sticky=True)
        fl_ctx.set_prop(AppConstants.CURRENT_ROUND, self.number, private=True, sticky=True)
        for key, value in props.items():
            fl_ctx.set_prop(key, value, private=True, sticky=False)
        if site is not None:
            fl_ctx.set_peer_context(gen_new_peer_ctx(site.engine.new_context()))
        return fl_ctx

    def task_for(self, site: Site, broadcast: Shareable) -> Shareable:
        """What FLARE sends a site that asks: a copy of the broadcast, after the events of sending."""
        fl_ctx = self.context(site, **{FLContextKey.TASK_DATA: make_copy(broadcast)})
        self.generator.handle_event(EventType.BEFORE_TASK_DATA_FILTER, fl_ctx)
        sent: Shareable = fobs.loads(as_sent(fl_ctx.get_prop(FLContextKey.TASK_DATA)))
        weights = from_shareable(sent)
        weights = weights.data[WEIGHTS] if weights.data_kind == DataKind.COLLECTION else weights
        self.sizes[site.name] = sum(array.nbytes for array in weights.data.values())
        return sent

    def broadcast(self) -> Shareable:
        message = self.generator.learnable_to_shareable(self.learnable, self.context())
        message.add_cookie(AppConstants.CONTRIBUTION_ROUND, self.number)
        return message

    def round(self, *sites: Site) -> None:
        """A round in which these sites answer."""
        message = self.broadcast()
        for site in sites:
            reply = fobs.loads(as_sent(site.does(self.task_for(site, message))))
            assert self.aggregator.accept(reply, self.context(site))
        fl_ctx = self.context()
        self.learnable = self.generator.shareable_to_learnable(self.aggregator.aggregate(fl_ctx), fl_ctx)
        self.aggregator.reset(fl_ctx)
        self.number += 1


def federation(root: Path, compression: str, algorithm: str = "fedavg") -> tuple[Server, list[Site]]:
    server = Server(root / "server", compression, algorithm)
    sends = server.aggregator.algorithm(server.context()).sent
    return server, [Site(root / name, name, compression, sends) for name in GOALS]


def largest_difference(one: Weights, other: Weights) -> float:
    return max(float(np.abs(one[name] - other[name]).max()) for name in one)


@pytest.mark.parametrize(("compression", "step"), [("int8", 1 / 254), ("float16", 2**-11)])
def test_model_after_five_rounds_is_the_one_without_compression_but_for_rounding(tmp_path, compression, step):
    plain, plain_sites = federation(tmp_path / "plain", "none")
    server, sites = federation(tmp_path / compression, compression)
    start = server.model

    for _ in range(5):
        plain.round(*plain_sites)
        server.round(*sites)

    # An update, the first and longest, and the mean of both are rounded; what is off is halved in each round to come.
    longest = max(largest_difference(start, site.executor.trainer.goal) / 2 for site in sites)
    assert 0 < largest_difference(server.model, plain.model) < 2 * 2 * longest * step * 1.01


@pytest.mark.parametrize("algorithm", ["fedavg", "fedadam", "scaffold"])
def test_all_hold_the_servers_model_to_the_bit_and_both_ways_take_a_quarter(tmp_path, algorithm):
    server, sites = federation(tmp_path, "int8", algorithm)
    whole = server.model
    assert sum(array.nbytes for array in whole.values()) == BYTES

    for number in range(4):
        sent = digest_of_model(server.model)
        server.round(*sites)
        assert [digest_of_model(site.model) for site in sites] == [sent, sent]
        assert set(server.sizes.values()) == {BYTES if number == 0 else BYTES_INT8}
    assert digest_of_model(server.model) != sent


def test_site_that_missed_a_round_or_started_again_gets_the_whole_model_and_then_changes(tmp_path):
    server, (first, second) = federation(tmp_path, "int8")
    server.round(first, second)
    server.round(first)

    server.round(first, second)
    assert server.sizes == {"hospital-1": BYTES_INT8, "hospital-2": BYTES}

    started_again = Site(tmp_path / "again", "hospital-2", "int8")
    server.round(first, started_again)
    assert server.sizes == {"hospital-1": BYTES_INT8, "hospital-2": BYTES}

    server.round(first, started_again)
    assert server.sizes == {"hospital-1": BYTES_INT8, "hospital-2": BYTES_INT8}
    assert digest_of_model(first.model) == digest_of_model(started_again.model)


def test_site_that_asks_again_for_the_same_round_gets_the_whole_model(tmp_path):
    server, (site, _) = federation(tmp_path, "int8")
    server.round(site)
    message = server.broadcast()

    for size in (BYTES_INT8, BYTES):  # it has the new model by then, of which the change is none
        site.does(server.task_for(site, message))
        assert server.sizes["hospital-1"] == size


def test_run_that_goes_on_from_its_kept_model_is_the_run_that_was_never_interrupted(tmp_path):
    server, sites = federation(tmp_path / "whole", "int8")
    server.round(*sites)
    kept = {name: value.copy() for name, value in server.model.items()}
    server.round(*sites)

    resumed = Server(tmp_path / "server", "int8", model=kept)
    again = [Site(tmp_path / name, name, "int8") for name in GOALS]
    resumed.round(*again)

    assert resumed.sizes == {"hospital-1": BYTES, "hospital-2": BYTES}
    assert digest_of_model(resumed.model) == digest_of_model(server.model)


@pytest.mark.parametrize("stated", ["0" * 64, "", 3, None, ["x"], {"a": 1}])
def test_site_that_states_another_model_or_nonsense_gets_the_whole_one(tmp_path, stated):
    server, sites = federation(tmp_path, "int8")
    server.round(*sites)
    liar = SimpleNamespace(name="hospital-1", engine=Engine(tmp_path / "liar", "hospital-1"))
    liar.engine.new_context().set_prop(HELD, stated, private=False, sticky=True)

    task = server.task_for(liar, server.broadcast())  # type: ignore[arg-type]

    assert from_shareable(task).data_kind == DataKind.WEIGHTS
    assert server.sizes["hospital-1"] == BYTES


@pytest.mark.parametrize("key", [BASE, MODEL])
def test_change_that_is_none_of_the_sites_model_fails_the_round_and_the_next_comes_whole(tmp_path, key):
    server, (site, _) = federation(tmp_path, "int8")
    server.round(site)
    task = server.task_for(site, server.broadcast())
    dxo = from_shareable(task)
    dxo.set_meta_prop(key, "0" * 64)

    reply = site.does(dxo.update_shareable(task))

    assert (reply.get_return_code(), reply.get_header(ERROR_HEADER)) == (ReturnCode.EXECUTION_EXCEPTION, "MODEL_ERROR")
    server.round(site)
    assert server.sizes["hospital-1"] == BYTES


def test_change_for_a_site_that_has_no_model_fails_the_round(tmp_path):
    server, (site, other) = federation(tmp_path, "int8")
    server.round(site)
    change = server.task_for(site, server.broadcast())

    assert other.does(change).get_header(ERROR_HEADER) == "MODEL_ERROR"


@pytest.mark.parametrize("value", [np.zeros(3, np.int8), np.zeros((8, 5, 9), np.float32), "text"])
def test_update_that_is_not_compressed_as_the_job_says_is_refused_by_the_name_of_the_array(tmp_path, caplog, value):
    server, (site, _) = federation(tmp_path, "int8")
    reply = site.does(server.task_for(site, server.broadcast()))
    dxo = from_shareable(reply)
    dxo.data["conv.weight"] = value

    assert not server.aggregator.accept(dxo.update_shareable(reply), server.context(site))
    assert "conv.weight is" in caplog.text


def test_update_that_is_not_finite_never_leaves_the_site(tmp_path):
    server, (site, _) = federation(tmp_path, "int8")
    site.executor.trainer.goal["conv.weight"][0, 0, 0] = np.nan  # type: ignore[union-attr, index]

    reply = site.does(server.task_for(site, server.broadcast()))

    assert reply.get_header(ERROR_HEADER) == "MODEL_ERROR"


def test_round_with_too_few_updates_leaves_the_model_as_it_is(tmp_path):
    server, sites = federation(tmp_path, "int8")
    server.aggregator.min_accepted = server.aggregator.patience_rounds = 2
    before = {name: value.copy() for name, value in server.model.items()}

    server.round(sites[0])

    assert digest_of_model(server.model) == digest_of_model(before)


def test_message_of_another_task_is_left_alone(tmp_path):
    server, (site, _) = federation(tmp_path, "int8")
    server.round(site)
    for message in (Shareable(), DXO(DataKind.APP_DEFINED, data={"content": 1}).to_shareable()):
        fl_ctx = server.context(site, **{FLContextKey.TASK_DATA: make_copy(message)})

        server.generator.handle_event(EventType.BEFORE_TASK_DATA_FILTER, fl_ctx)

        assert as_sent(fl_ctx.get_prop(FLContextKey.TASK_DATA)) == as_sent(make_copy(message))
    assert global_weights(server.context()) is server.model
