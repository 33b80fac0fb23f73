"""The client's executor: FLARE tasks in, local training and evaluation out, every failure a clean FLARE error."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from monai.fl.utils.exchange_object import ExchangeObject
from nvflare.apis.dxo import DXO, DataKind, MetaKey, from_shareable
from nvflare.apis.event_type import EventType
from nvflare.apis.executor import Executor
from nvflare.apis.fl_constant import ReturnCode
from nvflare.apis.fl_context import FLContext
from nvflare.apis.shareable import Shareable, make_reply
from nvflare.apis.signal import Signal
from nvflare.app_common.app_constant import AppConstants

from brats_fl.components.bundle_location import locate_bundle
from brats_fl.constants import KEY_METRIC
from brats_fl.datalists import find_datalist
from brats_fl.errors import cause_of, chain_of
from brats_fl.training import LocalSettings, LocalTraining, TrainingAborted

ERROR_HEADER = "brats_fl_error"
"""Header of a failed task: a code, and nothing of the case, the path or the traceback."""

STATISTICS = "brats_fl_statistics"
"""Entry of an update's meta: cases, steps, loss and seconds of the round."""

ABORT_POLL_SECONDS = 0.2


class BratsExecutor(Executor):
    """Runs a bundle at a site: task ``train`` evaluates the global model, trains and returns the update.

    Args:
        bundle: Name of the bundle that comes with the job.
        profile: ``full`` or an overlay of the bundle.
        local_epochs: Epochs a round.
        seed: Seed of the study; each site and round derives its own.
        overrides: Variables of the bundle to set.
    """

    def __init__(
        self,
        bundle: str,
        profile: str,
        local_epochs: int,
        seed: int,
        overrides: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.bundle = bundle
        self.profile = profile
        self.local_epochs = local_epochs
        self.seed = seed
        self.overrides = dict(overrides or {})
        self.training: LocalTraining | None = None

    def handle_event(self, event_type: str, fl_ctx: FLContext) -> None:
        """Let go of everything at the end of the job."""
        if event_type == EventType.END_RUN and self.training is not None:
            self.training.finalize()
            self.training = None

    def execute(self, task_name: str, shareable: Shareable, fl_ctx: FLContext, abort_signal: Signal) -> Shareable:
        """Carry out a task; never raises, so that no failure of a site ends its job process."""
        tasks = {AppConstants.TASK_TRAIN: self._train, AppConstants.TASK_VALIDATION: self._validate}
        if task_name not in tasks:
            return make_reply(ReturnCode.TASK_UNKNOWN)
        training = None
        try:
            training = self._prepare(shareable, fl_ctx)
            with abort_watch(training, abort_signal):
                return tasks[task_name](training, shareable, fl_ctx)
        except TrainingAborted:
            self.log_info(fl_ctx, f"{task_name} was called off")
            return make_reply(ReturnCode.TASK_ABORTED)
        except Exception as error:
            self.training = None
            return failure(self._log_failure(task_name, error, fl_ctx))
        finally:
            training = None  # after a failure the last reference to the network
            LocalTraining.free_memory()

    def _log_failure(self, task_name: str, error: Exception, fl_ctx: FLContext) -> str:
        """Say in the site's own log what went wrong; returns the code that may go out.

        No log event is fired: with a streaming component in the job it would carry the text to the server.
        """
        if is_out_of_memory(error):
            text = f"{task_name} ran out of memory; lower batch_size or patch_size ({error})"
            self.log_error(fl_ctx, text, fire_event=False)
            return "OUT_OF_MEMORY"
        if known := cause_of(error):
            self.log_error(fl_ctx, f"{task_name} failed: {known}", fire_event=False)
            return known.code
        self.log_exception(fl_ctx, f"{task_name} failed")
        return "EXECUTION_EXCEPTION"

    def _prepare(self, shareable: Shareable, fl_ctx: FLContext) -> LocalTraining:
        if self.training is None:
            workspace = fl_ctx.get_engine().get_workspace()
            site = fl_ctx.get_identity_name()
            training = LocalTraining(
                LocalSettings(
                    bundle=locate_bundle(self.bundle, fl_ctx),
                    datalist=find_datalist(site, kit=Path(workspace.get_root_dir())),
                    state_dir=Path(workspace.get_run_dir(fl_ctx.get_job_id())),
                    site=site,
                    rounds=int(shareable.get_header(AppConstants.NUM_ROUNDS, 1)),
                    local_epochs=self.local_epochs,
                    profile=self.profile,
                    seed=self.seed,
                    overrides=self.overrides,
                )
            )
            training.initialize()
            self.training = training
        return self.training

    def _train(self, training: LocalTraining, shareable: Shareable, fl_ctx: FLContext) -> Shareable:
        begin = time.perf_counter()
        round_index = int(shareable.get_header(AppConstants.CURRENT_ROUND))
        model = ExchangeObject(weights=from_shareable(shareable).data)
        metrics = training.evaluate(model).metrics
        evaluate_seconds = time.perf_counter() - begin
        training.train(model, {"round": round_index})
        update = training.get_weights()
        statistics = {
            **update.statistics,
            "evaluate_seconds": round(evaluate_seconds, 3),
            "seconds": round(time.perf_counter() - begin, 3),
        }
        self.log_info(
            fl_ctx,
            f"round={round_index} site={training.settings.site} cases={training.cases} loss={statistics['loss']:.3f} "
            f"{KEY_METRIC}={metrics.get(KEY_METRIC, float('nan')):.3f} seconds={statistics['seconds']:.0f}",
        )
        meta = {MetaKey.NUM_STEPS_CURRENT_ROUND: training.cases, STATISTICS: statistics}
        if metrics:
            meta[MetaKey.INITIAL_METRICS] = metrics
        return DXO(DataKind.WEIGHT_DIFF, data=dict(update.weights), meta=meta).to_shareable()

    def _validate(self, training: LocalTraining, shareable: Shareable, fl_ctx: FLContext) -> Shareable:
        begin = time.perf_counter()
        metrics = training.evaluate(ExchangeObject(weights=from_shareable(shareable).data)).metrics
        statistics = {"cases": training.cases, "evaluate_seconds": round(time.perf_counter() - begin, 3)}
        return DXO(DataKind.METRICS, data=metrics, meta={STATISTICS: statistics}).to_shareable()


def failure(code: str) -> Shareable:
    """A reply that says what kind of thing went wrong, and nothing else."""
    reply = make_reply(ReturnCode.EXECUTION_EXCEPTION)
    reply.set_header(ERROR_HEADER, code)
    return reply


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out, of the GPU or the host; torch's CPU allocator says it with a plain RuntimeError."""
    return any(
        isinstance(link, (MemoryError, torch.OutOfMemoryError)) or "you tried to allocate" in str(link)
        for link in chain_of(error)
    )


@contextmanager
def abort_watch(training: LocalTraining, abort_signal: Signal) -> Any:
    """While the block runs, pass FLARE's abort signal on to the training."""
    finished = threading.Event()

    def watch() -> None:
        while not finished.wait(ABORT_POLL_SECONDS):
            if abort_signal.triggered:
                training.abort()  # again and again: an abort between evaluation and training must not get lost

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        finished.set()
        watcher.join()
