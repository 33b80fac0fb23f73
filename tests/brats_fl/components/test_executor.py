from __future__ import annotations

import gc
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from nvflare.apis.dxo import DXO, DataKind, MetaKey, from_shareable
from nvflare.apis.event_type import EventType
from nvflare.apis.fl_constant import ReturnCode
from nvflare.apis.shareable import Shareable
from nvflare.apis.signal import Signal
from nvflare.app_common.app_constant import AppConstants
from tests.flare import Engine, as_sent
from tests.tiny_sites import make_tiny_sites

from brats_fl.components.executor import ERROR_HEADER, STATISTICS, BratsExecutor, is_out_of_memory
from brats_fl.constants import KEY_METRIC
from brats_fl.training import LocalTraining

CANARY = "canary7391"
SITE = f"hospital-{CANARY}"  # its folder, its cases and their files all bear the name
TINY = {
    "patch_size": [32, 32, 32],
    "window_size": [48, 48, 48],
    "steps_per_epoch": 2,
    "batch_size": 1,
    "num_workers": 0,
    "network_def#channels": [4, 8, 8, 8, 8],
}


@pytest.fixture
def sites(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two cases for training, one for validation; the site is called ``hospital-1`` towards the server."""
    root = make_tiny_sites(tmp_path / "sites", {SITE: (2, 1, 0)})
    monkeypatch.setenv("BRATS_FL_DATALIST", str(root / SITE / "datalist.json"))
    return root / SITE


@pytest.fixture
def engine(tmp_path: Path) -> Engine:
    return Engine(tmp_path / f"kit-{CANARY}", "hospital-1")


@pytest.fixture
def executor(engine: Engine) -> Iterator[BratsExecutor]:
    made = BratsExecutor(bundle="brats_unet", profile="small", local_epochs=1, seed=0, overrides=TINY)
    yield made
    made.handle_event(EventType.END_RUN, engine.new_context())


def model() -> dict[str, Any]:
    from monai.networks.nets import UNet

    torch.manual_seed(11)
    network = UNet(3, 4, 3, TINY["network_def#channels"], [2] * 4, num_res_units=2, norm=("INSTANCE", {"affine": True}))
    return {name: value.numpy() for name, value in network.state_dict().items()}


def task(weights: dict[str, Any], round_index: int = 0) -> Shareable:
    data = DXO(DataKind.WEIGHTS, data=weights).to_shareable()
    data.set_header(AppConstants.CURRENT_ROUND, round_index)
    data.set_header(AppConstants.NUM_ROUNDS, 2)
    return data


def run(executor: BratsExecutor, engine: Engine, name: str, data: Shareable, signal: Signal | None = None) -> Shareable:
    return executor.execute(name, data, engine.new_context(), signal or Signal())


def everything_that_goes_out(reply: Shareable, engine: Engine) -> str:
    """The reply as it is sent, and what the log events, which a streaming component may send, say."""
    return repr(as_sent(reply)) + repr(dict(reply)) + repr(engine.events)


def assert_clean_failure(reply: Shareable, engine: Engine, code: str, sites: Path | None = None) -> None:
    assert reply.get_return_code() == ReturnCode.EXECUTION_EXCEPTION
    assert reply.get_header(ERROR_HEADER) == code
    sent = everything_that_goes_out(reply, engine)
    for secret in (CANARY, "Traceback", ".py", ".nii", "/tmp", "model.0"):
        assert secret not in sent


def test_train_task_gives_the_update_the_cases_and_the_metrics_of_the_global_model(executor, engine, sites):
    reply = run(executor, engine, "train", task(model()))

    assert reply.get_return_code() in (None, ReturnCode.OK)
    dxo = from_shareable(reply)
    assert dxo.data_kind == DataKind.WEIGHT_DIFF
    assert set(dxo.data) == set(model())
    assert dxo.get_meta_prop(MetaKey.NUM_STEPS_CURRENT_ROUND) == 2
    assert set(dxo.get_meta_prop(MetaKey.INITIAL_METRICS)) == {KEY_METRIC, "val_dice_tc", "val_dice_wt", "val_dice_et"}
    statistics = dxo.get_meta_prop(STATISTICS)
    assert set(statistics) == {"cases", "steps", "loss", "train_seconds", "evaluate_seconds", "seconds"}
    assert CANARY not in everything_that_goes_out(reply, engine)


def test_validate_task_gives_metrics_only(executor, engine, sites):
    dxo = from_shareable(run(executor, engine, "validate", task(model())))

    assert dxo.data_kind == DataKind.METRICS
    assert set(dxo.data) == {KEY_METRIC, "val_dice_tc", "val_dice_wt", "val_dice_et"}
    assert dxo.get_meta_prop(STATISTICS)["cases"] == 2


def test_what_the_site_keeps_lies_in_the_job_s_run_folder(executor, engine, sites, tmp_path):
    run(executor, engine, "train", task(model()))

    assert [path.relative_to(tmp_path / f"kit-{CANARY}").parts[1] for path in tmp_path.rglob("local_model.pt")] == [
        "local_model.pt"
    ]


def test_unknown_task_is_said_to_be_unknown(executor, engine):
    assert run(executor, engine, "submit_model", task({})).get_return_code() == ReturnCode.TASK_UNKNOWN


def test_site_without_a_data_list_answers_with_a_code(executor, engine):
    assert_clean_failure(run(executor, engine, "train", task(model())), engine, "DATALIST_ERROR")


def test_data_list_without_training_cases_answers_with_a_code(executor, engine, tmp_path, monkeypatch):
    root = make_tiny_sites(tmp_path / "sites", {SITE: (0, 1, 0)})
    monkeypatch.setenv("BRATS_FL_DATALIST", str(root / SITE / "datalist.json"))

    assert_clean_failure(run(executor, engine, "train", task(model())), engine, "DATALIST_ERROR")


def test_corrupt_case_answers_with_a_code_and_the_next_task_works(executor, engine, sites):
    scan = next(sites.glob("*-001/*_t2.nii.gz"))
    whole = scan.read_bytes()
    scan.write_bytes(whole[:500])
    other = next(sites.glob("*-002/*_t2.nii.gz"))
    other_whole = other.read_bytes()
    other.write_bytes(other_whole[:500])

    assert_clean_failure(run(executor, engine, "train", task(model())), engine, "CASE_ERROR")

    scan.write_bytes(whole)
    other.write_bytes(other_whole)
    assert from_shareable(run(executor, engine, "train", task(model(), 1))).data_kind == DataKind.WEIGHT_DIFF


def test_corrupt_validation_case_answers_with_a_code(executor, engine, sites):
    scan = next(sites.glob("*-003/*_seg.nii.gz"))
    scan.write_bytes(b"")

    assert_clean_failure(run(executor, engine, "validate", task(model())), engine, "CASE_ERROR")


def test_model_of_another_network_answers_with_a_code(executor, engine, sites):
    other = {**model(), "model.9.weight": np.zeros(2, np.float32)}

    assert_clean_failure(run(executor, engine, "train", task(other)), engine, "MODEL_ERROR")
    assert from_shareable(run(executor, engine, "train", task(model()))).data_kind == DataKind.WEIGHT_DIFF


def test_job_without_its_bundle_answers_with_a_code(engine, sites):
    executor = BratsExecutor(bundle="brats_none", profile="small", local_epochs=1, seed=0)

    assert_clean_failure(run(executor, engine, "train", task(model())), engine, "JOB_ERROR")


OUT_OF_MEMORY = [
    MemoryError(f"{CANARY}"),
    torch.OutOfMemoryError(f"CUDA out of memory {CANARY}"),
    RuntimeError(f"DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes {CANARY}"),
]


@pytest.mark.parametrize("error", OUT_OF_MEMORY, ids=lambda error: type(error).__name__)
def test_site_out_of_memory_answers_with_a_code_lets_the_network_go_and_works_again(
    executor, engine, sites, monkeypatch, error
):
    with monkeypatch.context() as patched:
        patched.setattr(LocalTraining, "train", raising(error))
        assert_clean_failure(run(executor, engine, "train", task(model())), engine, "OUT_OF_MEMORY")

    assert executor.training is None
    assert from_shareable(run(executor, engine, "train", task(model()))).data_kind == DataKind.WEIGHT_DIFF


def raising(error: BaseException) -> Callable[..., None]:
    def call(*_: Any, **__: Any) -> None:
        raise error

    return call


def test_memory_error_is_known_however_deep_it_is_wrapped():
    wrapped = RuntimeError("applying transform")
    wrapped.__cause__ = MemoryError()

    assert is_out_of_memory(wrapped)
    assert not is_out_of_memory(RuntimeError("shapes differ"))


def test_network_is_gone_before_memory_is_given_back(executor, engine, sites, monkeypatch):
    networks: list[Any] = []
    still_there: list[bool] = []

    def run_out_of_memory(training: LocalTraining, *_: Any) -> None:
        networks.append(weakref.ref(training.trainer.network))
        raise MemoryError

    def look() -> None:
        gc.collect()
        still_there.append(networks[0]() is not None)

    monkeypatch.setattr(LocalTraining, "train", run_out_of_memory)
    monkeypatch.setattr(LocalTraining, "free_memory", staticmethod(look))

    run(executor, engine, "train", task(model()))

    assert still_there == [False]


def test_error_nobody_foresaw_answers_with_a_code(executor, engine, sites, monkeypatch):
    monkeypatch.setattr(LocalTraining, "evaluate", raising(ZeroDivisionError(f"in {CANARY}_t1.nii.gz")))

    assert_clean_failure(run(executor, engine, "train", task(model())), engine, "EXECUTION_EXCEPTION")


def test_why_a_task_failed_is_in_the_site_s_own_log(executor, engine, sites, caplog):
    scan = next(sites.glob("*-003/*_seg.nii.gz"))
    scan.write_bytes(b"")

    run(executor, engine, "validate", task(model()))

    assert f"{SITE}-case-003: label cannot be read" in caplog.text
    assert str(scan) in caplog.text


def test_abort_ends_a_task_within_seconds_and_says_so(executor, engine, sites):
    run(executor, engine, "validate", task(model()))  # everything is built, cached and warm
    executor.training.trainer.network.register_forward_hook(lambda *_: time.sleep(0.5))
    signal, replies = Signal(), []

    thread = threading.Thread(target=lambda: replies.append(run(executor, engine, "train", task(model()), signal)))
    thread.start()
    time.sleep(0.3)
    begin = time.perf_counter()
    signal.trigger(True)
    thread.join(timeout=30)

    assert time.perf_counter() - begin < 5
    assert replies[0].get_return_code() == ReturnCode.TASK_ABORTED
    assert CANARY not in everything_that_goes_out(replies[0], engine)


def test_abort_between_evaluation_and_training_is_not_lost(executor, engine, sites, monkeypatch):
    signal = Signal()
    evaluate = LocalTraining.evaluate

    def evaluate_then_called_off(training: LocalTraining, *arguments: Any) -> Any:
        result = evaluate(training, *arguments)
        training.trainer.network.register_forward_hook(lambda *_: time.sleep(0.5))
        signal.trigger(True)
        time.sleep(0.5)  # the watch has seen the signal before training begins
        return result

    monkeypatch.setattr(LocalTraining, "evaluate", evaluate_then_called_off)

    assert run(executor, engine, "train", task(model()), signal).get_return_code() == ReturnCode.TASK_ABORTED


def test_aborted_task_leaves_the_executor_able_to_go_on(executor, engine, sites):
    signal = Signal()
    signal.trigger(True)
    assert run(executor, engine, "validate", task(model())).get_return_code() in (None, ReturnCode.OK)
    executor.training.trainer.network.register_forward_hook(lambda *_: time.sleep(0.3))

    assert run(executor, engine, "train", task(model()), signal).get_return_code() == ReturnCode.TASK_ABORTED
    assert from_shareable(run(executor, engine, "train", task(model()))).data_kind == DataKind.WEIGHT_DIFF


def test_end_of_the_job_lets_go_of_everything(executor, engine, sites):
    run(executor, engine, "validate", task(model()))

    executor.handle_event(EventType.END_RUN, engine.new_context())

    assert executor.training is None
