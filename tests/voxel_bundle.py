"""A bundle with weights that a test can afford: a network of one voxel that finds the tumours of ``tiny_sites``."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from monai.bundle import ConfigParser

from brats_fl.segmenting import SegmentingEvaluator
from brats_fl_tools.repository import BUNDLES
from brats_fl_tools.sync_bundles import SOURCE

NETWORK = {"_target_": "torch.nn.Conv3d", "in_channels": 4, "out_channels": 3, "kernel_size": 1}
TINY = {"network_def": NETWORK, "spacing_mm": [2.0, 2.0, 2.0], "patch_size": [32, 32, 32]}


def voxel_weights(bias: float = -10.0) -> dict[str, torch.Tensor]:
    """z > 1 in t1c is enhancing tumour, taken for all of the core; z > 1 in t2f is tumour."""
    weight = torch.zeros(3, 4, 1, 1, 1)
    weight[0, 0] = weight[2, 0] = weight[1, 3] = 10.0
    return {"weight": weight, "bias": torch.full((3,), bias)}


def make_voxel_bundle(folder: Path, bias: float = -10.0) -> Path:
    """Write a bundle with evaluation and inference of ``brats_unet``, this network and its weights; its path."""
    (folder / "configs").mkdir(parents=True)
    (folder / "models").mkdir()
    for name in ("train", "evaluate", "inference"):
        config = json.loads((BUNDLES / SOURCE / "configs" / f"{name}.json").read_text(encoding="utf-8"))
        (folder / "configs" / f"{name}.json").write_text(json.dumps(config | TINY))
    torch.save(voxel_weights(bias), folder / "models" / "model.pt")
    return folder


def make_voxel_evaluator(bundle: Path, data: Path, out: Path, **settings: object) -> SegmentingEvaluator:
    """The evaluator of the bundle's inference, as MONAI's command makes it, with the weights loaded."""
    parser = ConfigParser()
    parser.read_config(str(bundle / "configs" / "inference.json"))
    parser.update({"bundle_root": str(bundle), "dataset_dir": str(data), "output_dir": str(out), **settings})
    evaluator: SegmentingEvaluator = parser.get_parsed_content("evaluator")
    parser.get_parsed_content("checkpointloader")(evaluator)
    return evaluator
