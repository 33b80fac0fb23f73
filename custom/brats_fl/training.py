"""Local training of one site: MONAI's federated client on a bundle, made strict, abortable and repeatable.

This is the learning step: ``train_round`` evaluates the global model, trains the bundle's own trainer for the local
epochs and returns the difference. It knows nothing of FLARE: ``components/executor.py`` is the thin adapter, and runs
this in a process of its own (``trainer.py``).
"""

from __future__ import annotations

import gc
import hashlib
import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from ignite.engine import Events
from monai.bundle import ConfigWorkflow
from monai.fl.client import MonaiAlgo
from monai.fl.utils.constants import WeightType
from monai.fl.utils.exchange_object import ExchangeObject

from brats_fl.aggregation import check_update
from brats_fl.algorithms import LOCAL, LocalRun, check_chosen, load_algorithm
from brats_fl.bundle import config_files
from brats_fl.cases.datalists import read_datalist
from brats_fl.errors import NoLocalModelError, NotSharedError
from brats_fl.exchange import WEIGHTS, Payloads, Weights, load_shared, shared_keys, shared_weights
from brats_fl.gate import check_headers, mark_accepted, read_acceptances, refuse_errors
from brats_fl.network.checkpoints import read_state_for, save_whole
from brats_fl.privacy.noise import secret_seed
from brats_fl.privacy.private_training import LEAVES, make_private, reserve_round
from brats_fl.ranks import dealt_out, share_training
from brats_fl.site_state import LOCAL_MODEL_FILE, read_own, write_own
from brats_fl.tasks import LocalSettings, Task, TaskResult, TrainingAborted

logger = logging.getLogger(__name__)

EVALUATED, CASES_OF = "validate#dataset#data", "$datalists.load_split(@data_list_file_path, '{}')"
"""Where a bundle's training configuration says which cases it evaluates on, and how."""


class LocalTraining(MonaiAlgo):
    """MONAI's federated client for one bundle at one site.

    Differences from ``MonaiAlgo``: keys and shapes must match exactly; the update is checked to be finite; trainer and
    evaluator share one network; every round starts with fresh optimiser moments and seeds that depend only on
    (seed, site, round), so nothing in memory outlives a round, but in a private job, whose chance nobody may know;
    ``abort`` stops training and evaluation within one forward pass.

    Args:
        settings: What to train on, and where.
        ranks: Processes that train as one, this one counted; see ``ranks``.
    """

    def __init__(self, settings: LocalSettings, ranks: int = 1) -> None:
        super().__init__(bundle_root=str(settings.bundle), local_epochs=settings.local_epochs)
        self.settings = settings
        self.ranks = ranks
        self.cases = 0
        self.aborted = False
        self.losses: list[float] = []
        self.train_seconds = 0.0
        self.steps = 0
        self.learning_rate_sum = 0.0
        self.algorithm = load_algorithm(settings.algorithm, settings.algorithm_settings, settings.code)

    def initialize(self, extra: dict[str, Any] | None = None) -> None:
        """Build trainer and, where the site has validation cases, evaluator from the bundle.

        Raises:
            DataListError: The data list cannot be used, the data gate finds an error in it, or it has no training case.
        """
        settings = self.settings
        datalist = read_datalist(settings.datalist)
        refuse_errors(mark_accepted(check_headers(datalist), read_acceptances(settings.datalist)))
        self.client_name = settings.site
        self.cases = len(datalist.training)
        self.train_workflow = ConfigWorkflow(
            workflow_type="train",
            config_file=config_files(settings.bundle, settings.profile, ["federated"]),
            meta_file=None,
            logging_file=False,
            bundle_root=str(settings.bundle),
            data_list_file_path=str(settings.datalist),
            rounds=settings.rounds,
            local_epochs=settings.local_epochs,
            seed=settings.seed,
            **settings.overrides,
            **({} if settings.split == "validation" else {EVALUATED: CASES_OF.format(settings.split)}),
            **dealt_out(len(datalist.split(settings.split)), self.ranks),
        )
        self.train_workflow.initialize()
        self.trainer = self.train_workflow.trainer
        self.trainer.add_event_handler(Events.ITERATION_COMPLETED, self._note_step)
        # Trainer and evaluator come from one parsed configuration and so share the network.
        self.evaluator = self.train_workflow.evaluator if datalist.split(settings.split) else None
        if self.algorithm.is_private:
            check_chosen(self.algorithm, "the job")
            make_private(self.trainer, self.algorithm.settings, datalist)
            self.evaluator = None  # metrics would leave without noise
        self.trainer.network.register_forward_pre_hook(self._stop_if_aborted)
        if self.ranks > 1:
            share_training(self.trainer)

    def _note_step(self, engine: Any) -> None:
        self.losses.append(float(engine.state.output[0]["loss"]))  # the batch's, repeated for each of its patches
        self.learning_rate_sum += float(self.trainer.optimizer.param_groups[0]["lr"])

    def _stop_if_aborted(self, *_: Any) -> None:
        if self.aborted:
            raise TrainingAborted

    def train(self, data: ExchangeObject, extra: dict[str, Any] | None = None) -> None:
        """Train the local epochs of one round, from the global weights in ``data``.

        Args:
            data: ``weights``: parameter name -> array, exactly the network's shared ones.
            extra: ``{"round": index of the round, from 0}``, and as ``received`` and ``own`` what the algorithm sent
                beside the weights and what the site remembers; see ``brats_fl.algorithms``.

        Raises:
            ModelError: Keys or shapes differ from the network's.
            TrainingAborted: ``abort`` was called.
        """
        extra = dict(extra or {})
        round_index = int(extra["round"])
        begin = time.perf_counter()
        self.aborted = False
        self.losses, self.learning_rate_sum = [], 0.0
        self.start = self._load(data.weights, extra.get("own", {}))
        self._seed(round_index)
        trainer = self.trainer
        trainer.optimizer.state.clear()
        trainer.state.epoch = round_index * self.settings.local_epochs
        trainer.state.epoch_length = len(trainer.data_loader)
        trainer.state.iteration = trainer.state.epoch * trainer.state.epoch_length
        trainer.state.max_epochs = trainer.state.epoch + self.settings.local_epochs
        trainer._internal_run_generator = None  # what an aborted round left behind
        with self._local_term(extra.get("received", {}), extra.get("own", {})):
            trainer.run()
        self.steps = len(self.losses)
        self.train_seconds = time.perf_counter() - begin

    def _seed(self, round_index: int) -> None:
        key = f"{self.settings.seed}/{self.settings.site}/{round_index}"
        digest = hashlib.sha256(key.encode()).digest()
        seed = secret_seed() if self.algorithm.is_private else int.from_bytes(digest[:4], "big")
        torch.manual_seed(seed)
        # The loader's background thread draws from the transforms' own generators only.
        self.trainer.data_loader.dataset.transform.set_random_state(seed)

    @contextmanager
    def _local_term(self, received: Payloads, own: Payloads) -> Iterator[None]:
        """While training: the algorithm's term is added to each gradient as it is computed, before it is clipped."""
        if not self.algorithm.has_local_term:
            yield
            return
        hooks = [
            parameter.register_hook(self._term_of(name, parameter, received, own))
            for name, parameter in self.trainer.network.named_parameters()
            if name in self.start
        ]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def _term_of(
        self, name: str, parameter: torch.Tensor, received: Payloads, own: Payloads
    ) -> Callable[[torch.Tensor], torch.Tensor]:
        def entries(payloads: Payloads) -> dict[str, torch.Tensor]:
            return {key: torch.tensor(part[name], device=parameter.device) for key, part in payloads.items()}

        start = torch.tensor(self.start[name], device=parameter.device)
        sent, kept = entries(received), entries(own)
        # The gradients of all ranks are added up, and the term is to be in their sum once.
        return lambda gradient: gradient + self.algorithm.local_term(parameter.detach(), start, sent, kept) / self.ranks

    def _load(self, weights: Weights, own: Payloads) -> Weights:
        """Put the global model into the network, with the site's own values of what stays at the site."""
        start = {name: np.asarray(value) for name, value in weights.items()}
        check_update(start, shared_weights(self.trainer.network))
        start |= {name: value for name, value in own.get(LOCAL, {}).items() if self.algorithm.is_local(name)}
        load_shared(self.trainer.network, start)
        return start

    def get_weights(self, extra: dict[str, Any] | None = None) -> ExchangeObject:
        """Update of the round just trained: local minus global weights, on the CPU, with its statistics.

        It is zero for what stays at the site.

        Raises:
            ModelError: A value is not finite: the training diverged.
        """
        local = shared_weights(self.trainer.network)
        update = {name: local[name] - value for name, value in self.start.items()}
        check_update(update, self.start)
        update |= {name: np.zeros_like(value) for name, value in update.items() if self.algorithm.is_local(name)}
        state = {name: value.cpu() for name, value in self.trainer.network.state_dict().items()}
        save_whole(self.settings.state_dir / LOCAL_MODEL_FILE, {"model": state})
        statistics = {
            "cases": self.cases,
            "steps": self.steps,
            "loss": float(np.mean(self.losses)) if self.losses else None,
            "train_seconds": round(self.train_seconds, 3),
        }
        return ExchangeObject(weights=update, weight_type=WeightType.WEIGHT_DIFF, statistics=statistics)

    def local_run(self) -> LocalRun:
        """What was done in the round just trained, for the algorithm."""
        trained = shared_weights(self.trainer.network)
        return LocalRun(self.start, trained, self.steps, self.learning_rate_sum)

    def evaluate(self, data: ExchangeObject, extra: dict[str, Any] | None = None) -> ExchangeObject:
        """Metrics of the weights in ``data`` on the site's validation cases; empty where it has none.

        Args:
            data: As for ``train``.
            extra: ``own``, as for ``train``.

        Raises:
            ModelError: Keys or shapes differ from the network's.
            TrainingAborted: ``abort`` was called.
        """
        self.aborted = False
        self._load(data.weights, dict(extra or {}).get("own", {}))
        if self.evaluator is None:
            return ExchangeObject(metrics={})
        self.evaluator._internal_run_generator = None
        self.evaluator.run()
        return ExchangeObject(metrics={name: float(value) for name, value in self.evaluator.state.metrics.items()})

    def abort(self, extra: dict[str, Any] | None = None) -> None:
        """Stop training or evaluation at the next forward pass, a sliding window's included."""
        self.aborted = True

    def finalize(self, extra: dict[str, Any] | None = None) -> None:
        """Let go of network, optimiser and loaders."""
        self.aborted = True
        self.trainer = self.evaluator = self.train_workflow = None
        self.free_memory()

    @staticmethod
    def free_memory() -> None:
        """Give unused memory back, the GPU's included, so that a site can work between two tasks."""
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def train_round(training: LocalTraining, task: Task) -> TaskResult:
    """A site's part of a round: metrics of the global model, then the update of its local epochs."""
    begin, cpu_begin = time.perf_counter(), time.process_time()
    model = ExchangeObject(weights=dict(task.weights))
    received = {name: arrays for name, arrays in task.payloads.items() if name != WEIGHTS}
    own = read_own(training.settings.state_dir, task.round_index)
    for arrays in (*received.values(), *own.values()):
        check_update(arrays, task.weights)
    metrics = training.evaluate(model, {"own": own}).metrics
    evaluate_seconds = time.perf_counter() - begin
    algorithm, steps = training.algorithm, len(training.trainer.data_loader)
    spent = reserve_round(training.settings, algorithm, steps, task.round_index) if algorithm.is_private else {}
    training.train(model, {"round": task.round_index, "received": received, "own": own})
    update = training.get_weights()
    run = training.local_run()
    remembered, sent = algorithm.client_update(run, received, own)
    if any(map(algorithm.is_local, run.trained)):
        remembered = {**remembered, LOCAL: run.trained}
    if remembered:
        write_own(training.settings.state_dir, task.round_index, remembered)
    statistics = {
        **update.statistics,
        "evaluate_seconds": round(evaluate_seconds, 3),
        "seconds": round(time.perf_counter() - begin, 3),
        "cpu_seconds": round(time.process_time() - cpu_begin, 3),  # of all threads of this process
    }
    if algorithm.is_private:
        statistics = {**{name: statistics[name] for name in LEAVES}, **spent}
    return TaskResult(metrics, statistics, {WEIGHTS: update.weights, **sent})


def validate(training: LocalTraining, task: Task) -> TaskResult:
    """Metrics of a model on the site's validation cases."""
    begin = time.perf_counter()
    own = read_own(training.settings.state_dir, sys.maxsize)  # after its last round, whichever that was
    metrics = training.evaluate(ExchangeObject(weights=dict(task.weights)), {"own": own}).metrics
    return TaskResult(metrics, {"cases": training.cases, "evaluate_seconds": round(time.perf_counter() - begin, 3)})


def local_model(training: LocalTraining, task: Task) -> TaskResult:
    """The model that the site trained last in the study, as the other hospitals may have it.

    Raises:
        NoLocalModelError: There is none.
        NotSharedError: The algorithm keeps some of its parameters at the site: without them it is nobody's model.
        ModelError: The file is damaged, or of another network.
    """
    path, network = training.settings.state_dir / LOCAL_MODEL_FILE, training.trainer.network
    if any(map(training.algorithm.is_local, shared_keys(network))):
        raise NotSharedError(f"{training.settings.algorithm} keeps parameters at the site, and so the model stays")
    if not path.is_file():
        raise NoLocalModelError(f"{path}: no such file; the site took no part in the study, or has deleted its state")
    state = read_state_for(path, network)
    return TaskResult({}, {}, {WEIGHTS: {name: state[name].numpy(force=True) for name in shared_keys(network)}})
