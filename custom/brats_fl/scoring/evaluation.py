"""The per-case table of an evaluation: Dice, HD95 and volumes per case and region, in the scan's own geometry."""

from __future__ import annotations

import csv
import io
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
from brats_fl.files import CASE_TABLE_COLUMNS, CASE_TABLE_FILE, write_whole
from brats_fl.scoring.metrics import case_rows, summarise

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


def score_output(case: str, site: str, split: str, output: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Rows of a case, as ``case_rows``, from a decollated output: ``pred`` with its affine and ``label``."""
    pred = output["pred"]
    spacing = torch.as_tensor(pred.affine)[:3, :3].double().pow(2).sum(dim=0).sqrt().tolist()
    return case_rows(case, site, split, torch.as_tensor(pred), torch.as_tensor(output["label"]), spacing)


class CaseTable:
    """Evaluator handler: a row per case and region in ``evaluation.csv``; mean, median and worst in ``summary.json``.

    Reads ``pred`` and ``label``, binary regions (3, H, W, D) in the scan's own geometry, from each decollated output.
    The files appear when the last case is done, whole or not at all. The means over the cases also go to
    ``engine.state.metrics``, where MONAI's other handlers look for them.
    """

    def __init__(self, output_dir: str, site: str, split: str) -> None:
        self.output_dir = Path(output_dir)
        self.site = site
        self.split = split
        self.rows: list[dict[str, Any]] = []
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
        self.rows = []
        self.started = self.case_started = time.perf_counter()

    def add(self, engine: Engine) -> None:
        """Rows of the cases that were just segmented."""
        for item, output in zip(engine.state.batch, engine.state.output, strict=True):
            rows = score_output(str(item["case"]), self.site, self.split, output)
            self.rows += rows
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
        }
        write_whole(self.output_dir / SUMMARY_FILE, json.dumps(summary, indent=1) + "\n")


def mean_metrics(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Means over cases, by training's names: ``val_dice_tc``, ``val_hd95_mm_tc``, ..., ``val_mean_dice``."""
    regions = summarise(rows)
    metrics = {
        f"val_{metric}_{region}": values["mean"] for region, of in regions.items() for metric, values in of.items()
    }
    return metrics | {KEY_METRIC: fmean(of["dice"]["mean"] for of in regions.values())}


def end_tracking(handlers: Iterable[Any]) -> None:
    """Close the runs of MONAI's MLflow handlers.

    MONAI closes the run of a training, and leaves that of its validator open: the next evaluation would write into it.
    """
    for handler in handlers:
        if isinstance(handler, MLFlowHandler):
            handler.close()


def write_case_table(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows as CSV; Dice to 5 digits, HD95 in mm to 3, volumes in ml to 3."""
    table = io.StringIO()
    writer = csv.writer(table)
    writer.writerow(CASE_TABLE_COLUMNS)
    for row in rows:
        writer.writerow(
            [
                *(row[name] for name in CASE_TABLE_COLUMNS[:4]),
                f"{row['dice']:.5f}",
                f"{row['hd95_mm']:.3f}",
                f"{row['volume_ml']:.3f}",
                f"{row['reference_volume_ml']:.3f}",
            ]
        )
    write_whole(path, table.getvalue())
