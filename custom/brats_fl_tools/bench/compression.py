"""What compression saves and costs: bytes of a message as FLARE serialises it, and seconds of both ends."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Final

import numpy as np
import typer
from nvflare.apis.dxo import DataKind
from nvflare.apis.utils.decomposers import flare_decomposers
from nvflare.app_common.decomposers import common_decomposers
from nvflare.fuel.utils import fobs

from brats_fl.aggregation import global_norm
from brats_fl.bundle import build_network
from brats_fl.components.exchange import as_dxo
from brats_fl.compression import Compressed, Compression, compress, decompress
from brats_fl.exchange import WEIGHTS, Weights, shared_weights
from brats_fl_tools.bench.masking import TYPICAL_CHANGE
from brats_fl_tools.repository import BUNDLES

BUNDLE: Final = "brats_unet"
PROFILES: Final = ("small", "full")
COMPRESSIONS: Final[tuple[Compression, ...]] = ("float16", "int8")


@dataclass(frozen=True)
class CompressionCosts:
    """Of one update."""

    message_ratio: float
    """Bytes of the message by those of the message without compression."""
    compress_seconds: float
    """On one core; so is the other."""
    decompress_seconds: float
    cosine: float
    """Of what arrives with what was sent."""


def measure_compression(like: Weights, compression: Compression) -> CompressionCosts:
    """An update there, of values with a heavy tail (Student's t, 3 degrees of freedom) and deviation about 1e-3.

    Args:
        like: Weights of the network; their names and shapes count.
        compression: What is measured.
    """
    random = np.random.default_rng(0)
    update = {
        name: (random.standard_t(3, np.shape(value)) * TYPICAL_CHANGE).astype(np.float32)
        for name, value in like.items()
    }
    begin = time.process_time()
    sent = compress(update, compression)
    between = time.process_time()
    arrived = decompress(sent, like, compression)
    end = time.process_time()
    return CompressionCosts(
        message_ratio=message_bytes(sent) / message_bytes(update),
        compress_seconds=between - begin,
        decompress_seconds=end - between,
        cosine=cosine(update, arrived),
    )


def message_bytes(arrays: Compressed | Weights) -> int:
    """Bytes of an update as FLARE serialises it."""
    flare_decomposers.register()
    common_decomposers.register()
    return len(fobs.dumps(as_dxo({WEIGHTS: arrays}, DataKind.WEIGHT_DIFF).to_shareable()))


def cosine(one: Weights, other: Weights) -> float:
    """Cosine of all values together, in float64."""
    product = sum(float(np.sum(np.multiply(one[name], other[name], dtype=np.float64))) for name in one)
    return product / (global_norm(one) * global_norm(other))


def bench_compression() -> None:
    """Print what compression saves and costs for both profiles of the UNet."""
    for profile in PROFILES:
        like = shared_weights(build_network(BUNDLES / BUNDLE, profile, seed=0))
        values = sum(value.size for value in like.values())
        for compression in COMPRESSIONS:
            costs = measure_compression(like, compression)
            typer.echo(
                f"compression, {values:,} values, {compression:7s} {costs.message_ratio:.4f} times the bytes of a "
                f"message, there {costs.compress_seconds:.3f} s, back {costs.decompress_seconds:.3f} s, "
                f"cosine {costs.cosine:.6f}"
            )
