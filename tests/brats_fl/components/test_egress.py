"""A hospital's contract on what leaves it, held over what the executor really sends."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from nvflare.apis.dxo import DXO, DataKind, MetaKey, from_shareable
from nvflare.apis.event_type import EventType
from nvflare.apis.fl_constant import FLContextKey, ReturnCode
from nvflare.apis.shareable import Shareable
from nvflare.apis.signal import Signal
from nvflare.app_common.app_constant import AppConstants
from tests.brats_fl.components.test_executor import CANARY, TrainerInThisProcess, task
from tests.brats_fl.components.test_statistics import GOOD, answer
from tests.flare import JOB, Engine, as_sent
from tests.hostile import NO_COUNTS
from tests.tiny_network import tiny_model
from tests.tiny_sites import corrupt, make_tiny_sites

from brats_fl.components import executor as executor_module
from brats_fl.components.egress import EgressContract
from brats_fl.components.executor import ERROR_HEADER, STATISTICS, BratsExecutor, failure
from brats_fl.components.fingerprints import TASK_FINGERPRINTS, FingerprintExecutor
from brats_fl.components.receipts import RECEIPT_HEADER
from brats_fl.components.secure_executor import SecureExecutor, message
from brats_fl.components.statistics import SiteStatisticsExecutor
from brats_fl.constants import KEY_METRIC
from brats_fl.exchange import MASKED
from brats_fl.sharing.egress import FILTER, read_log

SITE = f"hospital-{CANARY}"


def break_a_scan(site: Path) -> None:
    for path in site.rglob("*.nii*"):
        corrupt(path)


BREAKS = (None, break_a_scan, lambda site: (site / "datalist.json").unlink())
ARRAYS = {"w": np.ones(100, np.float32)}


@pytest.fixture
def engine(tmp_path: Path) -> Engine:
    engine = Engine(tmp_path / f"kit-{CANARY}", "hospital-1")
    engine.component_of[FILTER] = EgressContract()
    (tmp_path / f"kit-{CANARY}" / JOB / "meta.json").write_text(json.dumps({"name": "brats_unet_fedavg"}))
    return engine


@pytest.fixture
def local(engine: Engine) -> Path:
    return Path(engine.workspace.get_site_config_dir())


def agree(local: Path, **contract: Any) -> None:
    (local / "egress.json").write_text(json.dumps(contract))


def update(cases: object = 3, **meta: Any) -> Shareable:
    meta = {MetaKey.NUM_STEPS_CURRENT_ROUND: cases, STATISTICS: {"cases": cases, "loss": 0.4321}, **meta}
    return DXO(DataKind.WEIGHT_DIFF, data=dict(ARRAYS), meta=meta).to_shareable()


def send(engine: Engine, reply: Shareable, name: str = "train", number: int = 0) -> Shareable:
    """What FLARE sends of a reply: its events are told to the contract as FLARE tells them, last."""
    contract, fl_ctx = EgressContract(), engine.new_context()
    for key, value in ((FLContextKey.TASK_NAME, name), (FLContextKey.TASK_DATA, task({}, number))):
        fl_ctx.set_prop(key, value, private=True, sticky=False)
    contract.handle_event(EventType.BEFORE_TASK_EXECUTION, fl_ctx)
    fl_ctx.set_prop(FLContextKey.TASK_RESULT, reply, private=True, sticky=False)
    contract.handle_event(EventType.AFTER_TASK_RESULT_FILTER, fl_ctx)
    return reply


def is_refused(reply: Shareable) -> bool:
    return reply.get_header(ERROR_HEADER) == "EGRESS_REFUSED" and set(reply) == {"__headers__"}


def why(local: Path) -> str:
    return read_log(local / "egress.jsonl")[-1].why


def test_without_a_contract_all_goes_out_and_is_logged(engine: Engine, local: Path) -> None:
    reply = send(engine, update(**{MetaKey.INITIAL_METRICS: {KEY_METRIC: 0.7314}}), number=4)

    assert from_shareable(reply).data["w"].nbytes == 400
    [line] = read_log(local / "egress.jsonl")
    assert (line.job, line.name, line.round, line.task) == (JOB, "brats_unet_fedavg", 4, "train")
    assert (line.kind, line.arrays, line.cases, line.metrics) == ("update", 1, 3, (KEY_METRIC,))
    assert line.payloads == ("WEIGHT_DIFF",)
    assert 400 < line.bytes < 700  # the array's, and the names and numbers beside it


def test_epsilon_of_a_private_update_is_logged(engine: Engine, local: Path) -> None:
    send(engine, update(**{STATISTICS: {"cases": 3, "steps": 2, "epsilon": 1.5, "delta": 0.001}}))

    [line] = read_log(local / "egress.jsonl")
    assert (line.epsilon, line.metrics) == (1.5, ())


@pytest.mark.parametrize("number", NO_COUNTS)
def test_log_can_be_read_again_whatever_is_stated(engine: Engine, local: Path, number: object) -> None:
    send(engine, update(number, **{STATISTICS: {"cases": number, "epsilon": number}}))
    agree(local)

    reply = send(engine, update())

    assert not is_refused(reply)
    first, second = read_log(local / "egress.jsonl")
    assert (first.cases, second.cases) == (None, 3)


@pytest.mark.parametrize("name", ["nul\0", "a\u2028b", "\x1b[2J"])
def test_reply_of_which_no_line_can_be_logged_does_not_leave(engine: Engine, local: Path, name: str) -> None:
    assert is_refused(send(engine, update(), name=name))

    assert not is_refused(send(engine, update()))
    assert len(read_log(local / "egress.jsonl")) == 1


@pytest.mark.parametrize(
    ("contract", "reason"),
    [
        ({"kinds": ["metrics"]}, "kinds: 'update' is not among metrics"),
        ({"tensor_names": "model\\..*"}, "tensor_names: 'w' does not match 'model\\\\..*'"),
        ({"fewest_cases": 4}, "fewest_cases: 3 cases, at least 4 are asked for"),
        ({"jobs": ["another"]}, "jobs: 'brats_unet_fedavg' is not among another"),
        ({"most_bytes_a_round": 399}, "most_bytes_a_round: "),
    ],
)
def test_what_the_contract_does_not_allow_is_refused_and_logged(
    engine: Engine, local: Path, contract: dict[str, Any], reason: str
) -> None:
    agree(local, **contract)

    reply = send(engine, update())

    assert is_refused(reply)
    assert why(local).startswith(reason)
    assert reason not in repr(as_sent(reply))


def test_rounds_of_a_month_are_counted_over_all_jobs_and_a_round_once(engine: Engine, local: Path) -> None:
    agree(local, most_rounds_a_month=2)

    sent = [send(engine, update(), number=number) for number in (0, 1, 1, 2)]

    assert [is_refused(reply) for reply in sent] == [False, False, False, True]
    assert why(local).startswith("most_rounds_a_month: 3 in ")


def test_bytes_of_a_round_are_counted_together(engine: Engine, local: Path) -> None:
    agree(local, most_bytes_a_round=1000)

    assert [is_refused(send(engine, update(), number=number)) for number in (0, 0, 0, 1)] == [False, False, True, False]


@pytest.mark.parametrize(
    ("word", "told"), [("exact", {KEY_METRIC: 0.7314}), ("rounded", {KEY_METRIC: 0.73}), ("no", {})]
)
def test_metrics_go_as_the_contract_says(engine: Engine, local: Path, word: str, told: dict[str, float]) -> None:
    agree(local, metrics=word)
    metrics = DXO(DataKind.METRICS, data={KEY_METRIC: 0.7314}, meta={STATISTICS: {"cases": 2}}).to_shareable()

    trained = from_shareable(send(engine, update(**{MetaKey.INITIAL_METRICS: {KEY_METRIC: 0.7314}})))
    evaluated = from_shareable(send(engine, metrics, "validate"))

    assert trained.get_meta_prop(MetaKey.INITIAL_METRICS) == evaluated.data == told
    loss = {"exact": {"loss": 0.4321}, "rounded": {"loss": 0.43}, "no": {}}[word]
    assert trained.get_meta_prop(STATISTICS) == {"cases": 3, **loss}


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"kinds": ["updates"]}', '{"metrics": "No"}', '{"fewest_case": 5}', '{"fewest_cases": 0}',
             '{"tensor_names": "("}', '{"jobs": "brats_unet_fedavg"}']
)  # fmt: skip
def test_contract_that_cannot_be_read_lets_nothing_out(engine: Engine, local: Path, text: str) -> None:
    (local / "egress.json").write_text(text)

    assert is_refused(send(engine, update()))


@pytest.mark.parametrize("spoil", ["log", "folder"])
def test_what_cannot_be_logged_does_not_leave(engine: Engine, local: Path, spoil: str) -> None:
    if spoil == "log":
        agree(local)
        (local / "egress.jsonl").write_text("no line\n")
    else:
        (local / "egress.jsonl").mkdir()

    assert is_refused(send(engine, update()))


def test_full_disk_is_said_to_be_one_where_a_line_cannot_be_kept(engine: Engine, local: Path) -> None:
    (local / "egress.jsonl").symlink_to("/dev/full")

    reply = send(engine, update())

    assert (reply.get_header(ERROR_HEADER), set(reply)) == ("DISK_FULL", {"__headers__"})


@pytest.mark.parametrize("task", sorted(SecureExecutor.messages))
def test_contract_can_let_the_messages_of_secure_aggregation_out_or_not(engine: Engine, local: Path, task: str) -> None:
    agree(local, kinds=["update", "masking"])
    assert not is_refused(send(engine, message({"a": "00"}), task))

    agree(local, kinds=["update"])
    assert is_refused(send(engine, message({"a": "00"}), task))


def test_masked_update_is_an_update(engine: Engine, local: Path) -> None:
    agree(local, kinds=["update"], fewest_cases=3)
    words = np.arange(100, dtype=np.uint32)
    meta = {MetaKey.NUM_STEPS_CURRENT_ROUND: 3, STATISTICS: {"cases": 3}}

    reply = send(engine, DXO(DataKind.APP_DEFINED, data={MASKED: words}, meta=meta).to_shareable())

    assert not is_refused(reply)
    [line] = read_log(local / "egress.jsonl")
    assert (line.kind, line.arrays, line.cases) == ("update", 1, 3)
    assert line.bytes > words.nbytes


def test_task_of_no_known_kind_sends_nothing_under_a_contract(engine: Engine, local: Path) -> None:
    agree(local)

    assert is_refused(send(engine, update(), "anything"))


def test_what_is_no_data_does_not_leave(engine: Engine) -> None:
    reply = update()
    reply["more"] = iter(())

    assert is_refused(send(engine, reply))


def test_failure_leaves_as_its_code_alone(engine: Engine, local: Path) -> None:
    agree(local, kinds=[])  # nothing may leave; that something failed is told all the same
    reply = failure("CASE_ERROR")
    reply["more"] = CANARY
    reply.set_header("path", f"/data/{CANARY}")

    assert CANARY not in repr(as_sent(send(engine, reply)))
    assert reply.get_header(ERROR_HEADER) == "CASE_ERROR"
    assert CANARY not in repr(as_sent(send(engine, failure(f"/data/{CANARY}"))))
    assert reply.get_return_code() == ReturnCode.EXECUTION_EXCEPTION


def test_statistics_are_logged_as_such_and_their_failures_tell_nothing_of_the_site(
    engine: Engine, local: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    agree(local, kinds=["statistics"])
    monkeypatch.setenv("BRATS_FL_DATALIST", str(tmp_path / CANARY / "datalist.json"))
    told = send(engine, answer(GOOD), "fed_stats")

    executor = SiteStatisticsExecutor("statistics")
    failed = send(engine, executor.execute("fed_stats", Shareable(), engine.new_context(), Signal()), "fed_stats")

    assert not is_refused(told)
    assert failed.get_header(ERROR_HEADER) == "DATALIST_ERROR"
    assert CANARY not in repr(as_sent(failed)) + (local / "egress.jsonl").read_text()
    assert [line.kind for line in read_log(local / "egress.jsonl")] == ["statistics", "code"]


@pytest.fixture
def executor(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> Iterator[BratsExecutor]:
    monkeypatch.setattr(executor_module, "Trainer", TrainerInThisProcess)
    made = BratsExecutor(bundle="brats_unet", profile="tiny", local_epochs=1, seed=0)
    yield made
    made.handle_event(EventType.END_RUN, engine.new_context())


@pytest.mark.parametrize("break_it", BREAKS)
@pytest.mark.parametrize("name", [AppConstants.TASK_TRAIN, AppConstants.TASK_VALIDATION])
def test_names_and_paths_of_a_site_leave_neither_in_results_nor_in_failures(
    engine: Engine,
    local: Path,
    executor: BratsExecutor,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    break_it: Callable[[Path], Any] | None,
) -> None:
    site = make_tiny_sites(tmp_path / "sites", {SITE: (2, 1, 0)}) / SITE
    monkeypatch.setenv("BRATS_FL_DATALIST", str(site / "datalist.json"))
    agree(local)
    if break_it:
        break_it(site)

    reply = send(engine, executor.execute(name, task(tiny_model()), engine.new_context(), Signal()), name)

    assert CANARY not in repr(as_sent(reply)) + repr(dict(reply)) + repr(engine.events)
    assert CANARY not in (local / "egress.jsonl").read_text()
    assert not is_refused(reply)
    assert reply.get_header(RECEIPT_HEADER) is None  # no certificates here


@pytest.mark.parametrize("kind", ["training", "statistics", "fingerprints"])
def test_contract_that_nothing_at_the_site_enforces_lets_nothing_out(
    engine: Engine, local: Path, executor: BratsExecutor, kind: str
) -> None:
    asked = {
        "training": (executor, "train", task(tiny_model())),
        "statistics": (SiteStatisticsExecutor("statistics"), "fed_stats", Shareable()),
        "fingerprints": (FingerprintExecutor(), TASK_FINGERPRINTS, Shareable()),
    }

    def code() -> str:
        answering, name, data = asked[kind]
        reply = answering.execute(name, data, engine.new_context(), Signal())
        return str(reply.get_header(ERROR_HEADER))

    agree(local, metrics="rounded")
    assert code() != "EGRESS_REFUSED"
    del engine.component_of[FILTER]
    assert code() == "EGRESS_REFUSED"
    (local / "egress.json").unlink()
    assert code() != "EGRESS_REFUSED"
