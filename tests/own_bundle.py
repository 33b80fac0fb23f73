"""A bundle with a network of one's own, in a folder of one's own: the files that a user writes, and no others."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from brats_fl_tools.repository import BUNDLES
from brats_fl_tools.sync_bundles import SOURCE, write_shared_files

NETWORK = {
    "_target_": "UNet",
    "spatial_dims": 3,
    "in_channels": 4,
    "out_channels": 3,
    "channels": [8, 16],
    "strides": [2],
    "norm": "INSTANCE",
}


def make_own_bundle(folder: Path) -> Path:
    """Write ``folder/two_levels``, a UNet of two levels, beside the bundle that it shares the recipe with; its path."""
    shutil.copytree(BUNDLES / SOURCE, folder / SOURCE, ignore=shutil.ignore_patterns("*.pt", "*.ts", "*.onnx", "eval"))
    bundle = folder / "two_levels"
    metadata = json.loads((BUNDLES / SOURCE / "configs" / "metadata.json").read_text(encoding="utf-8"))
    write(bundle / "configs" / "metadata.json", json.dumps(metadata | {"name": "BraTS UNet of two levels"}))
    write(bundle / "configs" / "train.json", json.dumps({"network_def": NETWORK}))
    write(bundle / "configs" / "small.json", json.dumps({"network_def#channels": [4, 8]}))
    write(bundle / "docs" / "README.md", "# BraTS UNet of two levels\n\n")
    write_shared_files(folder)  # `make bundles`
    return bundle


def write(path: Path, text: str) -> None:
    """Write a file and the folder it lies in."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
