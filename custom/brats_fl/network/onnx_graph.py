"""A network as ONNX: what an export writes, and what engines other than torch are given."""

from __future__ import annotations

import io
import warnings
from typing import Final

import torch

EXAMPLE_SHAPES: Final = ((2, 4, 64, 32, 48), (1, 4, 32, 96, 64))
"""Inputs that exported graphs are run with before they are called exported; the first one is traced for ONNX.

All of the first one's sizes differ and none is 1, or the exporter would take them for fixed.
"""

TOLERANCE: Final = 1e-3
"""Largest difference of logits between a network and its graph; float32 kernels differ by 1e-5 to 4e-4."""


def as_onnx(network: torch.nn.Module) -> bytes:
    """The graph of a network, ``image`` (B, 4, H, W, D) to logits ``pred`` (B, 3, H, W, D), of any size that it takes.

    Args:
        network: On the CPU, in evaluation mode.
    """
    names = {0: "batch", 2: "height", 3: "width", 4: "depth"}
    graph = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter about its own parts; what it made is checked afterwards
        torch.onnx.export(
            network,
            (torch.randn(EXAMPLE_SHAPES[0], generator=torch.Generator().manual_seed(0)),),
            graph,  # type: ignore[arg-type]  # the older exporter takes an open file, too
            input_names=["image"],
            output_names=["pred"],
            dynamic_axes={"image": names, "pred": names},
            dynamo=False,  # the newer exporter gives the same logits, and takes 21 s where this one takes 2 s
        )
    return graph.getvalue()


def difference_of(wanted: torch.Tensor, got: torch.Tensor) -> float:
    """Largest difference of two outputs, as a share of the largest logit where that is more than 1; NaN of any NaN."""
    return float((wanted - got).abs().max() / wanted.abs().max().clamp(min=1))
