"""Weights in fewer bytes on their way: as int8 with a scale for each ``BLOCK`` values, or as float16.

Up, a site sends its update so, and the server reads it before it checks and averages anything: bounds, robust means,
records and ledger see an update as they always do. Nothing is kept of what rounding took away: the next round starts
from the model that everybody has, and makes up for it.

Down, a model travels as its change since the model that the site has, which it states by digest; whole where it has
none or another, as after a restart, a late start or a missed round. All must hold the same model to the bit, so the
server, too, adds the change as it arrives, rounded: that sum is the global model which is kept, rated, evaluated,
resumed from and recorded. What an algorithm remembers at the server (a momentum, say) is untouched. A job that goes on
begins with models sent whole.

What an algorithm sends beside the weights, such as SCAFFOLD's controls, steers every step to come and travels whole.
Masked words of secure aggregation are no numbers to be rounded: there the way down alone is compressed.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Final, Literal, get_args

import numpy as np
import numpy.typing as npt

from brats_fl.errors import JobError, ModelError
from brats_fl.exchange import Array, Weights
from brats_fl.typed import shorten

Compression = Literal["none", "float16", "int8"]
COMPRESSIONS: Final[tuple[Compression, ...]] = get_args(Compression)

BLOCK: Final = 256
"""Values that share a scale; 260 bytes in place of 1,024."""

STEPS: Final = 127
"""From zero to the largest value of a block; -128 is not used, so that both signs are alike."""

SCALE: Final = np.dtype("<f4")
LARGEST_SCALE: Final = np.finfo(np.float32).max / np.float32(STEPS)
LARGEST_FLOAT16: Final = float(np.finfo(np.float16).max)

Compressed = Mapping[str, npt.NDArray[np.generic]]
"""Name of a parameter -> its values as they travel."""

Packed = npt.NDArray[np.int8]
"""(4 x blocks + size,): the scales of the blocks, float32 with the least byte first, then the values."""


def check_compression(compression: object) -> Compression:
    """The word.

    Raises:
        JobError: It is none.
    """
    for known in COMPRESSIONS:
        if compression == known:
            return known
    raise JobError(f"compression must be one of {', '.join(COMPRESSIONS)} (got {shorten(compression)})")


def share_of_bytes(compression: Compression) -> float:
    """Bytes of a large array by those of its float32 values."""
    return {"none": 1.0, "float16": 0.5, "int8": (BLOCK + SCALE.itemsize) / (4 * BLOCK)}[compression]


def compress(weights: Weights, compression: Compression) -> Compressed:
    """Arrays as they travel, each under its own name; whole where they would not be smaller.

    Args:
        weights: Float32.
        compression: ``none`` leaves them as they are.

    Raises:
        ModelError: A value is not finite, or too large for float16; with the name of its array.
    """
    if compression == "none":
        return weights
    return {name: _pack(name, value, compression) for name, value in weights.items()}


def decompress(arrays: Mapping[str, object], like: Weights, compression: Compression) -> dict[str, Array]:
    """Weights that travelled, float32 and of the network's shapes.

    Args:
        arrays: What came; anything may be in it.
        like: Weights of the network.
        compression: Of the job; ``float16`` or ``int8``.

    Raises:
        ModelError: They are no such arrays; with the name of the first that is none.
    """
    missing, unknown = set(like) - set(arrays), set(arrays) - set(like)
    if missing or unknown:
        # Unknown names are not shown: at the server they are a site's own text, which does not belong into its log.
        raise ModelError(f"keys differ from the network's: {len(missing)} missing, {len(unknown)} unknown")
    return {name: _unpack(name, value, np.shape(like[name]), compression) for name, value in arrays.items()}


def as_it_arrives(weights: Weights, compression: Compression) -> Weights:
    """What the other side gets of weights, to the bit."""
    if compression == "none":
        return weights
    return decompress(compress(weights, compression), weights, compression)


def quantise(values: Array) -> Packed:
    """Values as int8, rounded to the nearest of 255 steps between minus and plus the largest of their block.

    A block whose largest value is below 1.5e-36 counts as zero.

    Returns:
        ``Packed``; no value is off by more than 1/254 of the largest of its block.

    Raises:
        ModelError: One is not finite.

    Source: the block-wise absolute maximum of Dettmers et al. 2022, arXiv 2110.02861, with linear steps.
    """
    flat = np.ravel(values).astype(np.float32, copy=False)
    count = flat.size
    blocks = _in_blocks(flat)
    scales = np.maximum(blocks.max(axis=1), -blocks.min(axis=1)) / np.float32(STEPS)
    if not np.isfinite(scales).all():
        raise ModelError("it holds NaN or infinite values; the training diverged: lower the learning rate")
    scales[scales < np.finfo(np.float32).tiny] = 0
    packed = np.empty(SCALE.itemsize * len(scales) + count, np.int8)
    packed[:-count].view(SCALE)[:] = scales
    scales[scales == 0] = np.inf  # all of the block becomes 0
    steps = blocks / scales[:, None]
    packed[-count:] = np.rint(steps, out=steps).ravel()[:count]
    return packed


def dequantise(packed: Packed, shape: tuple[int, ...]) -> Array:
    """The float32 values of what ``quantise`` packed, in the shape that they had."""
    count = prod(shape)
    scales = packed[:-count].view(SCALE)
    values = packed[-count:].astype(np.float32)
    whole = count // BLOCK
    blocks = values[: whole * BLOCK].reshape(whole, BLOCK)  # a view
    blocks *= scales[:whole, None]
    values[whole * BLOCK :] *= scales[-1]
    return values.reshape(shape)


def halve(values: Array) -> npt.NDArray[np.float16]:
    """Values as float16.

    Raises:
        ModelError: One is not finite, or too large.
    """
    if not (np.abs(values) <= LARGEST_FLOAT16).all():  # False of NaN, too
        raise ModelError(f"it holds NaN or a value above {LARGEST_FLOAT16:,.0f}, the largest of float16; use int8")
    return values.astype(np.float16)


def _pack(name: str, value: Array, compression: Compression) -> npt.NDArray[np.generic]:
    if _is_whole(value.size, compression):
        return value.astype(np.float32, copy=False)
    try:
        return quantise(value) if compression == "int8" else halve(value)
    except ModelError as error:
        raise ModelError(f"{name}: {error}") from None


def _unpack(name: str, value: object, shape: tuple[int, ...], compression: Compression) -> Array:
    """An array of the network out of what came for it; nothing is allocated before its size is known to be right."""
    size = prod(shape)
    if _is_whole(size, compression):
        return _typed(name, value, np.dtype(np.float32), shape).astype(np.float32, copy=False)
    if compression == "float16":
        half = _typed(name, value, np.dtype(np.float16), shape)
        if not np.isfinite(half).all():
            raise ModelError(f"{name} holds NaN or infinite values")
        return half.astype(np.float32)
    scales_end = SCALE.itemsize * _blocks_of(size)
    packed = np.ascontiguousarray(_typed(name, value, np.dtype(np.int8), (scales_end + size,)))
    scales = packed[:scales_end].view(SCALE)
    if not ((scales >= 0) & (scales <= LARGEST_SCALE)).all():  # False of NaN, too
        raise ModelError(f"{name} has a scale that is no finite number of 0 or more")
    if packed[scales_end:].min() < -STEPS:
        raise ModelError(f"{name} holds a value below {-STEPS}, the least that a compressed one has")
    return dequantise(packed, shape)


def _typed(name: str, value: object, dtype: np.dtype[np.generic], shape: tuple[int, ...]) -> npt.NDArray[np.generic]:
    if not isinstance(value, np.ndarray) or value.dtype != dtype or value.shape != shape:
        found = f"{value.dtype} of shape {value.shape}" if isinstance(value, np.ndarray) else type(value).__name__
        raise ModelError(
            f"{name} is {found[:80]}, expected {dtype} of shape {shape}: it belongs to another network, or server and "
            "site do not run the same job"
        )
    return value


def _is_whole(size: int, compression: Compression) -> bool:
    """Whether an array of so many float32 values would not be smaller compressed: a single one, as int8, and none."""
    return compression == "int8" and size + SCALE.itemsize * _blocks_of(size) >= 4 * size


def _blocks_of(size: int) -> int:
    return -(-size // BLOCK)


def _in_blocks(flat: Array) -> Array:
    """(blocks, BLOCK), the last one filled up with zeros; no copy where nothing is to be filled up."""
    if flat.size % BLOCK:
        padded = np.zeros(_blocks_of(flat.size) * BLOCK, np.float32)
        padded[: flat.size] = flat
        flat = padded
    return flat.reshape(-1, BLOCK)
