from __future__ import annotations

import json
import shutil
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
from tests.flare import Engine, as_sent
from tests.tiny_kits import make_tiny_kits
from tests.tiny_network import tiny_model
from tests.tiny_sites import corrupt, make_tiny_sites

from brats_fl.components import executor as executor_module
from brats_fl.components.door import judge
from brats_fl.components.executor import ERROR_HEADER, STATISTICS, BratsExecutor
from brats_fl.components.receipts import RECEIPT_HEADER
from brats_fl.constants import KEY_METRIC
from brats_fl.digests import digest_of_model
from brats_fl.errors import TrainerError
from brats_fl.privacy.budget import BUDGET_FILE, SPENT_FILE, begin_record
from brats_fl.tasks import LocalSettings, Task, TaskFailure, TaskResult, TrainingAborted
from brats_fl.trainer_process import TaskLoop
from brats_fl.training import LocalTraining

CANARY = "canary7391"
SITE = f"hospital-{CANARY}"  # its folder, its cases and their files all bear the name


class TrainerInThisProcess:
    """The trainer without its process: starting one takes seconds (test_trainer.py does that)."""

    def __init__(self) -> None:
        self.settings: LocalSettings | None = None
        self.loop: TaskLoop | None = None
        self.started = self.stopped = False

    def start(self) -> None:
        self.started = True

    def run(self, task: Task, aborted: Callable[[], bool]) -> TaskResult | TaskFailure:
        assert self.settings is not None
        self.loop = self.loop or TaskLoop(self.settings)
        result = self.loop.carry_out(task)
        assert not isinstance(result, str)
        return result

    def stop(self) -> None:
        self.stopped = True


@pytest.fixture(autouse=True)
def no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(executor_module, "Trainer", TrainerInThisProcess)


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
    made = BratsExecutor(bundle="brats_unet", profile="tiny", local_epochs=1, seed=0)
    yield made
    made.handle_event(EventType.END_RUN, engine.new_context())


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
    reply = run(executor, engine, "train", task(tiny_model()))

    assert reply.get_return_code() in (None, ReturnCode.OK)
    dxo = from_shareable(reply)
    assert dxo.data_kind == DataKind.WEIGHT_DIFF
    assert set(dxo.data) == set(tiny_model())
    assert dxo.get_meta_prop(MetaKey.NUM_STEPS_CURRENT_ROUND) == 2
    assert set(dxo.get_meta_prop(MetaKey.INITIAL_METRICS)) == {KEY_METRIC, "val_dice_tc", "val_dice_wt", "val_dice_et"}
    statistics = dxo.get_meta_prop(STATISTICS)
    assert set(statistics) == {"cases", "steps", "loss", "train_seconds", "evaluate_seconds", "seconds", "cpu_seconds"}
    assert statistics["cpu_seconds"] > 0
    assert CANARY not in everything_that_goes_out(reply, engine)


def test_update_goes_with_a_receipt_that_names_nothing_of_the_site_but_its_name(executor, engine, sites, tmp_path):
    kit = make_tiny_kits(tmp_path / "kits").hospital
    for file in (kit.private_key, kit.certificate):
        shutil.copy(file, Path(engine.workspace.get_startup_kit_dir()))
    fl_ctx = engine.new_context()
    reply = executor.execute("train", task(tiny_model(), 1), fl_ctx, Signal())
    fl_ctx.set_prop(FLContextKey.TASK_RESULT, reply, private=True, sticky=False)

    executor.handle_event(EventType.AFTER_TASK_RESULT_FILTER, fl_ctx)

    receipt = reply.get_header(RECEIPT_HEADER)["receipt"]
    assert (receipt["site"], receipt["round"], receipt["cases"]) == ("hospital-1", 1, 2)
    assert receipt["received"] == digest_of_model(tiny_model())
    assert receipt["sent"] == digest_of_model(from_shareable(reply).data)
    assert CANARY not in everything_that_goes_out(reply, engine)


def test_validate_task_gives_metrics_only(executor, engine, sites):
    dxo = from_shareable(run(executor, engine, "validate", task(tiny_model())))

    assert dxo.data_kind == DataKind.METRICS
    assert set(dxo.data) == {KEY_METRIC, "val_dice_tc", "val_dice_wt", "val_dice_et"}
    assert dxo.get_meta_prop(STATISTICS)["cases"] == 2


def test_what_the_site_keeps_lies_in_its_kit_by_the_study_and_not_by_the_job(executor, engine, sites, tmp_path):
    run(executor, engine, "train", task(tiny_model()))

    kept = [path.relative_to(tmp_path / f"kit-{CANARY}").as_posix() for path in tmp_path.rglob("local_model.pt")]
    assert kept == ["state/none/local_model.pt"]


def test_unknown_task_is_said_to_be_unknown(executor, engine):
    assert run(executor, engine, "submit_model", task({})).get_return_code() == ReturnCode.TASK_UNKNOWN


@pytest.mark.parametrize(
    "changed",
    [
        {"overrides": {"mirror_axes": [f"$open('{CANARY}', 'w')"]}},
        {"overrides": {"learning_rate": f"$open('{CANARY}', 'w')"}},
        {"overrides": {"network_def": {"_target_": "subprocess.run", "args": ["touch", CANARY]}}},
        {"overrides": {"cache_dir": CANARY}},
        {"overrides": {"data_list_file_path": CANARY}},
        {"overrides": {"loss": f"$open('{CANARY}', 'w')"}},
        {"local_epochs": f"$open('{CANARY}', 'w')"},
        {"seed": f"$open('{CANARY}', 'w')"},
        {"profile": "evaluate"},
        {"profile": f"../{CANARY}"},
        {"bundle": f"../../{CANARY}"},
    ],
    ids=str,
)
def test_job_that_sets_more_than_data_is_refused_and_nothing_of_it_runs(
    changed: dict[str, Any], engine: Engine, sites: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    arguments = {"bundle": "brats_unet", "profile": "tiny", "local_epochs": 1, "seed": 0} | changed

    reply = run(BratsExecutor(**arguments), engine, "train", task(tiny_model()))

    code = "MODEL_ERROR" if "profile" in changed else "JOB_ERROR"
    assert_clean_failure(reply, engine, code, sites)
    assert not (tmp_path / CANARY).exists()


def test_site_without_a_data_list_answers_with_a_code(executor, engine):
    assert_clean_failure(run(executor, engine, "train", task(tiny_model())), engine, "DATALIST_ERROR")


def test_data_list_without_training_cases_answers_with_a_code(executor, engine, tmp_path, monkeypatch):
    root = make_tiny_sites(tmp_path / "sites", {SITE: (0, 1, 0)})
    monkeypatch.setenv("BRATS_FL_DATALIST", str(root / SITE / "datalist.json"))

    assert_clean_failure(run(executor, engine, "train", task(tiny_model())), engine, "DATALIST_ERROR")


def test_corrupt_case_answers_with_a_code_and_the_next_task_works(executor, engine, sites):
    scan = next(sites.glob("*-001/*_t2.nii.gz"))
    whole = corrupt(scan)
    other = next(sites.glob("*-002/*_t2.nii.gz"))
    other_whole = corrupt(other)

    assert_clean_failure(run(executor, engine, "train", task(tiny_model())), engine, "CASE_ERROR")

    scan.write_bytes(whole)
    other.write_bytes(other_whole)
    assert from_shareable(run(executor, engine, "train", task(tiny_model(), 1))).data_kind == DataKind.WEIGHT_DIFF


def test_corrupt_validation_case_answers_with_a_code(executor, engine, sites):
    scan = next(sites.glob("*-003/*_seg.nii.gz"))
    corrupt(scan)

    assert_clean_failure(run(executor, engine, "validate", task(tiny_model())), engine, "CASE_ERROR")


def test_data_list_that_does_not_pass_the_gate_answers_with_a_code(executor, engine, sites):
    next(sites.glob("*-003/*_t1.nii.gz")).unlink()

    assert_clean_failure(run(executor, engine, "train", task(tiny_model())), engine, "DATALIST_ERROR")


def test_model_of_another_network_answers_with_a_code(executor, engine, sites):
    other = {**tiny_model(), "model.9.weight": np.zeros(2, np.float32)}

    assert_clean_failure(run(executor, engine, "train", task(other)), engine, "MODEL_ERROR")
    assert from_shareable(run(executor, engine, "train", task(tiny_model()))).data_kind == DataKind.WEIGHT_DIFF


def test_job_without_its_bundle_answers_with_a_code(engine, sites):
    executor = BratsExecutor(bundle="brats_none", profile="small", local_epochs=1, seed=0)

    assert_clean_failure(run(executor, engine, "train", task(tiny_model())), engine, "JOB_ERROR")


def raising(error: BaseException) -> Callable[..., None]:
    def call(*_: Any, **__: Any) -> None:
        raise error

    return call


def test_error_nobody_foresaw_answers_with_a_code(executor, engine, sites, monkeypatch):
    monkeypatch.setattr(LocalTraining, "evaluate", raising(ZeroDivisionError(f"in {CANARY}_t1.nii.gz")))

    assert_clean_failure(run(executor, engine, "train", task(tiny_model())), engine, "EXECUTION_EXCEPTION")


def test_why_a_task_failed_is_in_the_site_s_own_log(executor, engine, sites, caplog):
    scan = next(sites.glob("*-003/*_seg.nii.gz"))
    scan.write_bytes(b"")

    run(executor, engine, "validate", task(tiny_model()))

    assert f"{SITE}-case-003 label: G02-file-unreadable" in caplog.text
    assert str(scan) in caplog.text


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (TrainerError(f"the trainer process was ended by SIGKILL {CANARY}"), "TRAINER_DIED"),
        (OSError(f"No space left on device: /tmp/{CANARY}"), "EXECUTION_EXCEPTION"),
    ],
)
def test_trainer_that_died_or_cannot_start_answers_with_a_code(executor, engine, sites, monkeypatch, error, code):
    monkeypatch.setattr(TrainerInThisProcess, "run", raising(error))

    assert_clean_failure(run(executor, engine, "train", task(tiny_model())), engine, code)


def test_task_that_was_called_off_says_so(executor, engine, sites, monkeypatch):
    monkeypatch.setattr(TrainerInThisProcess, "run", raising(TrainingAborted()))

    reply = run(executor, engine, "train", task(tiny_model()))

    assert reply.get_return_code() == ReturnCode.TASK_ABORTED
    assert CANARY not in everything_that_goes_out(reply, engine)


def test_abort_signal_reaches_the_trainer(executor, engine, sites, monkeypatch):
    seen = []

    def note(_: TrainerInThisProcess, __: Task, aborted: Callable[[], bool]) -> None:
        seen.append(aborted())
        signal.trigger(True)
        seen.append(aborted())
        raise TrainingAborted

    monkeypatch.setattr(TrainerInThisProcess, "run", note)
    signal = Signal()

    run(executor, engine, "train", task(tiny_model()), signal)

    assert seen == [False, True]


def test_message_that_is_no_model_answers_with_a_code(executor, engine, sites):
    assert_clean_failure(run(executor, engine, "train", Shareable()), engine, "EXECUTION_EXCEPTION")


def test_job_of_a_site_lets_no_other_site_in(executor, engine, sites):
    executor.handle_event(EventType.START_RUN, engine.new_context())

    assert engine.request_filters == [("*", "*", judge, "hospital-1")]


def test_trainer_is_started_with_the_job_and_told_what_to_do_with_the_first_task(executor, engine, sites):
    executor.handle_event(EventType.START_RUN, engine.new_context())
    trainer = executor.trainer
    assert trainer.started
    assert trainer.settings is None

    run(executor, engine, "validate", task(tiny_model()))

    assert executor.trainer is trainer
    assert trainer.settings.datalist == sites / "datalist.json"


def test_end_of_the_job_ends_the_trainer(executor, engine, sites):
    run(executor, engine, "validate", task(tiny_model()))
    trainer = executor.trainer

    executor.handle_event(EventType.END_RUN, engine.new_context())

    assert trainer.stopped
    assert executor.trainer is None


# --- A hospital with a privacy budget ---


CHOSEN = {"noise_multiplier": 2.0, "clipping_norm": 1.0, "sampling_rate": 1.0, "delta": 1e-3}


def give_budget(engine: Engine, **more: Any) -> None:
    local = Path(engine.workspace.get_site_config_dir())
    (local / BUDGET_FILE).write_text(json.dumps({"epsilon": 3.0, "delta": 1e-3, **more}), encoding="utf-8")
    begin_record(local / SPENT_FILE)


def private(**values: Any) -> BratsExecutor:
    return BratsExecutor("brats_unet", "tiny", 1, 0, algorithm="dp", algorithm_settings={**CHOSEN, **values})


def test_private_round_sends_the_update_its_epsilon_and_counts_and_nothing_else(engine, sites):
    give_budget(engine)

    dxo = from_shareable(run(private(), engine, "train", task(tiny_model())))

    assert set(dxo.meta) == {MetaKey.NUM_STEPS_CURRENT_ROUND, STATISTICS}
    assert set(dxo.meta[STATISTICS]) == {"cases", "steps", "epsilon", "delta"}
    assert dict(from_shareable(run(private(), engine, "validate", task(tiny_model()))).data) == {}


def test_private_job_is_refused_where_the_hospital_has_no_budget_or_too_little(engine, sites):
    assert_clean_failure(run(private(), engine, "train", task(tiny_model())), engine, "PRIVACY_BUDGET", sites)

    give_budget(engine)  # epsilon of a round of two steps is 4.6 with this noise
    reply = run(private(noise_multiplier=1.0), engine, "train", task(tiny_model()))

    assert_clean_failure(reply, engine, "PRIVACY_BUDGET", sites)
    assert not (Path(engine.workspace.get_root_dir()) / "state").exists()


@pytest.mark.parametrize("name", ["train", "validate"])
def test_hospital_with_a_budget_sends_nothing_that_is_not_accounted(name, executor, engine, sites):
    give_budget(engine)
    assert_clean_failure(run(executor, engine, name, task(tiny_model())), engine, "PRIVACY_BUDGET", sites)

    give_budget(engine, allow_unaccounted=True)
    assert run(executor, engine, name, task(tiny_model())).get_return_code() in (None, ReturnCode.OK)


def test_budget_that_cannot_be_read_lets_nothing_be_trained(executor, engine, sites):
    give_budget(engine, epsilon="much")

    for one in (executor, private()):
        assert_clean_failure(run(one, engine, "train", task(tiny_model())), engine, "PRIVACY_BUDGET", sites)
