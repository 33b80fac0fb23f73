"""MONAI's trainer and evaluator, which name the cases, their files and the step where something fails."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, Final

import torch
from monai.engines import SupervisedEvaluator, SupervisedTrainer
from monai.engines.utils import IterationEvents
from monai.networks.utils import eval_mode
from monai.utils.enums import CommonKeys as Keys

from brats_fl.errors import TrainingAborted
from brats_fl.failures import during, is_out_of_memory, reraise

BatchStep = Callable[[dict[str, Any]], None]

AHEAD: Final = "ahead"
"""Key of a batch: the evaluator's output for it, or the error of the network."""


class CaseTrainer(SupervisedTrainer):
    """``SupervisedTrainer`` whose failures name the cases of the batch.

    Raises:
        StepError: A step of training failed for a reason that is not ours.
    """

    def _iteration(self, engine: SupervisedTrainer, batchdata: dict[str, Any]) -> dict[str, Any]:
        with during("training on a patch", batch_items(engine, batchdata)):
            return super()._iteration(engine, batchdata)


class CaseEvaluator(SupervisedEvaluator):
    """``SupervisedEvaluator`` that segments a case while the one before it is finished: inverted, scored, written.

    The network runs in a thread of its own and is never more than one case ahead, so that memory holds one more
    prepared case and its logits. What follows the network, handlers included, happens in the order of the cases, as in
    MONAI's. A failure names the case, and whether the network or what comes after it failed. A case for which memory
    ran out is segmented again when the one before it has gone.

    Mixed precision and compilation are the inferer's and the network's affair.

    Raises:
        StepError: A step failed for a reason that is not ours.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.amp or self.compile:
            raise ValueError("amp and compile must not be set: the inferer says how the network is called")
        self.is_over = threading.Event()
        self.data_loader: Any = AheadLoader(self.data_loader, self._predict, self._predict_alone, self.is_over)

    def run(self, global_epoch: int = 1) -> None:
        """Evaluate all cases; the network stays in evaluation mode from the first to the last."""
        with eval_mode(self.network):
            super().run(global_epoch)

    @contextmanager
    def _stoppable(self) -> Iterator[None]:
        """Meanwhile the network stops at its next window when nobody waits for it any more."""

        def stop_if_over(*_: Any) -> None:
            if self.is_over.is_set():
                raise TrainingAborted

        networks = getattr(self.network, "members", [self.network])
        hooks = [network.register_forward_pre_hook(stop_if_over) for network in networks]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def _predict(self, batch: dict[str, Any]) -> None:
        """Put what the network makes of a batch, or why it makes nothing, into it as ``AHEAD``."""
        try:
            image, label = self.prepare_batch(batch, self.state.device, self.non_blocking, **self.to_kwargs)
            with torch.no_grad(), self._stoppable():
                pred = self.inferer(image, self.network)
            batch[AHEAD] = {Keys.IMAGE: image, Keys.LABEL: label, Keys.PRED: pred}
        except Exception as error:
            batch[AHEAD] = error

    def _predict_alone(self, batch: dict[str, Any]) -> None:
        """Try again where memory ran out while there was another case in it."""
        if isinstance(error := batch.get(AHEAD), Exception) and is_out_of_memory(error):
            del batch[AHEAD], error  # and with it what its frames hold; ignite has let go of the case before
            self._predict(batch)

    def _iteration(self, engine: SupervisedEvaluator, batchdata: dict[str, Any]) -> dict[str, Any]:
        items = batch_items(engine, batchdata)  # before MONAI takes the batch apart
        self._doing = "segmenting"
        try:
            if isinstance(ahead := batchdata.pop(AHEAD), Exception):
                raise ahead
            self._doing = "post-processing"
            engine.state.output = ahead
            engine.fire_event(IterationEvents.FORWARD_COMPLETED)
            engine.fire_event(IterationEvents.MODEL_COMPLETED)
        except Exception as error:
            reraise(error, self._doing, items)
        output: dict[str, Any] = engine.state.output  # of MONAI's handlers by now: a list of cases
        return output


class AheadLoader:
    """A loader's batches after something was done to them; while one is used, that is done to the next in a thread.

    Args:
        loader: Gives the batches.
        prepare: What is done to a batch, in place.
        settle: Called with each batch before it is handed out, while nothing else is under way.
        is_over: Set while nobody asks for batches: ``prepare`` may then give up.
    """

    def __init__(self, loader: Any, prepare: BatchStep, settle: BatchStep, is_over: threading.Event) -> None:
        self.loader, self.prepare, self.settle, self.is_over = loader, prepare, settle, is_over
        self.dataset, self.batch_size = loader.dataset, loader.batch_size

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Batches in order; waits for the thread when the caller stops asking."""
        source = iter(self.loader)

        def draw() -> dict[str, Any] | None:
            if (batch := next(source, None)) is not None:
                self.prepare(batch)
            return batch

        self.is_over.clear()
        with ThreadPoolExecutor(1, "ahead") as thread:
            try:
                drawn = thread.submit(draw)
                while (batch := drawn.result()) is not None:
                    self.settle(batch)
                    drawn = thread.submit(draw)
                    yield batch
                    del batch
            finally:
                self.is_over.set()


def batch_items(engine: Any, batch: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    """The cases of a batch as their dataset lists them, with their files; by name alone where it does not."""
    listed = {item["case"]: item for item in getattr(engine.data_loader.dataset, "data", ()) if "case" in item}
    names = batch.get("case", ())
    return [listed.get(name, {"case": name}) for name in ([names] if isinstance(names, str) else names)]
