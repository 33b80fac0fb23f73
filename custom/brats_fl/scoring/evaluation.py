"""The per-case table of an evaluation: its figures per case and region, in the scan's own geometry."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from ignite.engine import Engine, Events
from monai.handlers import MLFlowHandler

from brats_fl.cases.datalists import load_split
from brats_fl.constants import KEY_METRIC
from brats_fl.errors import DataListError
from brats_fl.files import CASE_TABLE_FILE, write_whole
from brats_fl.scoring.calibration import Reliability
from brats_fl.scoring.case_table import CaseScores, Certainty, score_case, summarise, write_case_table
from brats_fl.scoring.postprocessing import BRAIN, PROBABILITY

SUMMARY_FILE = "summary.json"

logger = logging.getLogger(__name__)


def load_labelled(path: str | Path, split: str) -> list[dict[str, Any]]:
    """Cases of one split, as ``datalists.load_split``, each with a label.

    Raises:
        DataListError: As ``load_split``, or a case has no label.
    """
    items = load_split(path, split)
    for item in items:
        if "label" not in item:
            raise DataListError(
                f"{path}: {split} holds {item['case']} without a label; metrics need one: take it off the list and "
                "segment it with the bundle's inference"
            )
    return items


def score_output(case: str, site: str, split: str, output: Mapping[str, Any]) -> CaseScores:
    """Figures of a case from what an evaluator's post-processing left of it, see ``CaseTable``."""
    pred = output["pred"]
    spacing = torch.as_tensor(pred.affine)[:3, :3].double().pow(2).sum(dim=0).sqrt().tolist()
    place = {"case": case, "site": site, "split": split}
    return score_case(place, torch.as_tensor(pred), torch.as_tensor(output["label"]), spacing, certainty_of(output))


class CaseTable:
    """Evaluator handler: a row per case and region in ``evaluation.csv``; mean, median and worst in ``summary.json``.

    Reads ``pred`` and ``label``, binary regions (3, H, W, D) in the scan's own geometry, from each decollated output,
    and for calibration, where they are there, ``probability`` (3, H, W, D) and ``brain`` (1, H, W, D).
    The files appear when the last case is done, whole or not at all. The means over the cases also go to
    ``engine.state.metrics``, where MONAI's other handlers look for them.
    """

    def __init__(self, output_dir: str, site: str, split: str) -> None:
        self.output_dir = Path(output_dir)
        self.site = site
        self.split = split
        self.rows: list[dict[str, Any]] = []
        self.reliability: dict[str, Reliability] = {}
        self.started = 0.0
        self.case_started = 0.0

    def attach(self, engine: Engine) -> None:
        """Called by the evaluator."""
        engine.add_event_handler(Events.STARTED, self.start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.add)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self.measure)
        engine.add_event_handler(Events.COMPLETED, self.write)

    def start(self, engine: Engine) -> None:
        """Begin an empty table."""
        self.rows, self.reliability = [], {}
        self.started = self.case_started = time.perf_counter()

    def add(self, engine: Engine) -> None:
        """Rows of the cases that were just segmented."""
        for item, output in zip(engine.state.batch, engine.state.output, strict=True):
            scores = score_output(str(item["case"]), self.site, self.split, output)
            self.rows += (rows := scores.rows)
            for region, bins in scores.reliability.items():
                self.reliability[region] = self.reliability[region] + bins if region in self.reliability else bins
            now = time.perf_counter()
            dice = " ".join(f"dice_{row['region']}={row['dice']:.3f}" for row in rows)
            logger.info("site=%s case=%s %s seconds=%.1f", self.site, item["case"], dice, now - self.case_started)
            self.case_started = now

    def measure(self, engine: Engine) -> None:
        """Show the means of all cases as the engine's metrics."""
        engine.state.metrics.update(mean_metrics(self.rows))

    def write(self, engine: Engine) -> None:
        """Write table and summary."""
        self.output_dir.mkdir(parents=True, exist_ok=True)
        write_case_table(self.output_dir / CASE_TABLE_FILE, self.rows)
        summary = {
            "site": self.site,
            "split": self.split,
            "cases": len({row["case"] for row in self.rows}),
            "seconds": round(time.perf_counter() - self.started, 2),
            "regions": summarise(self.rows),
            "reliability": {region: bins.as_table() for region, bins in self.reliability.items()},
        }
        write_whole(self.output_dir / SUMMARY_FILE, json.dumps(summary, indent=1) + "\n")


def mean_metrics(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Means over cases, by training's names: ``val_dice_tc``, ``val_hd95_mm_tc``, ..., ``val_mean_dice``."""
    regions = summarise(rows)
    metrics = {
        f"val_{metric}_{region}": of[metric]["mean"] for region, of in regions.items() for metric in ("dice", "hd95_mm")
    }
    return metrics | {KEY_METRIC: fmean(of["dice"]["mean"] for of in regions.values())}


def certainty_of(output: Mapping[str, Any]) -> Certainty | None:
    """What the network said of a case; None where the bundle's post-processing does not keep it."""
    if PROBABILITY not in output or BRAIN not in output:
        return None
    brain = torch.as_tensor(output[BRAIN])[0].cpu().numpy() > 0
    return Certainty(torch.as_tensor(output[PROBABILITY]).cpu().numpy(), brain)


def end_tracking(handlers: Iterable[Any]) -> None:
    """Close the runs of MONAI's MLflow handlers.

    MONAI closes the run of a training, and leaves that of its validator open: the next evaluation would write into it.
    """
    for handler in handlers:
        if isinstance(handler, MLFlowHandler):
            handler.close()
