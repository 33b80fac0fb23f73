"""Run folders as the report reads them, made by hand: figures that a reader can redo, a ball for a tumour."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from brats_fl.cases.datalists import DATALIST_FILE, Case, DataList, write_datalist
from brats_fl.constants import REGIONS

SITES = ("hospital-1", "hospital-2")
Row = tuple[str, str, str, Sequence[float | None], Sequence[float | None]]
"""Case, site, split, Dice of TC, WT, ET, HD95 of the same in mm."""

ROWS: tuple[Row, ...] = (
    ("a1", "hospital-1", "testing", (0.9, 0.9, 0.9), (3.0, 6.0, 9.0)),
    ("a2", "hospital-1", "testing", (0.7, 0.8, 0.6), (5.0, 5.0, 5.0)),
    ("a3", "hospital-1", "testing", (0.5, 0.7, 0.6), (1.0, 1.0, 1.0)),
    ("b1", "hospital-2", "testing", (0.1, 0.6, 0.2), (373.13, 10.0, 20.0)),
    ("b2", "hospital-2", "validation", (1.0, 1.0, 1.0), (0.0, 0.0, 0.0)),
)


def write_run(run: Path, rows: Sequence[Row] = ROWS, rounds: int = 3, **info: Any) -> Path:
    """A run folder of two hospitals; every round both train, hospital-2 twice as long."""
    run.mkdir(parents=True)
    sites = {site: {"training": 4, "validation": 1, "testing": 2} for site in SITES}
    content = {"job": "brats_unet_fedavg", "bundle": "brats_unet", "rounds": rounds, "sites": sites} | info
    (run / "run.json").write_text(json.dumps(content))
    write_rounds(run, [train(number, site) for number in range(rounds) for site in SITES])
    write_rows(run, rows)
    return run


def train(number: int, site: str, **fields: Any) -> dict[str, Any]:
    """A line of rounds.jsonl in which the hospital answered."""
    seconds = 10.0 * (1 + SITES.index(site)) if site in SITES else 15.0
    dice = 0.2 + 0.1 * number
    metrics = {"val_mean_dice": dice} | {f"val_dice_{region}": dice for region in REGIONS}
    own = {"status": "ok", "loss": 1.0 / (1 + number), "metrics": metrics, "train_seconds": seconds - 3}
    own |= {"evaluate_seconds": 2.0, "seconds": seconds, "bytes_down": 4_000_000, "bytes_up": 4_000_000}
    return {"phase": "train", "round": number, "site": site} | own | fields


def write_rounds(run: Path, lines: Sequence[Mapping[str, Any]]) -> None:
    (run / "rounds.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def write_rows(run: Path, rows: Sequence[Row]) -> None:
    with (run / "evaluation.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["case", "site", "split", "region", "dice", "hd95_mm", "volume_ml", "reference_volume_ml"])
        for case, site, split, dice, hd95_mm in rows:
            for region, overlap, distance in zip(REGIONS, dice, hd95_mm, strict=True):
                table.writerow([case, site, split, region, overlap, distance, 12.5, 11.0])


def add_columns(run: Path, columns: Mapping[str, Sequence[object]]) -> None:
    """Further figures in a run's table, a value a row from the top; rows beyond have none."""
    path = run / "evaluation.csv"
    with path.open(newline="") as file:
        rows = list(csv.reader(file))
    for name, values in columns.items():
        rows[0].append(name)
        for number, row in enumerate(rows[1:]):
            row.append(str(values[number]) if number < len(values) else "")
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(rows)


def write_scans(sites_dir: Path, run: Path, rows: Sequence[Row] = ROWS, labels: Sequence[int] = (1, 2, 4)) -> None:
    """Data lists, four scans, label and predicted mask of every testing case: a ball in an egg."""
    i, j, k = np.ogrid[:60, :60, :40]
    brain = ((i - 30) / 26) ** 2 + ((j - 30) / 28) ** 2 + ((k - 20) / 18) ** 2 < 1
    noise = np.random.default_rng(0).normal(0, 12, brain.shape)
    affine = np.diag([-2.0, -2.0, 2.0, 1.0])
    for site in {site for _, site, _, _, _ in rows}:
        cases = []
        for case, _, _, _, _ in (row for row in rows if row[1] == site and row[2] == "testing"):
            label = balls(i, j, k, (38, 26, 22), (9, 6, 3), labels)
            mask = balls(i, j, k, (40, 27, 22), (8, 6, 4), labels)
            folder = sites_dir / site / "scans" / case
            folder.mkdir(parents=True)
            paths = []
            for modality, weight in (("t1ce", 40), ("t1", -10), ("t2", 60), ("flair", 80)):
                scan = np.where(brain, 200 + noise + weight * (label > 0) + weight * (label == 4), 0).astype(np.int16)
                paths.append(save(scan, affine, folder / f"{case}_{modality}.nii"))
            label_path = save(label, affine, folder / f"{case}_seg.nii")
            (run / "masks" / site).mkdir(parents=True, exist_ok=True)
            save(mask, affine, run / "masks" / site / f"{case}_seg.nii.gz")
            cases.append(Case(case=case, patient=case, image=tuple(paths), label=label_path))
        write_datalist(sites_dir / site / DATALIST_FILE, DataList(site=site, testing=tuple(cases)))


def balls(i: Any, j: Any, k: Any, centre: Sequence[int], radii: Sequence[int], labels: Sequence[int]) -> np.ndarray:
    """Oedema around an enhancing rim around a necrotic core, in the files' label values."""
    radius = np.sqrt((i - centre[0]) ** 2 + (j - centre[1]) ** 2 + (k - centre[2]) ** 2)
    necrosis, oedema, enhancing = labels
    volume = np.zeros(radius.shape, np.int16)
    for limit, value in zip(radii, (oedema, enhancing, necrosis), strict=True):
        volume[radius < limit] = value
    return volume


def save(volume: np.ndarray, affine: np.ndarray, path: Path) -> str:
    nib.save(nib.Nifti1Image(volume, affine), path)
    return str(path)
