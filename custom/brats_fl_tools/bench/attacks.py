"""What is left of a round in which one hospital of five sends what it likes, by each way of aggregating.

The updates are real ones, of one round of the ``small`` UNet on synthetic cases; only the last hospital's is
replaced, or comes of labels that were mirrored.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

import nibabel as nib
import numpy as np
import typer
from monai.fl.utils.exchange_object import ExchangeObject

from brats_fl.aggregation import global_norm
from brats_fl.algorithms import Contribution, load_algorithm
from brats_fl.bundle import build_network
from brats_fl.cases.datalists import DATALIST_FILE, read_datalist
from brats_fl.constants import SITES
from brats_fl.exchange import WEIGHTS, Weights, shared_weights
from brats_fl.tasks import LocalSettings
from brats_fl.training import LocalTraining
from brats_fl_tools.repository import BUNDLES
from brats_fl_tools.sample import write_sample

AGGREGATIONS: Final = ("fedavg", "norm_bound", "coordinate_median", "trimmed_mean", "multi_krum")
BUNDLE: Final = "brats_unet"
STEPS: Final = 10
SEED: Final = 0

Attack = Callable[[Weights], Weights]


def flip(update: Weights) -> Weights:
    """The other way."""
    return {name: -value for name, value in update.items()}


def flip_tenfold(update: Weights) -> Weights:
    """The other way, ten times as far: beyond the server's limit on an update's size only in late rounds."""
    return {name: -10 * value for name, value in update.items()}


def noise(update: Weights) -> Weights:
    """Noise of ten times the update's length."""
    rng = np.random.default_rng(SEED)
    drawn = {name: rng.standard_normal(value.shape).astype(np.float32) for name, value in sorted(update.items())}
    factor = np.float32(10 * global_norm(update) / global_norm(drawn))
    return {name: value * factor for name, value in drawn.items()}


ATTACKS: Final[Mapping[str, Attack]] = {"flipped": flip, "flipped x 10": flip_tenfold, "noise x 10": noise}


def bench_attacks(root: Path) -> None:
    """Print, for each attack and aggregation, the cosine of the step with the mean of the honest four."""
    model, updates, mirrored = one_round(root)
    honest = updates[:-1]
    hostile = {name: spoil(updates[-1]) for name, spoil in ATTACKS.items()} | {"labels mirrored": mirrored}
    wanted = aggregate("fedavg", model, honest)
    typer.echo("one hostile hospital of five: cosine of the server's step with the mean of the honest four")
    typer.echo(f"{'':15s}" + "".join(f"{name:>19s}" for name in AGGREGATIONS))
    for attack, update in hostile.items():
        steps = (aggregate(name, model, [*honest, update]) for name in AGGREGATIONS)
        typer.echo(f"{attack:15s}" + "".join(f"{cosine(step, wanted):19.2f}" for step in steps))


def one_round(root: Path) -> tuple[Weights, list[Weights], Weights]:
    """The first model, the update of each of five hospitals, and the last one's with mirrored labels."""
    write_sample(root / "attacked", 4, SEED, full_size=False, progress=lambda line: None)
    network = build_network(BUNDLES / BUNDLE, "small", SEED)
    model = {name: value.copy() for name, value in shared_weights(network).items()}
    lists = [root / "attacked" / site / DATALIST_FILE for site in SITES]
    updates = [train(site, datalist, model, root) for site, datalist in zip(SITES, lists, strict=True)]
    mirror_labels(lists[-1])
    return model, updates, train(SITES[-1], lists[-1], model, root)


def train(site: str, datalist: Path, model: Weights, root: Path) -> Weights:
    """The update of a hospital's round."""
    overrides = {"steps_per_epoch": STEPS, "cache_dir": str(root / "cache")}
    training = LocalTraining(
        LocalSettings(BUNDLES / BUNDLE, datalist, root / "state", site, 100, profile="small", overrides=overrides)
    )
    training.initialize()
    training.train(ExchangeObject(weights=dict(model)), {"round": 0})
    update: Weights = training.get_weights().weights
    training.finalize()
    return update


def mirror_labels(datalist: Path) -> None:
    """Turn every label of a list's training cases left to right, in its file."""
    for case in read_datalist(datalist).training:
        assert case.label is not None
        file = nib.load(case.label)
        mirrored = np.asarray(file.dataobj)[::-1].copy()
        nib.save(nib.nifti1.Nifti1Image(mirrored, file.affine, file.header), case.label)


def aggregate(name: str, model: Weights, updates: Sequence[Weights]) -> Weights:
    """The server's step; all hospitals have as many cases."""
    parts = [Contribution(f"hospital-{i}", 1, 1.0, STEPS, {WEIGHTS: update}) for i, update in enumerate(updates)]
    step, _ = load_algorithm(name).server_update(model, {}, parts)
    return step


def cosine(first: Weights, second: Weights) -> float:
    """Of the angle between two updates."""
    product = sum(float(np.vdot(first[name].astype(np.float64), second[name])) for name in first)
    return product / (global_norm(first) * global_norm(second))
