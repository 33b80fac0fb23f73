"""What an audit takes from a bundle and from the lists: network, loss, optimiser, prepared cases, patches."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from monai.bundle import ConfigParser
from torch import Tensor, nn

from brats_fl.bundle import build_network, config_files
from brats_fl.cases.datalists import DATALIST_FILE, as_monai_item, read_datalist
from brats_fl.cases.transforms import cut_patch
from brats_fl.errors import CaseError, ModelError
from brats_fl.network.checkpoints import read_state_for
from brats_fl_tools.audit.membership import CaseLoss
from brats_fl_tools.audit.updates import Patch
from brats_fl_tools.model.trained import TrainedModel

PARTS: Final = ("validate#preprocessing", "validate#inferer", "loss", "optimizer")
"""Of a bundle's training; each bundle of this project has them."""

Item = Mapping[str, Any]
"""A case of a MONAI dataset, with its ``site`` and ``patient``."""


def list_items(sites: Path, names: Sequence[str] | Mapping[str, int], split: str) -> list[dict[str, Any]]:
    """Cases of a split of the sites."""
    return [
        {**as_monai_item(case), "site": site, "patient": f"{site}/{case.patient}"}
        for site in names
        for case in read_datalist(sites / site / DATALIST_FILE).split(split)
    ]


class Material:
    """The training of a model's bundle and profile, taken apart.

    Everything is in float32: the attacker need not use the mixed precision that training used.

    Raises:
        ModelError: The bundle's training lacks one of ``PARTS``.
    """

    def __init__(self, model: TrainedModel, seed: int) -> None:
        self.model = model
        self._parser = ConfigParser()
        self._parser.read_config(config_files(model.bundle, model.profile))
        for part in PARTS:
            if part not in self._parser:
                raise ModelError(
                    f"{model.bundle / 'configs' / 'train.json'}: has no {part}, which an audit needs; `make bundles` "
                    "gives a new bundle the files"
                )
        self._parser["amp"] = False
        self._prepare = self._parser.get_parsed_content("validate#preprocessing")
        self._inferer = self._parser.get_parsed_content("validate#inferer")
        self.loss = self._parser.get_parsed_content("loss")
        self.max_norm = float(self._parser.get("max_gradient_norm", float("inf")))
        self.networks = {
            "start": build_network(model.bundle, model.profile, seed).train(),
            "trained": load_network(model).train(),
        }

    def optimiser(self, network: nn.Module) -> torch.optim.Optimizer:
        """A fresh optimiser of the bundle for a network."""
        parser = ConfigParser(copy.deepcopy(self._parser.get()), globals={"given_network": network})
        parser["network"] = "$given_network"
        made: torch.optim.Optimizer = parser.get_parsed_content("optimizer")
        return made

    def prepare(self, item: Item) -> tuple[Tensor, Tensor]:
        """A case as training has it before its random transforms: image (4, H, W, D), regions (3, H, W, D), float32."""
        prepared = self._prepare(dict(item))
        return _plain(prepared["image"]), _plain(prepared["label"])

    def loss_of(self, network: nn.Module, image: Tensor, regions: Tensor) -> float:
        """Training's loss of a network on a whole case, seen in the windows of evaluation."""
        with torch.no_grad():
            return float(self.loss(self._inferer(image[None], network.eval()), regions[None]))

    def case_loss(self, item: Item, network: nn.Module, reference: nn.Module | None) -> CaseLoss:
        """Loss of the model, and of the reference where there is one."""
        case = self.prepare(item)
        return CaseLoss(
            item["patient"],
            self.loss_of(network, *case),
            None if reference is None else self.loss_of(reference, *case),
        )


def load_network(model: TrainedModel) -> nn.Module:
    """A model's network with its weights."""
    network = build_network(model.bundle, model.profile, seed=0)
    network.load_state_dict(read_state_for(model.weights, network))
    return network


def cut_at_tumour(case: str, image: Tensor, regions: Tensor, size: int, rng: np.random.Generator | None) -> Patch:
    """A cube around a tumour voxel: that nearest to the tumour's middle, or one that is drawn.

    Args:
        case: Its name, for a message.
        image: (C, H, W, D).
        regions: (R, H, W, D).
        size: Voxels along each axis; where the case is smaller it is padded with 0.
        rng: To draw with; None for the middle.

    Raises:
        CaseError: The case has no tumour.
    """
    voxels = np.argwhere(regions.any(0).numpy())
    if not len(voxels):
        raise CaseError(f"{case}: has no tumour, around which the audit cuts its patch; name another with --case")
    middle = np.linalg.norm(voxels - voxels.mean(0), axis=1).argmin() if rng is None else rng.integers(len(voxels))
    start = [
        int(min(max(centre - size // 2, 0), max(length - size, 0)))
        for centre, length in zip(voxels[middle], image.shape[1:], strict=True)
    ]
    return cut_patch(image, start, [size] * 3)[None], cut_patch(regions, start, [size] * 3)[None]


def check_patch(network: nn.Module, patch: Patch) -> None:
    """Raise ``ModelError`` where the network cannot take a patch of this size."""
    try:
        network(patch[0])
    except (RuntimeError, ValueError) as error:
        raise ModelError(
            f"--patch {patch[0].shape[-1]}: the network cannot take it ({str(error).splitlines()[0][:100]}); take a "
            "multiple of its strides' product, such as 32 or 64"
        ) from None


def _plain(values: Any) -> Tensor:
    tensor: Tensor = values.as_tensor() if hasattr(values, "as_tensor") else values
    return tensor.float()
