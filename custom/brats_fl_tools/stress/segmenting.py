"""The bundle's own evaluation in this process, on scans that are degraded as they have been read."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import torch
from monai.bundle import ConfigParser
from monai.data import MetaTensor
from monai.engines import SupervisedEvaluator
from monai.transforms import Transform

from brats_fl.bundle import config_files
from brats_fl.cases.cache import flatten
from brats_fl.cases.cache_folder import digest
from brats_fl.errors import ModelError
from brats_fl.network.checkpoints import WeightsLoader
from brats_fl.provenance import hash_file
from brats_fl.scoring.mask_records import hash_settings
from brats_fl_tools.model.ensemble import ensemble_parts
from brats_fl_tools.model.trained import TrainedModel
from brats_fl_tools.stress import degradations
from brats_fl_tools.stress.plan import UNCHANGED
from brats_fl_tools.stress.records import SHA256_DIGITS

LOADER: Final = "brats_fl.cases.transforms.LoadCased"
STRENGTH: Final = "strength"
"""Key of an item: how strong its degradation is."""


class DegradeCased(Transform):
    """``image`` (4, H, W, D) of a case as it was read, degraded as the item's ``degradation`` and ``strength`` say."""

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:  # noqa: D102
        item = dict(data)
        if item["degradation"] == UNCHANGED:
            return item
        image = item["image"]
        degraded = degradations.apply(
            item["degradation"],
            item[STRENGTH],
            image.numpy(),
            image.affine.numpy(),
            item["case"],
        )
        item["image"] = MetaTensor(torch.from_numpy(degraded), meta=image.meta)  # with its affine
        return item


def make_evaluator(
    models: Sequence[TrainedModel], items: Sequence[Mapping[str, Any]], tuned: Mapping[str, Any]
) -> SupervisedEvaluator:
    """The evaluator of a bundle's evaluation with the weights loaded; it writes nothing.

    Args:
        models: One, or several whose probabilities are averaged.
        items: Of ``load_labelled``, with ``degradation`` and ``strength``.
        tuned: Post-processing, as variables of the bundle.

    Raises:
        ModelError: As ``configure``.
    """
    evaluator: SupervisedEvaluator = configure(models, items, tuned).get_parsed_content("validate#evaluator")
    WeightsLoader([one.weights for one in models], evaluator.network)(evaluator)
    return evaluator


def describe_maker(models: Sequence[TrainedModel], tuned: Mapping[str, Any]) -> str:
    """Digest of all that figures depend on but the case: weights, transforms, windows, and how scans are degraded."""
    parser = configure(models, [], tuned)
    chains = [parser.get_parsed_content(f"validate#{name}") for name in ("preprocessing", "postprocessing")]
    steps = [step for chain in chains for step in flatten(chain)]
    settings = hash_settings(steps, parser.get_parsed_content("validate#inferer"))
    files = [*(model.weights for model in models), Path(degradations.__file__)]
    return digest([settings, *map(hash_file, files)], SHA256_DIGITS)


def configure(
    models: Sequence[TrainedModel], items: Sequence[Mapping[str, Any]], tuned: Mapping[str, Any]
) -> ConfigParser:
    """The bundle's evaluation of these cases, degraded as they have been read.

    Raises:
        ModelError: It does not begin with reading a case.
    """
    model = models[0]
    # By name in the expression: a path may hold what MONAI takes for a reference, as in lead@consortium.example.
    parser = ConfigParser(globals={"given_items": list(items)})
    parser.read_config(config_files(model.bundle, model.profile, ["evaluate"]))
    if len(models) > 1:
        parser.update(ensemble_parts(models, "validate#inferer"))
    steps = parser.get("image_transforms")
    if not isinstance(steps, list) or not steps or steps[0].get("_target_") != LOADER:
        raise ModelError(
            f"{model.bundle / 'configs' / 'evaluate.json'}: image_transforms must begin with {LOADER}, after which "
            "scans are degraded; `make bundles` gives a new bundle the files"
        )
    own = {"_target_": f"{__name__}.{DegradeCased.__name__}"}
    given = {"image_transforms": [steps[0], own, *steps[1:]], "validate#handlers": []}
    for key, value in {**tuned, **given, "validate#dataset#data": "$given_items"}.items():
        parser[key] = value
    return parser
