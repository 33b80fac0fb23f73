"""Pictures of slices: a scan in grey, labels drawn on it."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.image import imsave
from scipy import ndimage

from brats_fl.constants import ED, ET, NCR

Array = npt.NDArray[Any]

LABEL_COLOURS = {ED: (0x56, 0xB4, 0xE9), NCR: (0xD5, 0x5E, 0x00), ET: (0xF0, 0xE4, 0x42)}
"""Okabe and Ito's blue, vermilion and yellow: distinct on grey with any common colour vision."""
LABEL_NAMES = {ED: "oedema", NCR: "necrotic core", ET: "enhancing tumour"}

LONGEST_SIDE_PX = 320
FILL = 0.28


def paint_labels(scan: Array, labels: Array, outline: Array | None, spacing_mm: tuple[float, float]) -> Array:
    """Picture of a slice as a radiologist sees it: front at the top, the patient's right on the left.

    Args:
        scan: Intensities, (H, W), first axis towards the patient's right-to-left, second back-to-front.
        labels: Label values of the library, same shape; filled lightly with a solid edge.
        outline: Tumour whose white edge is drawn on top, same shape, or ``None``.
        spacing_mm: Voxel size along both axes.

    Returns:
        (rows, columns, 3) uint8; its longest side has ``LONGEST_SIDE_PX`` pixels, whatever the voxel size.
    """
    extent = [size * step for size, step in zip(scan.shape, spacing_mm, strict=True)]
    zoom = [step * LONGEST_SIDE_PX / max(extent) for step in spacing_mm]
    grey = _resize(_window(scan), zoom, order=1)
    pixels = np.repeat(np.clip(grey, 0, 1)[..., None], 3, axis=2) * 255.0
    shown = _resize(labels, zoom, order=0)
    for label, colour in LABEL_COLOURS.items():
        region = shown == label
        pixels[region] = (1 - FILL) * pixels[region] + FILL * np.array(colour)
        pixels[_edge(region, width=2)] = colour
    if outline is not None:
        pixels[_edge(_resize(outline.astype(np.uint8), zoom, order=0) > 0, width=1)] = 255.0
    return np.ascontiguousarray(pixels[::-1, ::-1].transpose(1, 0, 2).astype(np.uint8))


def _window(scan: Array) -> Array:
    """Intensities in [0, 1]; bounds are percentiles, so that one bright vessel does not darken the rest."""
    inside = scan[scan > 0]
    if inside.size == 0:
        return np.zeros_like(scan)
    low, high = np.percentile(inside, [0.5, 99.5])
    return np.where(scan > 0, np.clip((scan - low) / max(high - low, 1e-6), 0, 1), 0.0)


def _resize(values: Array, zoom: Sequence[float], order: int) -> Array:
    return np.asarray(ndimage.zoom(values, zoom, order=order, mode="nearest", grid_mode=True))


def _edge(region: Array, width: int) -> Array:
    return region & ~ndimage.binary_erosion(region, iterations=width)


def as_png(pixels: Array) -> str:
    """A picture as PNG in base64, for a ``data:`` address."""
    buffer = io.BytesIO()
    imsave(buffer, pixels, format="png")
    return base64.b64encode(buffer.getvalue()).decode("ascii")
