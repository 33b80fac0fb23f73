"""Evaluation of full-size cases, ours against MONAI's stock evaluator with the same network."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from monai import transforms
from monai.bundle import ConfigWorkflow
from monai.data import DataLoader, Dataset, decollate_batch
from monai.inferers import Inferer, SlidingWindowInferer
from monai.metrics import DiceMetric, HausdorffDistanceMetric

from brats_fl.bundle import config_files
from brats_fl.cases.datalists import as_monai_item, read_datalist
from brats_fl.cases.regions import labels_to_regions, to_library_labels
from brats_fl.cases.scans import VolumeReader
from brats_fl.network.engine_packages import TORCH
from brats_fl.scoring.case_table import case_rows
from brats_fl_tools.model.engine import engine_settings

WINDOW = (64, 64, 64)
"""The training patch of profile ``small``, for both: in another window the same weights give another Dice."""


@dataclass(frozen=True)
class Evaluation:
    """What an evaluation gave and took."""

    dice: float
    """Mean over cases and regions."""
    seconds_per_case: float
    cpu_seconds_per_case: float = 0.0
    """Of all threads; 0 where it was not taken, as the next one."""
    network_share: float = 0.0
    """Of the processor's time; with torch."""


class TimedInferer:
    """An inferer, and the processor's seconds that it took in the thread that called it."""

    def __init__(self, inferer: Inferer) -> None:
        self.inferer, self.cpu_seconds = inferer, 0.0

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """What the inferer gives."""
        begin = time.thread_time()
        try:
            return self.inferer(*args, **kwargs)
        finally:
            self.cpu_seconds += time.thread_time() - begin


def evaluate_ours(bundle: Path, datalist: Path, checkpoint: Path, out: Path, engine: str = TORCH) -> Evaluation:
    """The bundle's own ``evaluate`` on the testing cases, in this process, with one thread for the network."""
    import pandas as pd

    workflow = ConfigWorkflow(
        workflow_type="infer",
        config_file=config_files(bundle, "small", ["evaluate"]),
        meta_file=None,
        logging_file=False,
        bundle_root=str(bundle),
        data_list_file_path=str(datalist),
        checkpoint=str(checkpoint),
        output_dir=str(out),
        split="testing",
        **engine_settings(engine, "validate#inferer"),
    )
    workflow.initialize()
    evaluator = workflow.parser.get_parsed_content("validate#evaluator")
    evaluator.inferer = network = TimedInferer(evaluator.inferer)
    begin, cpu_begin = time.perf_counter(), time.process_time()
    workflow.run()
    seconds, cpu_seconds = time.perf_counter() - begin, time.process_time() - cpu_begin
    table = pd.read_csv(out / "evaluation.csv")
    cases, dice = table["case"].nunique(), float(table["dice"].mean())
    # Other engines work in threads of their own, whose time a thread does not tell.
    share = network.cpu_seconds / cpu_seconds if engine == TORCH else 0.0
    return Evaluation(dice, seconds / cases, cpu_seconds / cases, share)


def compare_networks(by_torch: Evaluation, by_other: Evaluation) -> tuple[float, float]:
    """Of another engine, the network's share of the processor's time; and how many times as long torch takes for it.

    What is not the network takes with both what it takes with torch.
    """
    network = by_torch.cpu_seconds_per_case * by_torch.network_share
    other = by_other.cpu_seconds_per_case - (by_torch.cpu_seconds_per_case - network)
    return other / by_other.cpu_seconds_per_case, network / other


def evaluate_stock(network: torch.nn.Module, datalist: Path) -> Evaluation:
    """MONAI's own transforms, inferer, inversion and metrics, as in the model zoo's BraTS bundle."""
    keys = ["image", "label"]
    prepare = transforms.Compose(
        [
            transforms.LoadImaged(keys, ensure_channel_first=True),
            transforms.ConvertToMultiChannelBasedOnBratsClassesd("label"),
            transforms.NormalizeIntensityd("image", nonzero=True, channel_wise=True),
            transforms.Spacingd("image", pixdim=[2.0, 2.0, 2.0], mode="bilinear"),
            transforms.CastToTyped(keys, dtype=torch.float32),
        ]
    )
    finish = transforms.Compose(
        [
            transforms.Activationsd("pred", sigmoid=True),
            transforms.Invertd("pred", prepare, orig_keys="image", nearest_interp=False, to_tensor=True),
            transforms.AsDiscreted("pred", threshold=0.5),
        ]
    )
    items = [as_monai_item(case) for case in read_datalist(datalist).testing]
    inferer = SlidingWindowInferer(WINDOW, sw_batch_size=2, overlap=0.5, mode="gaussian", padding_mode="constant")
    dice, distance = DiceMetric(ignore_empty=False), HausdorffDistanceMetric(include_background=True, percentile=95)
    network.eval()
    begin = time.perf_counter()
    for batch in DataLoader(Dataset(items, prepare), batch_size=1):
        with torch.no_grad():
            batch["pred"] = inferer(batch["image"].as_tensor(), network)
        batch["pred"] = _like(batch["pred"], batch["image"])
        for item in decollate_batch(batch):
            done: Any = finish(item)
            dice([done["pred"]], [done["label"]])
            distance([done["pred"]], [done["label"]])
    seconds = time.perf_counter() - begin
    return Evaluation(float(dice.aggregate().mean()), seconds / len(items))


def time_metrics(datalist: Path) -> float:
    """Seconds a case that all figures of the testing cases take, their labels two voxels off as predictions."""
    seconds, cases = 0.0, read_datalist(datalist).testing
    for case in cases:
        volume = VolumeReader().read(str(case.label))
        label = labels_to_regions(torch.from_numpy(to_library_labels(volume.voxels, case.labels)))
        begin = time.perf_counter()
        case_rows(case.case, "bench", "testing", label.roll(2, dims=1), label, volume.grid.spacing_mm.tolist())
        seconds += time.perf_counter() - begin
    return seconds / len(cases)


def _like(prediction: torch.Tensor, image: Any) -> Any:
    """The prediction with the image's geometry, so that it can be inverted."""
    from monai.data import MetaTensor

    return MetaTensor(prediction, affine=image.affine, meta=image.meta, applied_operations=image.applied_operations)
