"""MONAI's trainer and evaluator, which name the cases, their files and the step where something fails."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from monai.engines import SupervisedEvaluator, SupervisedTrainer
from monai.engines.utils import IterationEvents

from brats_fl.failures import during, reraise


class CaseTrainer(SupervisedTrainer):
    """``SupervisedTrainer`` whose failures name the cases of the batch.

    Raises:
        StepError: A step of training failed for a reason that is not ours.
    """

    def _iteration(self, engine: SupervisedTrainer, batchdata: dict[str, Any]) -> dict[str, Any]:
        with during("training on a patch", batch_items(engine, batchdata)):
            return super()._iteration(engine, batchdata)


class CaseEvaluator(SupervisedEvaluator):
    """``SupervisedEvaluator`` whose failures name the case, and whether the network or what comes after it failed.

    Raises:
        StepError: A step failed for a reason that is not ours.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._doing = ""
        self.add_event_handler(IterationEvents.FORWARD_COMPLETED, self._note_forward)

    def _note_forward(self) -> None:
        self._doing = "post-processing"

    def _iteration(self, engine: SupervisedEvaluator, batchdata: dict[str, Any]) -> dict[str, Any]:
        items = batch_items(engine, batchdata)  # before MONAI takes the batch apart
        self._doing = "segmenting"
        try:
            return super()._iteration(engine, batchdata)
        except Exception as error:
            reraise(error, self._doing, items)


def batch_items(engine: Any, batch: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    """The cases of a batch as their dataset lists them, with their files; by name alone where it does not."""
    listed = {item["case"]: item for item in getattr(engine.data_loader.dataset, "data", ()) if "case" in item}
    names = batch.get("case", ())
    return [listed.get(name, {"case": name}) for name in ([names] if isinstance(names, str) else names)]
