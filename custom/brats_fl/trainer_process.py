"""The process behind ``trainer.Trainer``: takes tasks from a pipe and carries them out with ``training.py``."""

from __future__ import annotations

import contextlib
import os
import queue
import sys
import threading
import traceback
from multiprocessing.connection import Connection
from pathlib import Path

import torch

from brats_fl.algorithms import load_algorithm
from brats_fl.errors import BratsFLError, KitError, StepError, cause_of
from brats_fl.failures import DISK_FULL, is_disk_full, is_out_of_memory
from brats_fl.garbage import spare_what_is_loaded
from brats_fl.handing_over import hand_over, take_over
from brats_fl.ranks import Team
from brats_fl.tasks import LocalSettings, Task, TaskFailure, TaskResult, TrainingAborted
from brats_fl.trainer import ABORT
from brats_fl.training import LocalTraining, local_model, train_round, validate

STEPS = {"train": train_round, "validate": validate, "local_model": local_model}
"""Name of a task -> what is done."""

GPUS_VARIABLE = "BRATS_FL_GPUS"
"""Environment of a site: how many GPUs its trainer uses, a process each; 1 where it is not set."""

OOM_SCORE = "500"
"""Linux ends the process with the highest score first when memory runs out: this one, not the job's."""


class TaskLoop:
    """Carries out one task after the other; what a task leaves behind in memory serves the next, until one fails.

    Args:
        settings: What to train on, and where.
        ranks: Processes that train as one, this one counted; see ``ranks``.
    """

    def __init__(self, settings: LocalSettings, ranks: int = 1) -> None:
        self.settings = settings
        self.ranks = ranks
        self.training: LocalTraining | None = None

    def carry_out(self, task: Task) -> TaskResult | TaskFailure | str:
        """What came of the task; never raises, so that no failure of a task ends the process."""
        try:
            training = self._ready()
            return STEPS[task.name](training, task)
        except TrainingAborted:
            return ABORT
        except Exception as error:
            self.training = training = None  # the last references to the network
            return describe_failure(error)
        finally:
            LocalTraining.free_memory()

    def _ready(self) -> LocalTraining:
        if self.training is None:
            training = LocalTraining(self.settings, self.ranks)
            training.initialize()
            self.training = training
        return self.training

    def abort(self) -> None:
        """Stop the task that is running, if any, at its next forward pass."""
        if self.training is not None:
            self.training.abort()


class TeamLoop(TaskLoop):
    """As ``TaskLoop``, of a trainer that has other ranks: each task is theirs, too, and a failure ends them."""

    def __init__(self, settings: LocalSettings, ranks: int) -> None:
        super().__init__(settings, ranks)
        self.team = Team(ranks)

    def carry_out(self, task: Task) -> TaskResult | TaskFailure | str:
        """What came of the task, as one process would have it."""
        try:
            self.team.give(self.settings, task)
        except Exception as error:
            result: TaskResult | TaskFailure | str = describe_failure(error)
        else:
            result = super().carry_out(task)
        if not isinstance(result, TaskResult):
            self.training = None  # its sampler is of a team that is no more
            self.team.stop()
        return result


class RefusingLoop(TaskLoop):
    """Of a site whose own settings are wrong: each task fails with the reason, which the site's log then has.

    Args:
        settings: As of ``TaskLoop``.
        why: What is wrong.
    """

    def __init__(self, settings: LocalSettings, why: KitError) -> None:
        super().__init__(settings)
        self.why = why

    def carry_out(self, task: Task) -> TaskResult | TaskFailure | str:
        """The reason."""
        return describe_failure(self.why)


def make_loop(settings: LocalSettings) -> TaskLoop:
    """What carries out the tasks: this process, or as many as the site has said in ``BRATS_FL_GPUS``."""
    try:
        ranks = gpus_of_site()
    except KitError as error:
        return RefusingLoop(settings, error)
    return TaskLoop(settings) if ranks == 1 or is_private(settings) else TeamLoop(settings, ranks)


def gpus_of_site() -> int:
    """GPUs that the site lets its trainer use.

    Raises:
        KitError: It says no number, or more than there are.
    """
    said = os.environ.get(GPUS_VARIABLE, "1")
    if not said.isdecimal() or int(said) < 1:
        raise KitError(f"{GPUS_VARIABLE} must be a whole number from 1, the GPUs to train with (got {said!r})")
    if (seen := torch.cuda.device_count()) and int(said) > seen:
        raise KitError(f"{GPUS_VARIABLE} is {said}, and {seen} GPUs can be seen here; set it to {seen} at most")
    return int(said)


def is_private(settings: LocalSettings) -> bool:
    """Whether noise is drawn for each step: once, by one process. What is wrong with the algorithm, its task says."""
    with contextlib.suppress(BratsFLError):
        return load_algorithm(settings.algorithm, settings.algorithm_settings, settings.code).is_private
    return False


def describe_failure(error: BaseException) -> TaskFailure:
    """What may go out, and what the site's own log should say."""
    if is_out_of_memory(error):
        return TaskFailure("OUT_OF_MEMORY", f"memory ran out; lower batch_size or patch_size ({error})")
    if is_disk_full(error):
        return TaskFailure(DISK_FULL, f"the disk is full; free some space ({error})")
    known = cause_of(error)
    if known is not None and not isinstance(known, StepError):
        return TaskFailure(known.code, str(known))
    trace = "".join(traceback.format_exception(error))
    return TaskFailure("EXECUTION_EXCEPTION", trace if known is None else f"{known}\n{trace}")


def main() -> None:
    """Serve the pipe whose file descriptor is the only argument, until the other end closes it."""
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(OOM_SCORE)
    spare_what_is_loaded()
    connection = Connection(int(sys.argv[1]))
    loop = make_loop(take_over(connection))
    tasks: queue.Queue[Task] = queue.Queue()

    def listen() -> None:
        while True:
            try:
                message = take_over(connection)
            except (EOFError, OSError):
                os._exit(0)  # the job process is gone or has let go: there is nobody to work for
            if message == ABORT:
                loop.abort()
            else:
                tasks.put(message)

    threading.Thread(target=listen, daemon=True, name="listen").start()
    while True:
        hand_over(connection, loop.carry_out(tasks.get()))


if __name__ == "__main__":
    main()
