"""The bundles' inference: looks at what is there, segments case after case, and tells at the end what failed."""

from __future__ import annotations

import gc
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import torch
from monai.engines import SupervisedEvaluator

from brats_fl.cases.cache import flatten
from brats_fl.cases.folders import FAULT
from brats_fl.cases.loading import CaseDataset
from brats_fl.errors import FolderError, RunError, StepError
from brats_fl.failures import is_disk_full, step_and_reason
from brats_fl.network.engine_packages import TORCH
from brats_fl.network.engines import CaseEvaluator
from brats_fl.network.ensembles import Ensemble
from brats_fl.scoring.mask_records import (
    Maker,
    State,
    foreign_file,
    hash_scans,
    hash_settings,
    hash_weights,
    is_ours,
    read_record,
    state_of,
)
from brats_fl.scoring.masks import JUDGEMENT, SCANS_SHA256, SaveMaskd
from brats_fl.scoring.uncertainty import SaveUncertaintyd

DONE, STEP = "done", "step"
"""Keys of an item: the case has its mask already; in which step it failed, ``FAULT`` says why."""

SHOWN_FILES = 20

Status = Literal["written", "done", "failed"]
"""Segmented now; segmented before, in the same way; not segmented."""

IN_THE_WAY = {
    "foreign": "was not written by brats-fl, or was changed since; it is never replaced",
    "other": "was made by another model, of other scans or with other settings",
}

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Outcome:
    """What became of a case."""

    case: str
    status: Status
    seconds: float
    step: str = ""
    reason: str = ""
    """Why it failed, with the file where one is to blame, and the mend where one is known."""
    judgement: str = ""
    """What the judge of ``CasesToSegment`` said of its scans."""

    def __str__(self) -> str:
        """One line of a list of failures."""
        return f"{self.case}: {self.step}: {self.reason}"


class CasesToSegment(CaseDataset):
    """Cases of which a bad one does not lose the others: it becomes an item that says what failed.

    ``judge`` may be set: it is called with each case before it is prepared, raises where it must not be segmented, and
    returns what is to be remembered of it.
    """

    judge: Callable[[Mapping[str, Any]], str] | None = None
    done: Mapping[str, str] = MappingProxyType({})
    """Case that has its mask already -> what was said of its scans."""

    def _transform(self, index: int) -> Any:
        item = self.data[index]
        if FAULT in item:
            return {STEP: "finding the files", **item}
        step = "data gate"
        try:
            # A mask may have been made before by whoever judged nothing, such as the bundle's own command.
            judgement = self.done.get(item["case"]) or (self.judge(item) if self.judge is not None else "")
            if item["case"] in self.done:
                return {"case": item["case"], DONE: "before", JUDGEMENT: judgement}
            step = "reading"
            return {**super()._transform(index), SCANS_SHA256: hash_scans(item["image"]), JUDGEMENT: judgement}
        except Exception as error:
            step, reason = step_and_reason(error, step)
            return {"case": item["case"], STEP: step, FAULT: reason}


class SegmentingEvaluator(CaseEvaluator):
    """Evaluator that segments every case of ``CasesToSegment`` and raises at the end where some failed.

    Before it begins it looks at what is where the masks are to be: the mask that would be made is left as done, so that
    a run goes on where it was stopped, and any other file ends it before anything is written.

    ``outcomes`` holds what became of the cases so far. With ``replace`` masks that were made here of something else are
    made anew.

    Raises:
        FolderError: Files are in the way.
        RunError: Cases failed; the others have their masks. The text lists them with step, file and reason.
        StepError: The disk is full: no case after it would get its mask.
    """

    replace = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.data_loader.batch_size != 1:
            raise ValueError(f"batch_size must be 1, so that a case fails alone (got {self.data_loader.batch_size})")
        self.steps = flatten(kwargs["postprocessing"])
        self.masks = next(step for step in self.steps if isinstance(step, SaveMaskd))
        self.maps = next((step for step in self.steps if isinstance(step, SaveUncertaintyd)), None)
        self.outcomes: list[Outcome] = []
        self._begun = 0.0

    def run(self, global_epoch: int = 1) -> None:
        """Segment the cases."""
        self.masks.maker = self._maker()
        self._leave_done()
        self.outcomes = []
        self._begun = time.perf_counter()
        super().run(global_epoch)
        if failed := [outcome for outcome in self.outcomes if outcome.status == "failed"]:
            listing = "\n".join(str(outcome) for outcome in failed)
            raise RunError(f"{len(failed)} of {len(self.outcomes)} cases were not segmented\n{listing}")

    def _maker(self) -> Maker:
        dataset = self.data_loader.dataset
        steps = [*flatten(dataset.transform), *(step for step in self.steps if step not in (self.masks, self.maps))]
        members = tuple(map(hash_weights, self.network.members)) if isinstance(self.network, Ensemble) else ()
        settings, engine = hash_settings(steps, self.inferer), getattr(self.inferer, "engine", TORCH)
        return Maker(hash_weights(self.network), settings, members, engine)

    def _leave_done(self) -> None:
        """Tell the dataset which cases have their masks; raise ``FolderError`` where other files are in the way."""
        dataset = self.data_loader.dataset
        states = {item["case"]: self._state(item) for item in dataset.data if FAULT not in item}
        refused = [*IN_THE_WAY] if not self.replace else ["foreign"]
        masks = {self.masks.path_of(case): of for case, of in states.items() if of in refused}
        if self.maps:
            masks |= {path: "foreign" for case in states if foreign_file(path := self.maps.path_of(case))}
        in_the_way = {foreign_file(mask) or mask: IN_THE_WAY[of] for mask, of in masks.items()}
        if in_the_way:
            raise FolderError(describe_files(in_the_way))
        done = [case for case, state in states.items() if state == "done"]
        dataset.done = {case: getattr(read_record(self.masks.path_of(case)), "judgement", "") for case in done}

    def _state(self, item: Mapping[str, Any]) -> State:
        try:
            if self.maps and not self.maps.path_of(item["case"]).exists() and is_ours(self.masks.path_of(item["case"])):
                return "absent"  # the mask may be there: its map is not
            return state_of(self.masks.path_of(item["case"]), self.masks.maker, item["image"])
        except OSError:
            return "absent"  # a scan that cannot be read fails where it is read, and the mask of it stays

    def _predict(self, batch: dict[str, Any]) -> None:
        if DONE not in batch and FAULT not in batch:
            super()._predict(batch)

    def _iteration(self, engine: SupervisedEvaluator, batchdata: dict[str, Any]) -> dict[str, Any]:
        case = str(batchdata["case"][0])
        if DONE in batchdata:
            self._note(case, "done", judgement=batchdata[JUDGEMENT][0])
        elif FAULT in batchdata:
            self._note(case, "failed", batchdata[STEP][0], batchdata[FAULT][0])
        else:
            return self._segment(engine, batchdata, case)
        return {}

    def _segment(self, engine: SupervisedEvaluator, batchdata: dict[str, Any], case: str) -> dict[str, Any]:
        judgement = str(batchdata[JUDGEMENT][0])  # before MONAI takes the batch apart
        try:
            output = super()._iteration(engine, batchdata)
        except Exception as error:
            if is_disk_full(error):
                raise StepError(case, *step_and_reason(error, self._doing)) from error
            self._note(case, "failed", *step_and_reason(error, self._doing))
        else:
            self._note(case, "written", judgement=judgement)
            return output
        engine.state.output = None  # what is left of the case takes no memory from the next
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        return {}

    def _note(self, case: str, status: Status, step: str = "", reason: str = "", judgement: str = "") -> None:
        now = time.perf_counter()
        outcome = Outcome(case, status, now - self._begun, step, reason.removeprefix(f"{case}: "), judgement)
        self._begun = now
        self.outcomes.append(outcome)
        if status == "failed":
            logger.error("%s", outcome)
        elif status == "done":
            logger.info("case=%s mask=%s was there already", case, self.masks.path_of(case))


def describe_files(in_the_way: Mapping[Path, str]) -> str:
    """The files that are where masks are to be, and what to do about them."""
    shown = [f"{path} {why}" for path, why in list(in_the_way.items())[:SHOWN_FILES]]
    if len(in_the_way) > SHOWN_FILES:
        shown.append(f"and {len(in_the_way) - SHOWN_FILES} more")
    listing = "\n".join(shown)
    return f"files are where masks are to be, nothing was written; choose another folder or move them away\n{listing}"
