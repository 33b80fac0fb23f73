"""Cross-site evaluation: every hospital's own model and the global ones, scored at every hospital.

FLARE's ``CrossSiteModelEval`` passes on whatever a site submits as its model, and takes from a cookie of the site's own
which model a result is of, and from it the name of a file. Here a model goes to others once it is known to be the
network's, a result belongs to the task that the server handed out, and of a site nothing names a file.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from nvflare.apis.client import Client
from nvflare.apis.controller_spec import ClientTask
from nvflare.apis.controller_spec import Task as FlareTask
from nvflare.apis.dxo import DXO, DataKind, from_shareable
from nvflare.apis.fl_constant import ReturnCode
from nvflare.apis.fl_context import FLContext
from nvflare.apis.impl.controller import Controller
from nvflare.apis.shareable import Shareable
from nvflare.apis.signal import Signal
from nvflare.app_common.app_constant import AppConstants

from brats_fl.aggregation import checked_model
from brats_fl.bundle import build_network
from brats_fl.cases.datalists import find_datalist
from brats_fl.components.bundle_location import app_root, locate_bundle
from brats_fl.components.exchange import as_dxo, payloads_of
from brats_fl.components.executor import ERROR_HEADER, BratsExecutor, TaskName
from brats_fl.components.fingerprints import run_folder
from brats_fl.components.records import ANSWER, ANSWER_TAKEN
from brats_fl.constants import KEY_METRIC, REGIONS
from brats_fl.errors import BratsFLError, JobError, ModelError, NotSharedError
from brats_fl.exchange import WEIGHTS, Weights, shared_weights
from brats_fl.files import write_whole
from brats_fl.network.checkpoints import read_state_for
from brats_fl.round_records import typed_status
from brats_fl.sharing.cross_site import (
    CROSS_SITE_FILE,
    RULES_FILE,
    Cell,
    CrossSite,
    Row,
    Scores,
    Split,
    as_json,
    check_split,
    count_scored,
    read_rules,
)
from brats_fl.sharing.site_statistics import read_protection
from brats_fl.site_state import find_state_dir, was_masked
from brats_fl.tasks import Task, TaskResult
from brats_fl.typed import typed

TASK_LOCAL_MODEL = "local_model"
TASK_SCORE = "score_model"

MISSING = "missing"
"""Status of a hospital that did not answer in time."""

T = TypeVar("T")


class CrossSiteExecutor(BratsExecutor):
    """Gives the hospital's own last model of a study to the other hospitals, and scores models on its cases.

    Both as far as the hospital's ``cross_site_rules.json`` allows it. What leaves of a model's scores is the mean Dice
    of each region and the number of cases.

    Args:
        split: Cases that models are scored on: ``validation``, or ``testing`` where the hospital allows it.
        bundle: As ``BratsExecutor``, and so are the others: what the study's own job was told.
        profile: See there.
        local_epochs: See there.
        seed: See there.
        algorithm: See there.
        algorithm_settings: See there.
        study: Hash of the study whose local model is meant.
        overrides: See there.
        required_code: See there.
    """

    tasks: ClassVar[Mapping[str, TaskName]] = {TASK_LOCAL_MODEL: "local_model", TASK_SCORE: "validate"}

    def __init__(
        self,
        split: Split,
        bundle: str,
        profile: str,
        local_epochs: int,
        seed: int,
        algorithm: str = "fedavg",
        algorithm_settings: Mapping[str, float] | None = None,
        study: str = "",
        overrides: Mapping[str, Any] | None = None,
        required_code: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(
            bundle=bundle,
            profile=profile,
            local_epochs=local_epochs,
            seed=seed,
            algorithm=algorithm,
            algorithm_settings=algorithm_settings,
            study=study,
            overrides=overrides,
            required_code=required_code,
        )
        self.split = split
        self.cases = 0

    def _task(self, task_name: str, shareable: Shareable, fl_ctx: FLContext) -> Task:
        """As the site's rules allow it, which are read anew each time."""
        site, kit = fl_ctx.get_identity_name(), Path(fl_ctx.get_engine().get_workspace().get_root_dir())
        rules = read_rules(site, kit)
        if task_name == TASK_LOCAL_MODEL:
            if not rules.send_local_model:
                raise NotSharedError(f"{RULES_FILE} keeps the local model at the site (send_local_model)")
            if was_masked(find_state_dir(site, self.study, kit)):
                raise NotSharedError("the study had secure aggregation: the local model would show the site's update")
            return Task("local_model", {})
        if self._is_private(fl_ctx):
            raise NotSharedError("the study was private: how its models do on the cases would leave without noise")
        check_split(self.split)
        self.cases = count_scored(find_datalist(site, kit), self.split, rules, read_protection())
        return super()._task(task_name, shareable, fl_ctx)

    def _reply(self, task: Task, result: TaskResult, fl_ctx: FLContext) -> Shareable:
        if task.name == "local_model":
            return as_dxo(result.payloads, DataKind.WEIGHTS).to_shareable()
        scores = {"cases": self.cases, "dice": {region: result.metrics[f"val_dice_{region}"] for region in REGIONS}}
        return DXO(DataKind.COLLECTION, data=scores).to_shareable()


class CrossSiteEvaluation(Controller):
    """Asks each hospital for its own model, sends each model to all, and writes ``cross_site.json``.

    Models go out one after the other: a hospital holds one of others' at a time, and keeps none.

    Args:
        bundle: Name of the bundle that comes with the job.
        profile: ``full`` or an overlay of the bundle.
        models: Name of a global model -> its checkpoint in the job's server app.
        split: Cases that models are scored on.
        min_clients: Answers after which those that are late are waited for ``wait_time_after_min_received`` seconds.
        wait_time_after_min_received: In seconds.
        validation_timeout: Seconds that a model may take at all hospitals together.
        task_check_period: Seconds between two looks whether all have answered.
        required_code: What must be installed where the job brings no code; see ``brats_fl.provenance``.
    """

    def __init__(
        self,
        bundle: str,
        profile: str,
        models: Mapping[str, str],
        split: Split,
        min_clients: int,
        wait_time_after_min_received: int,
        validation_timeout: int,
        task_check_period: float = 0.5,
        required_code: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(task_check_period=task_check_period)
        self.bundle = bundle
        self.profile = profile
        self.models = dict(models)
        self.split = split
        self.min_clients = min_clients
        self.wait_time_after_min_received = wait_time_after_min_received
        self.validation_timeout = validation_timeout
        self.required_code = required_code
        self.like: Weights = {}
        self.global_models: dict[str, Weights] = {}

    def start_controller(self, fl_ctx: FLContext) -> None:
        """Read the global models; what is wrong with one ends the job before any hospital is asked."""
        try:
            check_split(self.split)
            if not self.models:
                raise JobError("the job brings no model; build it with --of RUN, the run folder of a training")
            network = build_network(locate_bundle(self.bundle, self.required_code, fl_ctx), self.profile, seed=0)
            self.like = shared_weights(network)
            for name, file in self.models.items():
                if Path(file).name != file:
                    raise JobError(f"models: {name} must be a file of the job (got {file!r})")
                state = read_state_for(app_root(fl_ctx) / file, network)
                self.global_models[name] = {key: state[key].numpy(force=True) for key in self.like}
        except BratsFLError as error:
            self.system_panic(str(error), fl_ctx)

    def control_flow(self, abort_signal: Signal, fl_ctx: FLContext) -> None:
        """Collect the models, have each scored everywhere, write the matrix."""
        statuses, given = self._ask(TASK_LOCAL_MODEL, Shareable(), self._model_of, "BAD_MODEL", fl_ctx, abort_signal)
        rows = [Row("global", name, "ok") for name in self.global_models]
        rows += [Row("local", site, statuses[site]) for site in sorted(statuses)]
        filled = []
        for index, row in enumerate(rows):
            if abort_signal.triggered:
                return
            weights = self.global_models[row.model] if row.kind == "global" else given.get(row.model)
            fl_ctx.set_prop(AppConstants.CURRENT_ROUND, index, private=True, sticky=True)
            filled.append(row if weights is None else self._score(row, weights, fl_ctx, abort_signal))
        if not abort_signal.triggered:
            content = as_json(CrossSite(self.split, tuple(filled)))
            write_whole(run_folder(fl_ctx) / CROSS_SITE_FILE, json.dumps(content, indent=1) + "\n")

    def _score(self, row: Row, weights: Weights, fl_ctx: FLContext, abort_signal: Signal) -> Row:
        data = as_dxo({WEIGHTS: weights}, DataKind.WEIGHTS).to_shareable()
        statuses, scores = self._ask(TASK_SCORE, data, scores_of, "BAD_RESULT", fl_ctx, abort_signal)
        cells = {site: Cell(status, scores.get(site)) for site, status in sorted(statuses.items())}
        return Row(row.kind, row.model, row.status, cells)

    def _ask(
        self,
        task_name: str,
        data: Shareable,
        read: Callable[[Shareable], T],
        refused: str,
        fl_ctx: FLContext,
        abort_signal: Signal,
    ) -> tuple[dict[str, str], dict[str, T]]:
        """Each hospital's status, and of those that are ok what ``read`` made of the answer; else ``refused``."""
        statuses: dict[str, str] = {}
        answers: dict[str, T] = {}

        def take(client_task: ClientTask, fl_ctx: FLContext) -> None:
            site, result = client_task.client.name, client_task.result
            client_task.result = None
            statuses[site], answer = self._judge(site, result, read, refused, fl_ctx)
            if answer is not None:
                answers[site] = answer
            self._tell(task_name, site, statuses[site], answer, fl_ctx)

        task = FlareTask(task_name, data, timeout=self.validation_timeout, result_received_cb=take)
        self.broadcast_and_wait(
            task=task,
            fl_ctx=fl_ctx,
            min_responses=self.min_clients,
            wait_time_after_min_received=self.wait_time_after_min_received,
            abort_signal=abort_signal,
        )
        asked = {client.name for client in self._engine.get_clients()}
        return dict.fromkeys(asked, MISSING) | statuses, answers

    def _judge(
        self, site: str, result: Shareable, read: Callable[[Shareable], T], refused: str, fl_ctx: FLContext
    ) -> tuple[str, T | None]:
        try:
            if (code := result.get_return_code()) not in (None, ReturnCode.OK):
                return typed_status(result.get_header(ERROR_HEADER, code)), None
            return "ok", read(result)
        except Exception as error:  # FLARE's and ours: what a site sends may be anything
            self.log_error(fl_ctx, f"what {site} sent is refused as {refused} ({type(error).__name__})")
            return refused, None

    def _tell(self, task_name: str, site: str, status: str, answer: object, fl_ctx: FLContext) -> None:
        """Have an answer that came through written into the round records; failures are there already."""
        facts = {"cases": answer.cases, "metrics": {KEY_METRIC: answer.mean}} if isinstance(answer, Scores) else {}
        line = {"phase": task_name, "site": site, "status": status, "facts": facts}
        if answer is not None or status in ("BAD_MODEL", "BAD_RESULT"):
            self.fire_event_with_data(ANSWER_TAKEN, fl_ctx, ANSWER, line)

    def _model_of(self, result: Shareable) -> Weights:
        """A hospital's own model, float32; ``ModelError`` unless it is exactly one of the network."""
        payloads = payloads_of(from_shareable(result), DataKind.WEIGHTS)
        if set(payloads) != {WEIGHTS}:
            raise ModelError("it must be a model and nothing else")
        return checked_model(payloads[WEIGHTS], self.like)

    def stop_controller(self, fl_ctx: FLContext) -> None:
        """Nothing is left to stop."""

    def process_result_of_unknown_task(
        self, client: Client, task_name: str, client_task_id: str, result: Shareable, fl_ctx: FLContext
    ) -> None:
        """An answer that came too late is dropped: the matrix says that it was missing."""


def scores_of(result: Shareable) -> Scores:
    """What a hospital sent of a model's scores; raises where it is none."""
    return typed(Scores, from_shareable(result).data)
