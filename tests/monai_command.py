"""``python -m monai.bundle run`` inside a bundle's folder, as the model card writes it, and what it is given to do."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from brats_fl_tools.repository import BUNDLES
from brats_fl_tools.sync_bundles import SOURCE, other_bundles

OTHERS = [BUNDLES / name for name in other_bundles()]
every_bundle = pytest.mark.parametrize("bundle", [BUNDLES / SOURCE, *OTHERS], ids=lambda path: path.name)
first_bundle_or_slow = pytest.mark.parametrize(
    "bundle",
    [BUNDLES / SOURCE, *(pytest.param(path, marks=pytest.mark.slow) for path in OTHERS)],
    ids=lambda path: path.name,
)

TIME_LIMIT_S = 240
"""A command takes about 8 s on an idle machine, most of it the import of MONAI."""


def run(bundle: Path, configs: Sequence[str], *launcher: str, **settings: object) -> subprocess.CompletedProcess[str]:
    """Run configurations of a bundle, each the name of one of its own or a file's path."""
    files = [name if name.endswith(".json") else f"configs/{name}.json" for name in configs]
    options = {"meta_file": "configs/metadata.json", "logging_file": "configs/logging.conf", **settings}
    variables = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
    return subprocess.run(
        [*(launcher or [sys.executable]), "-m", "monai.bundle", "run", "--config_file", str(files)]
        + [part for key, value in options.items() for part in (f"--{key}", str(value))],
        cwd=bundle,
        env={**variables, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        timeout=TIME_LIMIT_S,
        check=False,
    )


def tiny_training(site: Path, folder: Path) -> dict[str, object]:
    """Settings of a training of two steps and one validation."""
    return {
        "data_list_file_path": site / "datalist.json",
        "ckpt_dir": folder / "models",
        "epochs": 1,
        "steps_per_epoch": 2,
        "val_interval": 1,
        "patch_size": [32, 32, 32],
    }
