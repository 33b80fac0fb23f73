"""The client's executor: FLARE tasks in, updates and metrics out, every failure a clean FLARE error."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

from nvflare.apis.dxo import DXO, DataKind, MetaKey, from_shareable
from nvflare.apis.event_type import EventType
from nvflare.apis.executor import Executor
from nvflare.apis.fl_constant import FLContextKey, ReturnCode
from nvflare.apis.fl_context import FLContext
from nvflare.apis.shareable import Shareable, make_reply
from nvflare.apis.signal import Signal
from nvflare.app_common.app_constant import AppConstants

from brats_fl.algorithms import load_algorithm
from brats_fl.cases.datalists import find_datalist
from brats_fl.components.bundle_location import app_root, locate_bundle
from brats_fl.components.contract_in_force import refuse_unfiltered
from brats_fl.components.door import close_door
from brats_fl.components.exchange import BASE, HELD, MODEL, as_dxo, payloads_of
from brats_fl.components.receipts import add_receipt
from brats_fl.compression import check_compression, compress
from brats_fl.constants import KEY_METRIC
from brats_fl.errors import BratsFLError
from brats_fl.exchange import WEIGHTS, Payloads
from brats_fl.model_change import HeldModel
from brats_fl.privacy.budget import find_budget, refuse_unaccounted
from brats_fl.settings import Setting, bundle_settings, check_settings
from brats_fl.site_state import find_state_dir
from brats_fl.tasks import LocalSettings, Task, TaskFailure, TaskResult, TrainingAborted
from brats_fl.trainer import Trainer

ERROR_HEADER = "brats_fl_error"
"""Header of a failed task: a code, and nothing of the case, the path or the traceback."""

STATISTICS = "brats_fl_statistics"
"""Entry of an update's meta: cases, steps, loss and seconds of the round."""

OF_EXECUTOR = {"local_epochs": Setting(1, minimum=1, maximum=1000), "seed": Setting(0, minimum=0, maximum=2**32 - 1)}
"""Arguments of the executor that reach the bundle's configuration."""

TaskName = Literal["train", "validate", "local_model"]

TASKS: Mapping[str, TaskName] = {
    AppConstants.TASK_TRAIN: "train",
    AppConstants.TASK_VALIDATION: "validate",
}


class BratsExecutor(Executor):
    """Runs a bundle at a site: task ``train`` evaluates the global model, trains and returns the update.

    The work is ``train_round`` and ``validate`` of ``brats_fl.training``, done in a process that may die.

    Args:
        bundle: Name of the bundle that comes with the job.
        profile: ``full`` or an overlay of the bundle.
        local_epochs: Epochs a round.
        seed: Seed of the study; each site and round derives its own.
        algorithm: Name of the federated algorithm, see ``brats_fl.algorithms``.
        algorithm_settings: Its numbers; those that are not given have its defaults.
        study: Hash of what makes runs comparable; the site's own state lies under it, so that a resumed job finds it.
        overrides: Variables of the bundle to set.
        start_round: Number of the job's first round; above 0 in a job that goes on where another ended.
        required_code: What must be installed where the job brings no code; see ``brats_fl.provenance``.
        compression: ``none``, ``float16`` or ``int8``: how an update leaves, and how a change of the model comes.
    """

    tasks: ClassVar[Mapping[str, TaskName]] = TASKS
    """FLARE's name of a task -> the trainer's."""

    messages: ClassVar[frozenset[str]] = frozenset()
    """Tasks that ``_answer`` carries out, without the trainer."""

    split: Literal["validation", "testing"] = "validation"
    """Cases that models are evaluated on."""

    def __init__(
        self,
        bundle: str,
        profile: str,
        local_epochs: int,
        seed: int,
        algorithm: str = "fedavg",
        algorithm_settings: Mapping[str, float] | None = None,
        study: str = "",
        overrides: Mapping[str, Any] | None = None,
        start_round: int = 0,
        required_code: Mapping[str, str] | None = None,
        compression: str = "none",
    ) -> None:
        super().__init__()
        self.bundle = bundle
        self.profile = profile
        self.local_epochs = local_epochs
        self.seed = seed
        self.algorithm = algorithm
        self.algorithm_settings = dict(algorithm_settings or {})
        self.study = study
        self.overrides = dict(overrides or {})
        self.start_round = start_round
        self.required_code = required_code
        self.compression = check_compression(compression)
        self.held: HeldModel | None = None
        self.trainer: Trainer | None = None
        self.last_task: Task | None = None

    def handle_event(self, event_type: str, fl_ctx: FLContext) -> None:
        """Start the trainer with the job, so that it is ready when the first task comes, and end it with the job."""
        if event_type == EventType.START_RUN:
            close_door(fl_ctx)
            self.trainer = Trainer()
            with contextlib.suppress(OSError):  # the first task tries again, and says what is wrong
                self.trainer.start()
        elif event_type == EventType.AFTER_TASK_RESULT_FILTER:
            self._sign(fl_ctx)
        elif event_type == EventType.END_RUN and self.trainer is not None:
            self.trainer.stop()
            self.trainer = None

    def _sign(self, fl_ctx: FLContext) -> None:
        """Put the site's receipt on an update; one that cannot be made costs the signature and not the round."""
        result, task = fl_ctx.get_prop(FLContextKey.TASK_RESULT), self.last_task
        self.last_task = None  # it holds a model
        if task is None or task.name != "train" or result.get_return_code() != ReturnCode.OK:
            return
        try:
            add_receipt(result, task.payloads, task.round_index, fl_ctx)
        except (BratsFLError, OSError) as error:
            self.log_error(fl_ctx, f"the update goes without a receipt: {error}", fire_event=False)

    def execute(self, task_name: str, shareable: Shareable, fl_ctx: FLContext, abort_signal: Signal) -> Shareable:
        """Carry out a task in the trainer; never raises, so that no failure of a site ends its job process."""
        if task_name not in self.tasks and task_name not in self.messages:
            return make_reply(ReturnCode.TASK_UNKNOWN)
        self.last_task = None
        try:
            refuse_unfiltered(fl_ctx)
            self._refuse_unaccounted(fl_ctx)
            if task_name in self.messages:
                return self._answer(task_name, shareable, fl_ctx)
            task = self.last_task = self._task(task_name, shareable, fl_ctx)
            result = self._trainer(shareable, fl_ctx).run(task, lambda: bool(abort_signal.triggered))
            if not isinstance(result, TaskFailure):
                return self._reply(task, result, fl_ctx)
        except TrainingAborted:
            self.log_info(fl_ctx, f"{task_name} was called off")
            return make_reply(ReturnCode.TASK_ABORTED)
        except BratsFLError as error:
            result = TaskFailure(error.code, str(error))
        except Exception as error:
            result = TaskFailure("EXECUTION_EXCEPTION", repr(error))
        # No log event is fired: with a streaming component in the job it would carry the text to the server.
        self.log_error(fl_ctx, f"{task_name} failed: {result.text}", fire_event=False)
        return failure(result.code)

    def _refuse_unaccounted(self, fl_ctx: FLContext) -> None:
        """Hold a job without noise to the hospital's privacy budget."""
        if not self._is_private(fl_ctx):
            refuse_unaccounted(self._budget(fl_ctx), f"what {self.algorithm} sends")

    def _is_private(self, fl_ctx: FLContext) -> bool:
        return load_algorithm(self.algorithm, self.algorithm_settings, app_root(fl_ctx) / "custom").is_private

    def _budget(self, fl_ctx: FLContext) -> Path:
        return find_budget(fl_ctx.get_identity_name(), Path(fl_ctx.get_engine().get_workspace().get_root_dir()))

    def _answer(self, task_name: str, shareable: Shareable, fl_ctx: FLContext) -> Shareable:
        """The reply to one of ``messages``."""
        raise NotImplementedError(task_name)

    def _task(self, task_name: str, shareable: Shareable, fl_ctx: FLContext) -> Task:
        """What the trainer is to do."""
        round_index = int(shareable.get_header(AppConstants.CURRENT_ROUND, 0))
        dxo = from_shareable(shareable)
        payloads = payloads_of(dxo, DataKind.WEIGHTS) if self.compression == "none" else self._received(dxo, fl_ctx)
        return Task(self.tasks[task_name], payloads, round_index)

    def _received(self, dxo: DXO, fl_ctx: FLContext) -> Payloads:
        """What the server sent, with the whole model; the site says from now on that it has this one.

        Raises:
            ModelError: As ``HeldModel.changed``; the site then has none, and is sent the next one whole.
        """
        held, self.held = self.held, None
        fl_ctx.set_prop(HELD, "", private=False, sticky=True)
        if held is None or BASE not in dxo.meta:
            payloads = payloads_of(dxo, DataKind.WEIGHTS)
            self.held = HeldModel(payloads[WEIGHTS])
        else:
            payloads = payloads_of(dxo, DataKind.WEIGHT_DIFF)
            base, model = dxo.get_meta_prop(BASE), dxo.get_meta_prop(MODEL)
            self.held = held.changed(base, model, payloads[WEIGHTS], self.compression)
        fl_ctx.set_prop(HELD, self.held.digest, private=False, sticky=True)
        return {**payloads, WEIGHTS: self.held.weights}

    def _reply(self, task: Task, result: TaskResult, fl_ctx: FLContext) -> Shareable:
        """What the server gets of it."""
        return self._update(task, result, fl_ctx) if task.name == "train" else metrics_of(result)

    def _trainer(self, shareable: Shareable, fl_ctx: FLContext) -> Trainer:
        if self.trainer is None:
            self.trainer = Trainer()
        if self.trainer.settings is None:
            workspace = fl_ctx.get_engine().get_workspace()
            site = fl_ctx.get_identity_name()
            bundle = locate_bundle(self.bundle, self.required_code, fl_ctx)
            # Whoever builds a job by hand may write what he likes into it, and MONAI's parser runs what begins with $.
            check_settings("the job", OF_EXECUTOR, {"local_epochs": self.local_epochs, "seed": self.seed})
            check_settings("the job", bundle_settings(bundle, self.profile), self.overrides)
            self.trainer.settings = LocalSettings(
                bundle=bundle,
                datalist=find_datalist(site, kit=Path(workspace.get_root_dir())),
                state_dir=find_state_dir(site, self.study, kit=Path(workspace.get_root_dir())),
                site=site,
                rounds=self.start_round + int(shareable.get_header(AppConstants.NUM_ROUNDS, 1)),
                local_epochs=self.local_epochs,
                profile=self.profile,
                seed=self.seed,
                overrides=self.overrides,
                algorithm=self.algorithm,
                algorithm_settings=self.algorithm_settings,
                code=app_root(fl_ctx) / "custom",
                split=self.split,
                budget=self._budget(fl_ctx),
            )
        return self.trainer

    def _update(self, task: Task, result: TaskResult, fl_ctx: FLContext) -> Shareable:
        statistics = result.statistics
        if "epsilon" in statistics:
            told = f"epsilon={statistics['epsilon']:.3f} delta={statistics['delta']:g}"
        else:
            told = (
                f"loss={statistics['loss']:.3f} {KEY_METRIC}={result.metrics.get(KEY_METRIC, float('nan')):.3f} "
                f"seconds={statistics['seconds']:.0f}"
            )
        label = f"round={task.round_index} site={fl_ctx.get_identity_name()} cases={statistics['cases']}"
        self.log_info(fl_ctx, f"{label} {told}")
        meta = {MetaKey.NUM_STEPS_CURRENT_ROUND: statistics["cases"], STATISTICS: dict(statistics)}
        if result.metrics:
            meta[MetaKey.INITIAL_METRICS] = dict(result.metrics)
        dxo = self._sent(task, result)
        dxo.meta.update(meta)
        return dxo.to_shareable()

    def _sent(self, task: Task, result: TaskResult) -> DXO:
        """What leaves the site of a training, but for what is said of it.

        Raises:
            ModelError: The update is not finite.
        """
        sent = {**result.payloads, WEIGHTS: compress(result.update, self.compression)}
        return as_dxo(sent, DataKind.WEIGHT_DIFF)


def metrics_of(result: TaskResult) -> Shareable:
    """Reply to an evaluation."""
    return DXO(DataKind.METRICS, data=dict(result.metrics), meta={STATISTICS: dict(result.statistics)}).to_shareable()


def failure(code: str, return_code: str = ReturnCode.EXECUTION_EXCEPTION) -> Shareable:
    """A reply that says what kind of thing went wrong, and nothing else."""
    reply = make_reply(return_code)
    reply.set_header(ERROR_HEADER, code)
    return reply
