"""Two processes of a site that train as one, with gloo on the CPU: they give what one gives, and end together."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from tests.tiny_network import TINY, tiny_model
from tests.tiny_sites import make_tiny_sites

from brats_fl.errors import TrainerError
from brats_fl.tasks import LocalSettings, Task, TaskFailure, TaskResult
from brats_fl.trainer import Trainer
from brats_fl.trainer_process import TaskLoop, make_loop

BUNDLE = Path(__file__).parents[2] / "bundles" / "brats_unet"

PLAIN = {"optimizer_name": "sgd", "learning_rate": 0.1}
"""AdamW divides each gradient by its size, and so makes a step of the rounding errors of one that should be 0."""


def settings_for(folder: Path, **overrides: Any) -> LocalSettings:
    make_tiny_sites(folder / "sites", {"hospital-1": (2, 3, 0)})
    return LocalSettings(
        bundle=BUNDLE,
        datalist=folder / "sites" / "hospital-1" / "datalist.json",
        state_dir=folder / "state",
        site="hospital-1",
        rounds=2,
        profile="small",
        overrides={**TINY, "batch_size": 3, **PLAIN, **overrides},
        algorithm="fedprox",
        algorithm_settings={"mu": 1.0},
    )


@pytest.fixture
def trainer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Trainer]:
    monkeypatch.setenv("BRATS_FL_GPUS", "2")
    trainer = Trainer(settings_for(tmp_path))
    yield trainer
    trainer.stop()


def ranks_of(trainer: Trainer) -> list[psutil.Process]:
    assert trainer.process is not None
    return [child for child in psutil.Process(trainer.process.pid).children() if "rank_process" in str(child.cmdline())]


def wait_for_end(processes: list[psutil.Process]) -> None:
    assert not psutil.wait_procs(processes, timeout=30)[1]


def test_two_processes_give_what_one_gives_with_the_same_batch_and_end_with_their_trainer(trainer: Trainer):
    # Three patches: two for the first process, one for the second. Three cases to validate: so, too. The loss's Dice
    # couples the patches of a batch, the proximal term must count once, and gradients are clipped after they are added.
    task = Task("train", {"weights": tiny_model()}, 1)
    alone = TaskLoop(trainer.settings).carry_out(task)

    together = trainer.run(task)

    assert isinstance(alone, TaskResult)
    assert isinstance(together, TaskResult), together
    assert together.metrics == pytest.approx(alone.metrics, abs=1e-6)
    assert together.statistics["loss"] == pytest.approx(alone.statistics["loss"], abs=1e-5)
    assert together.statistics["steps"] == alone.statistics["steps"] == 2
    for name, change in alone.update.items():
        np.testing.assert_allclose(together.update[name], change, atol=1e-6, err_msg=name)
    assert max(np.abs(change).max() for change in alone.update.values()) > 1e-3

    ranks = ranks_of(trainer)
    trainer.stop()
    assert len(ranks) == 1
    wait_for_end(ranks)


@pytest.mark.slow
def test_rank_that_dies_ends_the_task_as_a_dead_trainer_and_leaves_no_process(trainer: Trainer, tmp_path: Path):
    trainer.settings = settings_for(tmp_path / "endless", steps_per_epoch=100_000)
    outcome: list[BaseException] = []

    def run() -> None:
        with pytest.raises(TrainerError) as caught:
            trainer.run(Task("train", {"weights": tiny_model()}))
        outcome.append(caught.value)

    thread = threading.Thread(target=run)
    thread.start()
    deadline = time.monotonic() + 60
    while trainer.process is None or not ranks_of(trainer):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    rank, first = ranks_of(trainer)[0], psutil.Process(trainer.process.pid)
    rank.kill()
    thread.join(timeout=60)

    assert "exit code 3" in str(outcome[0])
    wait_for_end([first, rank])


@pytest.mark.parametrize("said", ["0", "-1", "two", ""])
def test_number_of_gpus_that_is_none_is_refused(said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("BRATS_FL_GPUS", said)

    failure = make_loop(settings_for(tmp_path)).carry_out(Task("train", {"weights": {}}))

    assert isinstance(failure, TaskFailure)
    assert failure.code == "KIT_ERROR"
    assert failure.text == f"BRATS_FL_GPUS must be a whole number from 1, the GPUs to train with (got {said!r})"


def test_private_training_draws_its_noise_in_one_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("BRATS_FL_GPUS", "2")
    settings = settings_for(tmp_path)

    assert make_loop(settings).ranks == 2
    assert make_loop(replace(settings, algorithm="dp", algorithm_settings={})).ranks == 1


@pytest.mark.slow
def test_more_ranks_than_patches_is_told_with_both_and_the_mend_each_time(
    trainer: Trainer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "meetings").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "meetings"))
    trainer.settings = settings_for(tmp_path / "one", batch_size=1)

    for _ in range(2):  # the second time with other processes
        failure = trainer.run(Task("train", {"weights": tiny_model()}))

        assert isinstance(failure, TaskFailure)
        assert failure.code == "JOB_ERROR"
        assert failure.text.startswith("batch_size must be at least the number of the site's GPUs (got 1 for 2)")
        assert not list((tmp_path / "meetings").glob("brats-fl-ranks-*"))
