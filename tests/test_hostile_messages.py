"""Whatever a site, the server or the trainer sends: nobody who receives it falls over."""

from __future__ import annotations

import contextlib
import logging
import pickle
from collections.abc import Callable, Iterator, Mapping
from multiprocessing import Pipe
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from nvflare.apis.dxo import DXO, DataKind, MetaKey
from nvflare.apis.event_type import EventType
from nvflare.apis.fl_constant import FLContextKey
from nvflare.apis.shareable import ReservedHeaderKey, Shareable
from nvflare.apis.signal import Signal
from nvflare.app_common.abstract.model import make_model_learnable
from nvflare.app_common.app_constant import AppConstants
from nvflare.app_common.app_event_type import AppEventType
from tests.flare import JOB, Engine
from tests.hostile import ODD_VALUES, made_by, odd_bytes, odd_content, odd_value, one_of

from brats_fl.aggregation import checked_model
from brats_fl.components.aggregator import AlgorithmAggregator
from brats_fl.components.cross_site import CrossSiteEvaluation, scores_of
from brats_fl.components.exchange import BASE, HELD
from brats_fl.components.exchange import MODEL as MODEL_AFTER
from brats_fl.components.executor import STATISTICS, BratsExecutor
from brats_fl.components.fingerprints import TASK_FINGERPRINTS, TASK_SHARED, FingerprintExecutor, FingerprintMatcher
from brats_fl.components.records import RoundRecords
from brats_fl.components.selector import BestModelSelector
from brats_fl.components.statistics import EPSILON_HEADER
from brats_fl.compression import compress, decompress
from brats_fl.constants import REGIONS
from brats_fl.errors import MaskingError, ModelError
from brats_fl.handing_over import hand_over
from brats_fl.model_change import HeldModel
from brats_fl.privacy.messages import Advert, read_message
from brats_fl.privacy.server_round import ServerRound
from brats_fl.privacy.site_round import SiteRound
from brats_fl.round_records import RECORDS_FILE, read_records
from brats_fl.tasks import TaskFailure, TaskResult
from brats_fl.trainer import receive

EXAMPLES = 20 if settings.get_current_profile_name() == "default" else settings().max_examples
MODEL = {"conv.weight": np.full((2, 2), 10.0, np.float32), "conv.bias": np.zeros(2, np.float32)}

ODD_PARTS = (
    *ODD_VALUES,
    *(np.array([np.nan, 1]), np.array(["a", "b"]), np.array([None, {}], dtype=object), np.ones(3)),
    *(np.ones(2, complex), np.zeros((0, 2)), np.full(2, 1e38, np.float32), np.float64(3)),
    *(b"bytes", 1j, {1: 2}, (1, 2), {"a"}, object),
)


@pytest.fixture(autouse=True, scope="module")
def no_log() -> Iterator[None]:
    """What is logged may hold what UTF-8 cannot write, with which pytest's workers cannot send it on."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


def update() -> dict[str, Any]:
    stated = {"cases": 3, "steps": 2, "loss": 0.5, "seconds": 1.5}
    meta = {MetaKey.NUM_STEPS_CURRENT_ROUND: 3, STATISTICS: stated, MetaKey.INITIAL_METRICS: {"val_mean_dice": 0.5}}
    shareable = DXO(DataKind.WEIGHT_DIFF, data=dict(MODEL), meta=meta).to_shareable()
    shareable.add_cookie(AppConstants.CONTRIBUTION_ROUND, 3)
    return dict(shareable)


def as_shareable(content: Any) -> Shareable:
    """FLARE lets nothing but a ``Shareable`` with headers through; without this one nobody looks into it."""
    shareable = Shareable()
    shareable.set_header(ReservedHeaderKey.CONTENT_TYPE, "DXO")
    if isinstance(content, dict):
        shareable.update({key: value for key, value in content.items() if key != "__headers__"})
    shareable.add_cookie(AppConstants.CONTRIBUTION_ROUND, 3)
    return shareable


def server(folder: Path) -> Engine:
    engine = Engine(folder, "server", ("hospital-1",))
    fl_ctx = engine.new_context()
    fl_ctx.set_prop(AppConstants.CURRENT_ROUND, 3, private=True, sticky=True)
    fl_ctx.set_prop(AppConstants.GLOBAL_MODEL, make_model_learnable(dict(MODEL), {}), private=True, sticky=True)
    return engine


def contribution(folder: Path) -> tuple[Any, Callable[[Any], None]]:
    """An update, as aggregator, records and the choice of the best model see it, one after the other."""
    engine, records, selector = server(folder), RoundRecords(), BestModelSelector()

    def receive_update(content: Any) -> None:
        fl_ctx, shareable = engine.new_context(peer="hospital-1"), as_shareable(content)
        aggregator = AlgorithmAggregator(min_accepted=1, max_update_ratio=1e9)
        accepted = aggregator.accept(shareable, fl_ctx)
        fl_ctx.set_prop(AppConstants.TRAINING_RESULT, shareable, private=True, sticky=False)
        fl_ctx.set_prop(AppConstants.AGGREGATION_ACCEPTED, accepted, private=True, sticky=False)
        for component in (records, selector):
            component.handle_event(AppEventType.AFTER_CONTRIBUTION_ACCEPT, fl_ctx)
        if accepted:
            aggregator.aggregate(fl_ctx)
        check_records(folder)

    return update(), receive_update


def compressed(folder: Path) -> tuple[Any, Callable[[Any], None]]:
    """An update whose arrays are packed: accepted, it is finite and of the network's shapes."""
    engine = server(folder)

    def receive_compressed(content: Any) -> None:
        aggregator, fl_ctx = AlgorithmAggregator(1, 1e9, compression="int8"), engine.new_context(peer="hospital-1")
        sent = DXO(DataKind.WEIGHT_DIFF, data={}, meta={MetaKey.NUM_STEPS_CURRENT_ROUND: 3}).to_shareable()
        sent.add_cookie(AppConstants.CONTRIBUTION_ROUND, 3)
        sent["DXO"]["data"] = content
        if aggregator.accept(sent, fl_ctx):
            given = aggregator.running.take().update
            assert {name: value.shape for name, value in given.items()} == {k: v.shape for k, v in MODEL.items()}
            assert all(value.dtype == np.float32 and np.isfinite(value).all() for value in given.values())

    return dict(compress(MODEL, "int8")), receive_compressed


def change(folder: Path) -> tuple[Any, Callable[[Any], None]]:
    """A change of the model that a site has: it states the one that it then has, or none."""
    engine, held = Engine(folder, "hospital-1"), HeldModel(MODEL)
    arrays = compress(MODEL, "int8")
    after = HeldModel({name: value + decompress(arrays, MODEL, "int8")[name] for name, value in MODEL.items()})

    def receive_change(content: Any) -> None:
        executor = BratsExecutor("brats_unet", "small", 1, 0, compression="int8")
        executor.held = held
        engine.new_context().set_prop(HELD, held.digest, private=False, sticky=True)
        assert executor.execute("train", as_shareable(content), engine.new_context(), Signal()).get_return_code()
        stated = engine.new_context().get_prop(HELD)
        assert stated == (executor.held.digest if executor.held else "")

    said = {BASE: held.digest, MODEL_AFTER: after.digest}
    return dict(DXO(DataKind.WEIGHT_DIFF, data=dict(arrays), meta=said).to_shareable()), receive_change


def check_records(folder: Path) -> None:
    """What was written can be read back."""
    path = folder / JOB / RECORDS_FILE
    read_records(path)
    path.unlink(missing_ok=True)


def metrics(folder: Path) -> tuple[Any, Callable[[Any], None]]:
    """The answer to the last evaluation."""
    engine, records = server(folder), RoundRecords()

    def receive_metrics(content: Any) -> None:
        fl_ctx = engine.new_context(peer="hospital-1")
        fl_ctx.set_prop(AppConstants.VALIDATION_RESULT, as_shareable(content), private=True, sticky=False)
        records.handle_event(AppEventType.VALIDATION_RESULT_RECEIVED, fl_ctx)
        check_records(folder)

    return dict(
        DXO(DataKind.METRICS, {"val_mean_dice": 0.5}, {STATISTICS: {"cases": 1}}).to_shareable()
    ), receive_metrics


def headers(folder: Path) -> tuple[Any, Callable[[Any], None]]:
    """What a site says of a failure, and of the noise in its statistics."""
    engine, records = server(folder), RoundRecords()

    def receive_answer(content: Any) -> None:
        for code in ("OK", "EXECUTION_EXCEPTION"):
            shareable = as_shareable({})
            shareable.set_return_code(code)
            for key, value in content.items() if isinstance(content, dict) else ():
                shareable.set_header(key, value)
            fl_ctx = engine.new_context(peer="hospital-1")
            fl_ctx.set_prop(FLContextKey.TASK_RESULT, shareable, private=True, sticky=False)
            records.handle_event(EventType.BEFORE_PROCESS_SUBMISSION, fl_ctx)
            check_records(folder)

    return {EPSILON_HEADER: 9.0, "brats_fl_error": "CASE_ERROR"}, receive_answer


def fingerprints(folder: Path) -> tuple[Any, Callable[[Any], None]]:
    engine = server(folder)

    def receive_fingerprints(content: Any) -> None:
        matcher, good = FingerprintMatcher(), {"key_mark": "aa", "fingerprints": ["bb", "cc"]}
        for site, data in (("hospital-1", good), ("hospital-2", good), ("hospital-3", content)):
            sent = DXO(DataKind.COLLECTION, data={}).to_shareable()
            sent["DXO"]["data"] = data
            matcher.process_client_response(SimpleNamespace(name=site), TASK_FINGERPRINTS, sent, engine.new_context())
        assert matcher.final_process(engine.new_context())
        matcher.shared_with("hospital-1")

    return {"key_mark": "aa", "fingerprints": ["bb", "dd"]}, receive_fingerprints


def shared_scans(folder: Path) -> tuple[Any, Callable[[Any], None]]:
    """What the server tells a site of its own scans."""
    engine, executor = Engine(folder, "hospital-1"), FingerprintExecutor()
    executor.case_of = {"bb": "case-1"}

    def receive_shared(content: Any) -> None:
        sent = DXO(DataKind.COLLECTION, data={}).to_shareable()
        sent["DXO"]["data"] = content
        assert executor.execute(TASK_SHARED, sent, engine.new_context(), Signal()).get_return_code()

    return {"shared": {"bb": ["hospital-2"]}}, receive_shared


def model(folder: Path) -> tuple[Any, Callable[[Any], None]]:
    """A task for a site; nothing of it is trained here, as there is no data list."""
    engine = Engine(folder, "hospital-1")

    def receive_task(content: Any) -> None:
        executor = BratsExecutor("brats_unet", "small", 1, 0)
        assert executor.execute("train", as_shareable(content), engine.new_context(), Signal()).get_return_code()

    return dict(DXO(DataKind.WEIGHTS, data=dict(MODEL)).to_shareable()), receive_task


def local_models(folder: Path) -> tuple[Any, Callable[[Any], None]]:
    """A hospital's own model, as it would go to the others."""

    def receive_model(content: Any) -> None:
        with contextlib.suppress(ModelError):
            given = checked_model(content, MODEL) if isinstance(content, dict) else MODEL
            assert {name: value.shape for name, value in given.items()} == {k: v.shape for k, v in MODEL.items()}
            assert all(value.dtype == np.float32 and np.isfinite(value).all() for value in given.values())

    return dict(MODEL), receive_model


def scores(folder: Path) -> tuple[Any, Callable[[Any], None]]:
    """How another hospital's model did, as it goes into the matrix."""
    controller, engine = CrossSiteEvaluation("brats_unet", "small", {}, "validation", 1, 1, 1), server(folder)

    def receive_scores(content: Any) -> None:
        status, found = controller._judge("h", as_shareable(content), scores_of, "BAD_RESULT", engine.new_context())
        assert 0 <= found.mean <= 1 if found else status != "ok"

    return dict(
        DXO(DataKind.COLLECTION, {"cases": 3, "dice": dict.fromkeys(REGIONS, 0.5)}).to_shareable()
    ), receive_scores


def secure_sites() -> dict[str, SiteRound]:
    return {name: SiteRound(name, 1, "job/0", 3, None) for name in ("a", "b", "c")}


def keys(folder: Path) -> tuple[Any, Callable[[Any], None]]:
    """A site's keys of secure aggregation, at the server and, from there, at the other sites."""

    def receive_keys(content: Any) -> None:
        sites, secure = secure_sites(), ServerRound("job/0", 3, 2, "")
        roster = {name: dict(vars(site.advert)) for name, site in sites.items()}
        with contextlib.suppress(MaskingError):
            secure.take_advert("a", content)
        with contextlib.suppress(MaskingError):
            sites["b"].deal(read_message(dict[str, Advert], {**roster, "a": content}, "the server"))

    return dict(vars(secure_sites()["a"].advert)), receive_keys


def sealed_shares(folder: Path) -> tuple[Any, Callable[[Any], None]]:
    """What the sites have sealed for one another, and what one of them reveals."""
    sites = secure_sites()
    roster = {name: site.advert for name, site in sites.items()}
    sealed = {name: site.deal(roster) for name, site in sites.items()}

    def receive_shares(content: Any) -> None:
        secure = ServerRound("job/0", 3, 2, "", adverts=dict(roster), sealed=dict(sealed))
        with contextlib.suppress(MaskingError):
            secure.take_shares("a", content)
        for name in roster:
            secure.add(name, np.zeros(2, np.uint32))
        with contextlib.suppress(MaskingError):
            secure.unmask(dict.fromkeys(roster, content))
        sites["b"].step = "dealt"
        with contextlib.suppress(MaskingError):
            told = read_message(dict[str, dict[str, str]], {**sealed, "a": content}, "the server")
            sites["b"].open(told)

    return sealed["a"], receive_shares


GIVEN_UP = TaskFailure("CASE_ERROR", "why")

MESSAGES: Mapping[str, Callable[[Path], tuple[Any, Callable[[Any], None]]]] = {
    one.__name__: one
    for one in (
        contribution,
        compressed,
        change,
        metrics,
        headers,
        fingerprints,
        shared_scans,
        model,
        local_models,
        scores,
        keys,
        sealed_shares,
    )
}


@pytest.mark.filterwarnings("ignore")  # of NumPy about what is in odd arrays
@pytest.mark.parametrize("name", MESSAGES)
def test_odd_message_costs_nobody_but_who_sent_it(name: str, tmp_path: Path):
    good, receive_message = MESSAGES[name](tmp_path)
    receive_message(good)

    @settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
    @given(content=made_by(odd_content(good, ODD_PARTS)))
    def send(content: Any) -> None:
        receive_message(content)

    send()


def announced(reply: object) -> bytes:
    """A reply without arrays, as it goes through the pipe."""
    return pickle.dumps((pickle.dumps(reply), (), ()))


@settings(max_examples=EXAMPLES, deadline=None)
@given(
    content=made_by(
        one_of(
            odd_bytes(announced(GIVEN_UP)),
            lambda rng: announced(odd_value(rng)),
            lambda rng: pickle.dumps(odd_value(rng)),
        )
    )
)
@example(b"")
def test_trainer_that_sends_other_bytes_than_a_result_is_no_trainer(content: bytes):
    ours, theirs = Pipe()
    with ours, theirs:
        theirs.send_bytes(content)

        reply = receive(ours)
        assert reply is None or isinstance(reply, (TaskFailure, str))


@pytest.mark.parametrize("reply", [TaskResult({}, {}), GIVEN_UP, "abort"])
def test_what_a_trainer_sends_is_received(reply: Any):
    ours, theirs = Pipe()
    with ours, theirs:
        hand_over(theirs, reply)

        assert receive(ours) == reply
