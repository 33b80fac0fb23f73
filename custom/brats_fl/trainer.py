"""The trainer: a site's training in a process of its own, which may die without taking the site's job with it.

FLARE ends the whole job when a client's job process dies, as it does when the operating system runs out of memory and
kills the largest process. That process is this one, then: the job process holds no network and no case, notices the
death, reports it, and starts a new trainer for the next round. Nothing is lost but the round, because nothing in a
trainer's memory outlives one (``training.py``).
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from multiprocessing import Pipe
from multiprocessing.connection import Connection

from brats_fl.errors import TrainerError
from brats_fl.handing_over import hand_over, take_over
from brats_fl.tasks import LocalSettings, Task, TaskFailure, TaskResult, TrainingAborted

POLL_SECONDS = 0.2
ABORT_GRACE_SECONDS = 10.0
"""How long a trainer may take to stop: a forward pass of the largest window takes seconds on a CPU."""

ABORT = "abort"


def receive(connection: Connection) -> TaskResult | TaskFailure | str | None:
    """What the trainer sent; None where it is nothing that a trainer sends.

    Raises:
        EOFError, ConnectionError: The process is gone.
    """
    try:
        reply = take_over(connection)
    except (EOFError, ConnectionError):
        raise
    except Exception:  # pickle raises whatever it runs into
        return None
    return reply if isinstance(reply, (TaskResult, TaskFailure, str)) else None


class Trainer:
    """Handle of the process that trains; it is started by ``start``, else with the first task, and after each death.

    Args:
        settings: What to train on, and where; may be set later, before the first task.
    """

    def __init__(self, settings: LocalSettings | None = None) -> None:
        self.settings = settings
        self.process: subprocess.Popen[bytes] | None = None
        self.connection: Connection | None = None
        self.is_told = False

    def run(self, task: Task, aborted: Callable[[], bool] = lambda: False) -> TaskResult | TaskFailure:
        """Carry out a task in the trainer; the result, or why there is none.

        Args:
            task: What to do.
            aborted: Asked several times a second whether the task has been called off.

        Raises:
            TrainerError: The process died.
            TrainingAborted: The task was called off; the trainer has stopped it, or has been stopped.
        """
        connection = self.start()
        deadline = None
        try:
            if not self.is_told:
                hand_over(connection, self.settings)
                self.is_told = True
            hand_over(connection, task)
            while not connection.poll(POLL_SECONDS):
                if not aborted():
                    continue
                deadline = deadline or time.monotonic() + ABORT_GRACE_SECONDS
                if time.monotonic() > deadline:
                    self.stop()
                    raise TrainingAborted
                hand_over(connection, ABORT)  # again and again: one between evaluation and training must not get lost
            reply = receive(connection)
        except (EOFError, ConnectionError):
            raise TrainerError(self._cause_of_death()) from None
        if reply == ABORT:
            raise TrainingAborted
        if isinstance(reply, (TaskResult, TaskFailure)):
            return reply
        self.stop()
        raise TrainerError("the trainer process answered with what is no result; a new one is started")

    def start(self) -> Connection:
        """Start the process where there is none: it loads its libraries, which takes seconds, and waits for a task."""
        if self.process is not None and self.process.poll() is None and self.connection is not None:
            return self.connection
        self.stop()
        self.connection, theirs = Pipe()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "brats_fl.trainer_process", str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            env={
                "MALLOC_ARENA_MAX": "2",  # threads come and go with each epoch, and each would keep an arena of its own
                **os.environ,
                # The job's own folders are on this process's path only (a job may bring its code).
                "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry),
            },
        )
        theirs.close()
        self.is_told = False
        return self.connection

    def _cause_of_death(self) -> str:
        process, self.process = self.process, None
        code = process.wait(timeout=ABORT_GRACE_SECONDS) if process else None
        self.stop()
        if code is not None and code < 0:
            name = signal.Signals(-code).name
            hint = "; memory may have run out: lower batch_size or patch_size" if name == "SIGKILL" else ""
            return f"the trainer process was ended by {name}{hint}"
        return f"the trainer process ended with exit code {code}"

    def stop(self) -> None:
        """End the process, if there is one; a new task starts a new one."""
        if self.connection is not None:
            self.connection.close()  # the trainer leaves when nobody is at the other end
            self.connection = None
        if self.process is not None:
            try:
                self.process.wait(timeout=1)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
            self.process = None
