"""Label maps and tumour regions: a file's label values, the library's label values, and the three regions.

All functions work on NumPy arrays and on tensors and give back the kind they were given; a ``MetaTensor``
keeps its geometry. The work is done in NumPy, which compares bytes five times as fast as torch does on a CPU.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from brats_fl.constants import ED, ET, LABEL_TABLES, NCR, REGION_LABELS, REGIONS
from brats_fl.errors import CaseError

if TYPE_CHECKING:  # the data gate maps labels, too, and does not wait for torch
    from torch import Tensor

Labels = TypeVar("Labels", NDArray[Any], "Tensor")

SHOWN_VALUES = 5

NEARLY_WHOLE = 1e-3
"""How far from a whole number a label's value may be: what scaling in a header or a filter leaves of rounding. Of
interpolation far more is left."""


def to_library_labels(label: Labels, table: str) -> Labels:
    """Label map with the library's values, from one with a file's values.

    Args:
        label: Values of the convention, any shape, integer or float dtype.
        table: Name of the file's convention, a key of ``LABEL_TABLES``. Values within ``NEARLY_WHOLE`` of one of it
            are taken for it.

    Returns:
        uint8, same shape: 0 background, 1 necrotic core, 2 oedema, 3 enhancing tumour.

    Raises:
        CaseError: A value is not of the convention (fractions and NaN never are), or there is no such table.
    """
    mapping = _table(table)
    values = _as_numpy(label)
    changed, known = _replace_values(values, mapping)
    if known != values.size and values.dtype.kind == "f":
        values = round_nearly_whole(values)
        changed, known = _replace_values(values, mapping)
    if known != values.size:
        raise CaseError(_unknown_values(values, table))
    return _like(label, changed)


def round_nearly_whole(values: NDArray[Any]) -> NDArray[Any]:
    """The values, those within ``NEARLY_WHOLE`` of a whole number rounded to it; NaN and infinity stay."""
    if values.dtype.kind != "f":
        return values
    with np.errstate(invalid="ignore"):  # infinity less itself
        whole = np.rint(values)
        return np.where(np.abs(values - whole) <= NEARLY_WHOLE, whole, values)


def to_file_labels(label: Labels, table: str) -> Labels:
    """Label map with a file's values, from one with the library's: the inverse of ``to_library_labels``.

    Args:
        label: Values 0 to 3, any shape.
        table: Name of the file's convention, a key of ``LABEL_TABLES``.

    Returns:
        uint8, same shape.

    Raises:
        CaseError: A value is not 0, 1, 2 or 3, or there is no such convention.
    """
    mapping = {inside: in_file for in_file, inside in _table(table).items()}
    values = _as_numpy(label)
    changed, known = _replace_values(values, mapping)
    if known != values.size:
        unknown = list_values(np.setdiff1d(values, list(mapping)))
        raise CaseError(f"label map holds {unknown}; inside the library only 0, 1, 2 and 3 are labels")
    return _like(label, changed)


def labels_to_regions(label: Labels) -> Labels:
    """Binary regions of a label map with the library's values.

    Args:
        label: (H, W, D), or with the channel axis that MONAI's transforms keep: (..., 1, H, W, D).

    Returns:
        (3, H, W, D) or (..., 3, H, W, D) float32, 0 or 1, channels in the order of ``REGIONS``.

    Raises:
        ValueError: There are fewer than three axes, or the channel axis is not 1 long.

    Source: Baid et al. 2021, arXiv 2107.02314: core = necrosis + enhancing, whole = core + oedema.
    """
    values: NDArray[Any] = _as_numpy(label)
    if values.ndim < 3 or (values.ndim > 3 and values.shape[-4] != 1):
        raise ValueError(f"label must have shape (H, W, D) or (..., 1, H, W, D), got {tuple(values.shape)}")
    if values.ndim > 3:
        values = values[..., 0, :, :, :]
    regions = np.empty((*values.shape[:-3], len(REGIONS), *values.shape[-3:]), dtype=np.float32)
    is_label = {value: values == value for value in (NCR, ED, ET)}
    for channel, region in enumerate(REGIONS):
        members = [is_label[value] for value in REGION_LABELS[region]]
        regions[..., channel, :, :, :] = np.logical_or.reduce(members)
    return _like(label, regions)


def regions_to_labels(regions: Labels) -> Labels:
    """Label map with the library's values, from binary regions.

    Where the regions are not nested, the inner one wins: enhancing tumour over core over whole.

    Args:
        regions: (..., 3, H, W, D), 0 or 1, channels in the order of ``REGIONS``.

    Returns:
        (..., H, W, D) uint8: 3 where ``et``, else 1 where ``tc``, else 2 where ``wt``, else 0.

    Raises:
        ValueError: There are fewer than four axes, or the channel axis is not 3 long.
    """
    values: NDArray[Any] = _as_numpy(regions)
    if values.ndim < 4 or values.shape[-4] != len(REGIONS):
        raise ValueError(f"regions must have shape (..., {len(REGIONS)}, H, W, D), got {tuple(values.shape)}")
    labels = np.zeros((*values.shape[:-4], *values.shape[-3:]), dtype=np.uint8)
    for region, value in (("wt", ED), ("tc", NCR), ("et", ET)):
        labels[values[..., REGIONS.index(region), :, :, :] > 0] = value
    return _like(regions, labels)


def fitting_tables(values: ArrayLike) -> list[str]:
    """Names of the conventions that know every one of these values."""
    return [name for name, table in LABEL_TABLES.items() if np.isin(values, list(table)).all()]


def _table(name: str) -> Mapping[int, int]:
    if name not in LABEL_TABLES:
        raise CaseError(f"labels must be one of {', '.join(LABEL_TABLES)} (got {name!r})")
    return LABEL_TABLES[name]


def _replace_values(values: NDArray[Any], mapping: Mapping[int, int]) -> tuple[NDArray[np.uint8], int]:
    """Values replaced by the mapping, and how many voxels the mapping knew."""
    changed = np.zeros_like(values, dtype=np.uint8)
    known = 0
    for old, new in mapping.items():
        found = values == old
        known += int(np.count_nonzero(found))
        if new:
            changed += found * np.uint8(new)
    return changed, known


def _unknown_values(values: NDArray[Any], table: str) -> str:
    present, counts = np.unique(values, return_counts=True)
    is_unknown = ~np.isin(present, list(LABEL_TABLES[table]))
    unknown = list_values(present[is_unknown])
    voxels = int(counts[is_unknown].sum())
    allowed = ", ".join(str(value) for value in LABEL_TABLES[table])
    fitting = fitting_tables(present)
    mend = (
        f"its values fit {' and '.join(fitting)}: set `labels` of the case to the convention it was drawn in"
        if fitting
        else "they fit no known convention: a label must not be resampled with interpolation or rescaled"
    )
    return f"label holds {unknown} in {count_voxels(voxels)}; the convention {table} has {allowed} only; {mend}"


def count_voxels(count: int) -> str:
    """``1 voxel``, ``1,200 voxels``."""
    return "1 voxel" if count == 1 else f"{count:,} voxels"


def list_values(values: NDArray[Any]) -> str:
    """The first few of some values, and how many more there are."""
    shown = ", ".join(f"{float(value):g}" for value in values[:SHOWN_VALUES])
    return shown if values.size <= SHOWN_VALUES else f"{shown} and {values.size - SHOWN_VALUES} more values"


def _as_numpy(values: NDArray[Any] | Tensor) -> NDArray[Any]:
    return values if isinstance(values, np.ndarray) else values.detach().cpu().numpy()


def _like(source: Labels, values: NDArray[Any]) -> Labels:
    """The values as array, tensor on the source's device, or ``MetaTensor`` with the source's geometry."""
    if isinstance(source, np.ndarray):
        return values
    from monai.utils import convert_to_dst_type

    return convert_to_dst_type(values, source, dtype=values.dtype)[0]
