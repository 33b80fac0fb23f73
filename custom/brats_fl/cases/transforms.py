"""Dictionary transforms that MONAI lacks: reading a BraTS case, drawing patches at tumour, labels to regions."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import RandomizableTrait, RandomizableTransform, Transform
from torch import Tensor

from brats_fl.cases.grids import Grid
from brats_fl.cases.regions import labels_to_regions, to_library_labels
from brats_fl.cases.scan_values import refuse_at_a_glance
from brats_fl.cases.scans import read_volumes
from brats_fl.constants import DEFAULT_LABEL_TABLE, ED, ET, LABEL, MODALITIES, NCR
from brats_fl.errors import CaseError

TUMOUR_VOXELS_PER_LABEL = 2000


class LoadCased(Transform):
    """Read a case: ``image`` (4, H, W, D) float32 and, where it has one, ``label`` (1, H, W, D) uint8.

    The item comes from a data list: ``case``, ``image`` (four scans), ``label`` (may be absent), each a path or a
    volume of a 4-D file as ``path#k``, and ``labels`` (the label convention). Labels leave with the library's values,
    0 background, 1 necrotic core, 2 oedema, 3 enhancing tumour. A 4-D file is decompressed once.

    Raises:
        CaseError: A file cannot be read or is not 3-D; a voxel is not finite; the files' grids differ; a label value is
            unknown; a scan is constant, is not 0 around the brain, shows a head and not a brain, or has hot voxels.
    """

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:  # noqa: D102
        item = dict(data)
        case = str(item.get("case", Path(item["image"][0]).name))
        scans = dict(zip(MODALITIES, item["image"], strict=True))
        if item.get("label") is not None:
            scans[LABEL] = item["label"]
        volumes = dict(read_volumes(case, scans))
        grid = volumes[MODALITIES[0]].grid
        for name in MODALITIES:
            refuse_at_a_glance(case, name, volumes[name].voxels, grid, str(scans[name]))
        voxels = np.stack([np.asarray(volumes[name].voxels, dtype=np.float32) for name in MODALITIES])
        item["image"] = as_meta_tensor(torch.from_numpy(voxels), grid, Path(scans[MODALITIES[0]]))
        if LABEL in volumes:
            table = str(item.get("labels", DEFAULT_LABEL_TABLE))
            try:
                label = to_library_labels(volumes[LABEL].voxels, table)
            except CaseError as error:
                raise CaseError(f"{case}: {error} ({scans[LABEL]})") from None
            item["label"] = as_meta_tensor(torch.from_numpy(label[None]), grid, Path(scans[LABEL]))
        return item


def as_meta_tensor(voxels: Tensor, grid: Grid, path: Path) -> MetaTensor:
    """Channel-first voxels with the affine that MONAI's ``Orientationd``, ``Spacingd`` and ``Invertd`` follow."""
    meta = {
        "filename_or_obj": str(path),
        "original_channel_dim": 0,
        "spatial_shape": np.asarray(grid.shape),
        "space": "RAS",
    }
    return MetaTensor(voxels, affine=torch.as_tensor(grid.affine, dtype=torch.float64), meta=meta)


def is_not_zero(voxels: Tensor) -> Tensor:
    """Where there is brain: BraTS scans are skull-stripped and exactly 0 outside. For ``CropForegroundd``."""
    return voxels != 0


class TumourVoxelsd(Transform):
    """Add ``tumour_voxels`` (N, 3) int16: voxel indices to draw training patches at, as many per label as there are.

    At most ``TUMOUR_VOXELS_PER_LABEL`` of each label, drawn once with a fixed seed. Drawing one of them later makes
    small enhancing rims as likely to be seen as large oedemas (the class locations of nnU-Net, Isensee et al. 2021,
    doi:10.1038/s41592-020-01008-z), and costs nothing per step.
    """

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:  # noqa: D102
        item = dict(data)
        if "label" not in item:
            return item
        label = np.asarray(item["label"])[0]
        rng = np.random.default_rng(0)
        drawn = []
        for value in (NCR, ED, ET):
            voxels = np.flatnonzero(label == value)
            if voxels.size:
                size = min(voxels.size, TUMOUR_VOXELS_PER_LABEL)
                chosen = np.sort(rng.choice(voxels, size=size, replace=False))
                # Each label gets the same number of entries, so that each is drawn as often.
                repeated = np.resize(chosen, TUMOUR_VOXELS_PER_LABEL)
                drawn.append(np.stack(np.unravel_index(repeated, label.shape), axis=1))
        places = np.concatenate(drawn) if drawn else np.zeros((0, 3))
        item["tumour_voxels"] = torch.from_numpy(places.astype(np.int16))
        return item


class UncachedBoundaryd(Transform, RandomizableTrait):
    """Where the cache ends: what comes before is stored on disk, what comes after is done anew each time.

    Casts ``image`` from the cache's float16 to float32 and turns ``label`` into the three regions as float32.
    """

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:  # noqa: D102
        item = dict(data)
        item["image"] = item["image"].float()
        if "label" in item:
            item["label"] = labels_to_regions(item["label"])
        return item


class RandTumourPatchd(RandomizableTransform):
    """Draw a patch: ``image`` (4, *patch_size) float32 and ``label`` (1, *patch_size) uint8, both plain tensors.

    With ``tumour_probability`` the patch contains a voxel of ``tumour_voxels``, at a random place inside it; else it
    lies anywhere. A case smaller than the patch is padded with 0, the value of the background after normalisation.
    """

    def __init__(self, patch_size: Sequence[int], tumour_probability: float) -> None:
        super().__init__(prob=1.0)
        self.patch_size = tuple(patch_size)
        self.tumour_probability = tumour_probability

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:  # noqa: D102
        item = dict(data)
        start = self._draw_start(item["image"].shape[1:], item.pop("tumour_voxels", None))
        item["image"] = cut_patch(item["image"], start, self.patch_size).float()
        item["label"] = cut_patch(item["label"], start, self.patch_size)
        return item

    def _draw_start(self, shape: Sequence[int], tumour_voxels: Tensor | None) -> list[int]:
        at_tumour = self.R.random_sample() < self.tumour_probability
        voxel = None
        if at_tumour and tumour_voxels is not None and len(tumour_voxels):
            voxel = tumour_voxels[self.R.randint(len(tumour_voxels))].tolist()
        start = []
        for axis, (size, patch) in enumerate(zip(shape, self.patch_size, strict=True)):
            # Negative where the case is smaller than the patch: it then lies anywhere inside the padded patch.
            lowest, highest = min(0, size - patch), max(0, size - patch)
            if voxel is not None:
                # A margin of an eighth keeps the drawn voxel off the patch's rim.
                rim = patch // 8
                first, last = voxel[axis] - patch + 1 + rim, voxel[axis] - rim
                lowest, highest = min(max(first, lowest), highest), max(min(last, highest), lowest)
            start.append(int(self.R.randint(lowest, highest + 1)))
        return start


def cut_patch(volume: Tensor, start: Sequence[int], size: Sequence[int]) -> Tensor:
    """Box of (C, H, W, D) that begins at ``start`` (may be negative), 0 where it reaches beyond the volume."""
    patch = torch.zeros((volume.shape[0], *size), dtype=volume.dtype)
    source, target = [slice(None)], [slice(None)]
    for axis in range(3):
        low = max(start[axis], 0)
        high = min(start[axis] + size[axis], volume.shape[axis + 1])
        source.append(slice(low, high))
        target.append(slice(low - start[axis], high - start[axis]))
    patch[tuple(target)] = torch.as_tensor(volume)[tuple(source)]
    return patch


class LabelToRegionsd(Transform):
    """``label`` from (1, H, W, D) library labels to the regions (3, H, W, D) float32, channels as ``REGIONS``."""

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:  # noqa: D102
        item = dict(data)
        item["label"] = labels_to_regions(item["label"])
        return item


class RandModalityContrastd(RandomizableTransform):
    """Change brightness, contrast and gamma of each modality of ``image`` on its own, as other scanners would.

    Works on z-scored voxels; the background stays 0. Ranges of nnU-Net (Isensee et al. 2021): brightness factor 0.75
    to 1.25, contrast about the mean 0.75 to 1.25 within the range of the modality, gamma 0.7 to 1.5.
    """

    def __init__(self, prob: float = 0.15) -> None:
        super().__init__(prob=1.0)
        self.change_probability = prob

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:  # noqa: D102
        item = dict(data)
        image = torch.as_tensor(item["image"]).clone()
        for channel in image:
            inside = channel != 0
            if self._happens():
                channel.mul_(self.R.uniform(0.75, 1.25))
            if self._happens():
                adjust_contrast(channel, inside, self.R.uniform(0.75, 1.25))
            if self._happens():
                adjust_gamma(channel, inside, self.R.uniform(0.7, 1.5))
        item["image"] = image
        return item

    def _happens(self) -> bool:
        return bool(self.R.random_sample() < self.change_probability)


def adjust_contrast(channel: Tensor, inside: Tensor, factor: float) -> None:
    """Stretch the voxels inside about their mean, kept within their old range; in place."""
    if not inside.any():
        return
    voxels = channel[inside]
    mean = voxels.mean()
    channel[inside] = ((voxels - mean) * factor + mean).clamp(voxels.min(), voxels.max())


def adjust_gamma(channel: Tensor, inside: Tensor, gamma: float) -> None:
    """Raise the voxels inside, scaled to [0, 1], to a power, then restore their mean and deviation; in place."""
    if int(inside.sum()) < 2:
        return
    voxels = channel[inside]
    low, high = voxels.min(), voxels.max()
    if high <= low:
        return
    changed = ((voxels - low) / (high - low)).pow(gamma)
    deviation = changed.std().clamp_min(1e-7)
    channel[inside] = (changed - changed.mean()) / deviation * voxels.std() + voxels.mean()


class RandModalityDropoutd(RandomizableTransform):
    """Take one modality out of ``image``: with ``prob`` one channel, each as likely, becomes 0.

    0 is what an absent scan is to the network: the background, and the mean of a z-scored brain. Three modalities are
    always left. Source: the idea of Neverova et al. 2016 (ModDrop, doi:10.1109/TPAMI.2015.2461544), here never more
    than one.
    """

    def __init__(self, prob: float) -> None:
        if not 0 <= prob <= 1:
            raise ValueError(f"modality_dropout must be a probability, 0 to 1 (got {prob!r})")
        super().__init__(prob=1.0)
        self.dropout_probability = prob

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:  # noqa: D102
        item = dict(data)
        # Both are drawn every time, so that the patches after it are the same whatever the probability.
        happens, channel = self.R.random_sample() < self.dropout_probability, self.R.randint(len(item["image"]))
        if happens:
            image = torch.as_tensor(item["image"]).clone()
            image[channel] = 0
            item["image"] = image
        return item
