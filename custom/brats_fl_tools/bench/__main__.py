"""``make bench``: how fast training, evaluation and a round are, as ratios side by side in one run on full-size cases.

Training feeds the same network in three ways: ours (cached, patches drawn at tumour, augmented), the stock MONAI
pipeline (the transforms of the model zoo's BraTS bundle at the same spacing, no cache), and one batch that lies in
memory, which is pure compute.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import typer
from monai import transforms
from monai.data import DataLoader, Dataset

from brats_fl.cases.datalists import Case, DataList, as_monai_item, read_datalist, write_datalist
from brats_fl.constants import MODALITIES
from brats_fl.network.engine_packages import PACKAGES, TORCH, missing_packages
from brats_fl.tasks import LocalSettings
from brats_fl.training import LocalTraining
from brats_fl_tools.bench.attacks import bench_attacks
from brats_fl_tools.bench.compression import bench_compression
from brats_fl_tools.bench.evaluation import compare_networks, evaluate_ours, evaluate_stock, time_metrics
from brats_fl_tools.bench.handing_over import bench_handing_over
from brats_fl_tools.bench.masking import bench_masks
from brats_fl_tools.bench.rounds import round_overhead
from brats_fl_tools.repository import BUNDLES
from brats_fl_tools.sample import make_case, write_nifti

BUNDLE = "brats_unet"
STEPS = 8
STEPS_FULL = 2
EPOCHS_BEFORE_EVALUATION = 10
"""Of STEPS each: distances between masks take long where a network has learnt nothing and marks half the brain."""
CASES = 2
EVALUATIONS_PER_CASE = 4
"""Under other names: with two cases there is nothing to prepare while another is being evaluated."""
FILE_NAMES = {"t1c": "t1ce", "t1n": "t1", "t2w": "t2", "t2f": "flair"}


def main() -> None:
    """Print the ratios; all on one thread, as a simulated site has. ``--full`` adds the full profile: half an hour."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        datalist = write_cases(root)
        training = bench_training(datalist, root, "small", STEPS)
        for _ in range(EPOCHS_BEFORE_EVALUATION):
            seconds_per_step(training, training.trainer.data_loader)
        bench_evaluation(training.trainer.network, datalist, root)
        metrics = time_metrics(datalist)
        typer.echo(f"metrics take {metrics:.2f} s a case of full size, {metrics * 100:.0f} s for 100 on one core")
        overhead = round_overhead(datalist, root)
        typer.echo(f"a round of five sites takes {overhead:.2f} s beside the slowest site's own work")
        bench_handing_over()
        bench_attacks(root)
        bench_masks()
        bench_compression()
        if "--full" in sys.argv:
            bench_training(datalist, root, "full", STEPS_FULL)


def bench_training(datalist: Path, root: Path, profile: str, steps: int) -> LocalTraining:
    """Print seconds a training step in the three ways, and the ratios to ours."""
    training = local_training(datalist, root / profile, profile, steps)
    ours = training.trainer.data_loader
    for _ in ours:  # fills the cache: decompression is paid once, not in every epoch
        pass
    batch = next(iter(ours))
    seconds_per_step(training, [batch] * 2)  # the first steps choose kernels and allocate
    seconds = {
        "pure compute": seconds_per_step(training, [batch] * steps),
        "ours": seconds_per_step(training, ours),
    }
    if profile == "small":
        seconds["stock MONAI"] = seconds_per_step(training, stock_loader(datalist, batch["image"].shape[0]))
    for name, value in seconds.items():
        typer.echo(f"training, {profile}, {name:12s} {value:7.3f} s a step, {value / seconds['ours']:5.2f} times ours")
    return training


def bench_evaluation(network: torch.nn.Module, datalist: Path, root: Path) -> None:
    """Print seconds a case of our evaluation and of the stock one, with one network, on cases that it never saw."""
    cases = [
        replace(case, case=f"{case.case}-{number}", patient=f"{case.patient}-{number}")
        for case in read_datalist(datalist).testing
        for number in range(EVALUATIONS_PER_CASE)
    ]
    datalist = root / "evaluated.json"
    write_datalist(datalist, DataList("bench", testing=tuple(cases)))
    checkpoint = root / "model.pt"
    torch.save({"model": network.state_dict()}, checkpoint)
    ours = evaluate_ours(BUNDLES / BUNDLE, datalist, checkpoint, root / "eval")
    rows = {"ours": ours, "stock MONAI": evaluate_stock(network, datalist)}
    engines = [engine for engine in PACKAGES if engine != TORCH]
    for engine in engines:
        if missing := missing_packages(engine):
            typer.echo(f"evaluation, small, {engine}: left out, {' and '.join(missing)} not installed")
        else:
            rows[engine] = evaluate_ours(BUNDLES / BUNDLE, datalist, checkpoint, root / engine, engine)
    for name, found in rows.items():
        typer.echo(
            f"evaluation, small, {name:12s} {found.seconds_per_case:6.2f} s a case, "
            f"{found.seconds_per_case / ours.seconds_per_case:5.2f} times ours, mean Dice {found.dice:.4f}"
        )
    typer.echo(f"evaluation, small, the network takes {ours.network_share:.0%} of the processor's time of ours")
    for engine in filter(rows.__contains__, engines):
        share, ratio = compare_networks(ours, rows[engine])
        typer.echo(
            f"evaluation, small, {engine}: the network, conversion included, takes {share:.0%} of the processor's "
            f"time; torch takes {ratio:.1f} times as long for it"
        )


def write_cases(root: Path) -> Path:
    """Full-size sample cases as a site's data list: ``CASES`` for training, as many others for testing."""
    cases = []
    for index in range(1, 2 * CASES + 1):
        sample = make_case(seed=0, hospital=1, index=index, spacing_mm=1.0)
        files = {name: root / f"{sample.case}_{FILE_NAMES[name]}.nii.gz" for name in MODALITIES}
        for name, path in files.items():
            write_nifti(path, sample.images[name], sample.affine)
        label = root / f"{sample.case}_seg.nii.gz"
        write_nifti(label, sample.seg, sample.affine)
        image = tuple(str(files[name]) for name in MODALITIES)
        cases.append(Case(case=sample.case, patient=sample.case, image=image, label=str(label)))
    datalist = root / "datalist.json"
    write_datalist(datalist, DataList("bench", training=tuple(cases[:CASES]), testing=tuple(cases[CASES:])))
    return datalist


def local_training(datalist: Path, state_dir: Path, profile: str, steps: int) -> LocalTraining:
    """The site's training as the executor makes it, one round."""
    settings = LocalSettings(
        bundle=BUNDLES / BUNDLE,
        datalist=datalist,
        state_dir=state_dir,
        site="bench",
        rounds=1,
        profile=profile,
        overrides={"steps_per_epoch": steps, "num_workers": 0, "cache_dir": str(state_dir / "cache")},
    )
    training = LocalTraining(settings)
    training.initialize()
    return training


def stock_loader(datalist: Path, batch_size: int) -> Iterator[Any]:
    """Batches of the model zoo's BraTS transforms on the same cases, spacing and patch size."""
    keys = ["image", "label"]
    steps = [
        transforms.LoadImaged(keys, ensure_channel_first=True),
        transforms.ConvertToMultiChannelBasedOnBratsClassesd("label"),
        transforms.NormalizeIntensityd("image", nonzero=True, channel_wise=True),
        transforms.Spacingd(keys, pixdim=[2.0, 2.0, 2.0], mode=["bilinear", "nearest"]),
        transforms.RandSpatialCropd(keys, roi_size=[64, 64, 64], random_size=False),
        *(transforms.RandFlipd(keys, prob=0.5, spatial_axis=axis) for axis in range(3)),
        transforms.RandScaleIntensityd("image", factors=0.1, prob=1.0),
        transforms.RandShiftIntensityd("image", offsets=0.1, prob=1.0),
        transforms.CastToTyped(keys, dtype=torch.float32),
    ]
    items = [as_monai_item(case) for case in read_datalist(datalist).training]
    dataset = Dataset(items, transforms.Compose(steps))
    made = 0
    while made < STEPS // 2:  # half the steps: each reads every case again
        for batch in DataLoader(dataset, batch_size=batch_size, shuffle=True):
            yield batch
            made += 1


def seconds_per_step(training: LocalTraining, batches: Iterable[Any]) -> float:
    """Mean wall time of a training step, the wait for its batch included."""
    network, optimizer, loss = training.trainer.network, training.trainer.optimizer, training.trainer.loss_function
    network.train()
    count, begin = 0, time.perf_counter()
    for batch in batches:
        optimizer.zero_grad()
        image, label = (torch.as_tensor(batch[key]) for key in ("image", "label"))
        loss(training.trainer.inferer(image, network), label).backward()
        optimizer.step()
        count += 1
    return (time.perf_counter() - begin) / count


if __name__ == "__main__":
    main()
