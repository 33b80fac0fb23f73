"""The trainer as a process: it trains, it may die, it stops when told, and it never outlives who started it."""

from __future__ import annotations

import gc
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from tests.tiny_network import TINY, tiny_model
from tests.tiny_sites import make_tiny_sites

from brats_fl.constants import KEY_METRIC
from brats_fl.errors import TrainerError
from brats_fl.tasks import LocalSettings, Task, TaskFailure, TaskResult, TrainingAborted
from brats_fl.trainer import Trainer
from brats_fl.trainer_process import TaskLoop, describe_failure
from brats_fl.training import LocalTraining

BUNDLE = Path(__file__).parents[2] / "bundles" / "brats_unet"
ENDLESS = {**TINY, "steps_per_epoch": 100_000}


def settings_for(folder: Path, overrides: dict[str, Any] = TINY) -> LocalSettings:
    sites = make_tiny_sites(folder / "sites", {"hospital-1": (2, 1, 0)})
    datalist = sites / "hospital-1" / "datalist.json"
    return LocalSettings(BUNDLE, datalist, folder / "state", "hospital-1", 2, profile="small", overrides=overrides)


@pytest.fixture
def start() -> Iterator[Callable[[LocalSettings], Trainer]]:
    """Function that makes a trainer; all are stopped at the end."""
    made: list[Trainer] = []

    def make(settings: LocalSettings) -> Trainer:
        made.append(Trainer(settings))
        return made[-1]

    yield make
    for trainer in made:
        trainer.stop()


def in_thread(call: Callable[[], Any]) -> tuple[threading.Thread, list[Any]]:
    """Run a call in a thread; what it returned or raised is in the list."""
    outcome: list[Any] = []

    def body() -> None:
        try:
            outcome.append(call())
        except Exception as error:
            outcome.append(error)

    thread = threading.Thread(target=body)
    thread.start()
    return thread, outcome


def wait_for(condition: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)


def process_of(trainer: Trainer) -> psutil.Process:
    assert trainer.process is not None
    return psutil.Process(trainer.process.pid)


def is_training(trainer: Trainer) -> bool:
    """Whether the trainer has built everything and draws patches: its loader's thread caches the cases first."""
    cache = Path(os.environ["BRATS_FL_CACHE"])
    return len(list(cache.glob("*.pt"))) >= 3


# --- The process ---


def test_trainer_gives_what_a_training_in_this_process_gives_and_comes_back_after_a_kill(tmp_path, start):
    settings = settings_for(tmp_path)
    expected = TaskLoop(settings).carry_out(Task("train", {"weights": tiny_model()}, 1))
    trainer = start(settings)

    result = trainer.run(Task("train", {"weights": tiny_model()}, 1))

    assert isinstance(result, TaskResult)
    assert isinstance(expected, TaskResult)
    assert result.metrics.keys() == {KEY_METRIC, "val_dice_tc", "val_dice_wt", "val_dice_et"}
    assert result.statistics["cases"] == 2
    for name, change in expected.update.items():
        np.testing.assert_allclose(result.update[name], change, atol=1e-5)

    first = process_of(trainer)
    first.kill()
    first.wait()

    again = trainer.run(Task("train", {"weights": tiny_model()}, 1))
    assert process_of(trainer).pid != first.pid
    for name, change in result.update.items():
        np.testing.assert_array_equal(again.update[name], change)


def test_trainer_killed_while_it_trains_is_an_error_at_once_and_leaves_no_process(tmp_path, start):
    trainer = start(settings_for(tmp_path, ENDLESS))
    thread, outcome = in_thread(lambda: trainer.run(Task("train", {"weights": tiny_model()})))
    wait_for(lambda: is_training(trainer))

    process = process_of(trainer)
    process.kill()
    begin = time.monotonic()
    thread.join(timeout=30)

    assert time.monotonic() - begin < 5
    assert isinstance(outcome[0], TrainerError)
    assert str(outcome[0]).startswith("the trainer process was ended by SIGKILL; memory may have run out: lower batch")
    assert not process.is_running()


def test_abort_stops_a_training_within_seconds_and_the_trainer_goes_on(tmp_path, start):
    trainer = start(settings_for(tmp_path, ENDLESS))
    called_off = threading.Event()
    thread, outcome = in_thread(lambda: trainer.run(Task("train", {"weights": tiny_model()}), called_off.is_set))
    wait_for(lambda: is_training(trainer))
    pid = process_of(trainer).pid

    called_off.set()
    begin = time.monotonic()
    thread.join(timeout=30)

    assert time.monotonic() - begin < 5
    assert isinstance(outcome[0], TrainingAborted)
    assert isinstance(trainer.run(Task("validate", {"weights": tiny_model()})), TaskResult)
    assert process_of(trainer).pid == pid


def test_trainer_that_does_not_listen_is_killed(tmp_path, start, monkeypatch):
    monkeypatch.setattr("brats_fl.trainer.ABORT_GRACE_SECONDS", 0.5)
    trainer = start(settings_for(tmp_path))
    trainer.start()
    process = process_of(trainer)
    process.send_signal(signal.SIGSTOP)

    with pytest.raises(TrainingAborted):
        trainer.run(Task("train", {"weights": tiny_model()}), lambda: True)

    assert not process.is_running()


def test_trainer_ends_when_the_process_that_started_it_is_killed(tmp_path):
    code = (
        "import pickle, sys; from brats_fl.trainer import Trainer\n"
        "trainer = Trainer(pickle.load(open(sys.argv[1], 'rb'))); trainer.start()\n"
        "print(trainer.process.pid, flush=True); input()"
    )
    (tmp_path / "settings").write_bytes(pickle.dumps(settings_for(tmp_path)))
    parent = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "settings")], stdout=subprocess.PIPE, stdin=subprocess.PIPE
    )
    assert parent.stdout is not None
    child = psutil.Process(int(parent.stdout.readline()))
    with parent:
        parent.kill()

    wait_for(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE)


def test_stop_leaves_no_process_and_may_be_said_twice(tmp_path, start):
    trainer = start(settings_for(tmp_path))
    trainer.start()
    process = process_of(trainer)

    trainer.stop()
    trainer.stop()

    assert not process.is_running()


def test_linux_is_told_to_end_the_trainer_first_when_memory_runs_out(tmp_path, start):
    trainer = start(settings_for(tmp_path))
    trainer.start()
    score = Path(f"/proc/{process_of(trainer).pid}/oom_score_adj")

    wait_for(lambda: score.read_text().strip() == "500")


# --- What came of a task ---

CANARY = "canary7391"


def raising(error: BaseException) -> Callable[..., None]:
    def call(*_: Any, **__: Any) -> None:
        raise error

    return call


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(CANARY),
        torch.OutOfMemoryError(f"CUDA out of memory {CANARY}"),
        RuntimeError(f"DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes {CANARY}"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_memory_that_runs_out_has_a_code_and_the_next_task_works(tmp_path, monkeypatch, error):
    loop = TaskLoop(settings_for(tmp_path))
    with monkeypatch.context() as patched:
        patched.setattr(LocalTraining, "train", raising(error))

        failure = loop.carry_out(Task("train", {"weights": tiny_model()}))

    assert isinstance(failure, TaskFailure)
    assert failure.code == "OUT_OF_MEMORY"
    assert "lower batch_size or patch_size" in failure.text
    assert loop.training is None
    assert isinstance(loop.carry_out(Task("train", {"weights": tiny_model()})), TaskResult)


def test_memory_error_is_known_however_deep_it_is_wrapped():
    wrapped = RuntimeError("applying transform")
    wrapped.__cause__ = MemoryError()

    assert describe_failure(wrapped).code == "OUT_OF_MEMORY"
    assert describe_failure(RuntimeError("shapes differ")).code == "EXECUTION_EXCEPTION"


def test_network_is_gone_before_memory_is_given_back(tmp_path, monkeypatch):
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

    TaskLoop(settings_for(tmp_path)).carry_out(Task("train", {"weights": tiny_model()}))

    assert still_there == [False]
