"""A network that a test can afford, and the variables of the bundle that make it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

TINY: dict[str, Any] = {
    "patch_size": [32, 32, 32],
    "steps_per_epoch": 2,
    "batch_size": 1,
    "num_workers": 0,
    "network_def#channels": [4, 8, 8, 8, 8],
}
"""Of profile ``small``."""


def write_tiny_profile(bundle: Path) -> None:
    """Give a copy of the bundle a profile ``tiny``: ``small`` with ``TINY``; a job may choose it, and no network."""
    small = json.loads((bundle / "configs" / "small.json").read_text(encoding="utf-8"))
    (bundle / "configs" / "tiny.json").write_text(json.dumps(small | TINY), encoding="utf-8")


def tiny_model() -> dict[str, NDArray[np.float32]]:
    """A global model for ``TINY``, always the same."""
    from monai.networks.nets import UNet

    torch.manual_seed(11)
    network = UNet(3, 4, 3, TINY["network_def#channels"], [2] * 4, num_res_units=2, norm=("INSTANCE", {"affine": True}))
    return {name: value.numpy() for name, value in network.state_dict().items()}
