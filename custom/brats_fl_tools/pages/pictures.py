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

HIT, MISS, FALSE_ALARM = "hit", "miss", "false alarm"
AGREEMENT_COLOURS = {HIT: (0x56, 0xB4, 0xE9), MISS: (0xD5, 0x5E, 0x00), FALSE_ALARM: (0xF0, 0xE4, 0x42)}
"""Okabe and Ito's blue, vermilion and yellow once more: of different lightness, too, for who sees no colour at all."""
AGREEMENT_FILL = {HIT: 0.18, MISS: 0.5, FALSE_ALARM: 0.5}
"""What is right lets the scan through; what is wrong stands out."""
AGREEMENT_MEANINGS = {
    HIT: "in reference and prediction",
    MISS: "in the reference only",
    FALSE_ALARM: "in the prediction only",
}

JPEG_QUALITY = 82


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
    zoom = _zoom(scan.shape, spacing_mm, LONGEST_SIDE_PX)
    pixels = _in_grey(to_grey(scan), zoom)
    shown = _resize(labels, zoom, order=0)
    for label, colour in LABEL_COLOURS.items():
        region = shown == label
        pixels[region] = (1 - FILL) * pixels[region] + FILL * np.array(colour)
        pixels[_edge(region, width=2)] = colour
    if outline is not None:
        pixels[_edge(_resize(outline.astype(np.uint8), zoom, order=0) > 0, width=1)] = 255.0
    return _as_seen(pixels)


def paint_agreement(
    grey: Array, reference: Array, prediction: Array, spacing_mm: tuple[float, float], longest_side_px: int
) -> Array:
    """Picture of a slice with a region's hits, misses and false alarms, in the colours of ``AGREEMENT_COLOURS``.

    Args:
        grey: (H, W) in [0, 1]; first axis towards the patient's right, second to the front or to the head.
        reference: Whether a voxel is in the region, same shape, bool.
        prediction: The same of the prediction.
        spacing_mm: Voxel size along both axes.
        longest_side_px: Of the picture, whatever the voxel size.

    Returns:
        (rows, columns, 3) uint8, the patient's right on the left.
    """
    zoom = _zoom(grey.shape, spacing_mm, longest_side_px)
    pixels = _in_grey(grey, zoom)
    for name, part in split_agreement(reference, prediction).items():
        shown, colour = _resize(part.astype(np.uint8), zoom, order=0) > 0, np.array(AGREEMENT_COLOURS[name])
        pixels[shown] = (1 - AGREEMENT_FILL[name]) * pixels[shown] + AGREEMENT_FILL[name] * colour
        pixels[_edge(shown, width=1)] = colour
    return _as_seen(pixels)


def paint_overview(
    grey: Array, frame: tuple[slice, slice], spacing_mm: tuple[float, float], longest_side_px: int
) -> Array:
    """Picture of a whole slice with nothing drawn on it but a white frame around what other pictures enlarge.

    Args:
        grey: As of ``paint_agreement``.
        frame: What is enlarged.
        spacing_mm: Voxel size along both axes.
        longest_side_px: Of the picture.
    """
    zoom = _zoom(grey.shape, spacing_mm, longest_side_px)
    pixels, inside = _in_grey(grey, zoom), np.zeros(grey.shape, np.uint8)
    inside[frame] = 1
    pixels[_edge(_resize(inside, zoom, order=0) > 0, width=1)] = 255.0
    return _as_seen(pixels)


def paint_grey(grey: Array, longest_side_px: int) -> Array:
    """Picture of a slice alone, (H, W) in [0, 1] with voxels as long as they are wide; turned as the others."""
    return _as_seen(_in_grey(grey, _zoom(grey.shape, (1.0, 1.0), longest_side_px)))


def split_agreement(reference: Array, prediction: Array) -> dict[str, Array]:
    """Hits, misses and false alarms of a region, bool arrays of any one shape."""
    return {
        HIT: reference & prediction,
        MISS: reference & ~prediction,
        FALSE_ALARM: prediction & ~reference,
    }


def _zoom(shape: Sequence[int], spacing_mm: Sequence[float], longest_side_px: int) -> list[float]:
    """Pixels a voxel along each axis, so that a millimetre has one length in the picture."""
    extent = [size * step for size, step in zip(shape, spacing_mm, strict=True)]
    return [step * longest_side_px / max(extent) for step in spacing_mm]


def _in_grey(grey: Array, zoom: Sequence[float]) -> Array:
    """(H, W) in [0, 1] as (rows, columns, 3) float in [0, 255], not yet turned."""
    return np.repeat(np.clip(_resize(grey, zoom, order=1), 0, 1)[..., None], 3, axis=2) * 255.0


def _as_seen(pixels: Array) -> Array:
    """Turned as a radiologist looks at it: second axis upwards, the patient's right on the left."""
    return np.ascontiguousarray(pixels[::-1, ::-1].transpose(1, 0, 2).astype(np.uint8))


def to_grey(scan: Array) -> Array:
    """Intensities in [0, 1]; bounds are percentiles, so that one bright vessel does not darken the rest."""
    inside = scan[scan > 0]
    if inside.size == 0:
        return np.zeros_like(scan)
    low, high = np.percentile(inside, [0.5, 99.5])
    return np.where(scan > 0, np.clip((scan - low) / max(high - low, 1e-6), 0, 1), 0.0)


def as_jpeg(pixels: Array) -> str:
    """A picture as JPEG in base64: a quarter of a PNG's bytes; colours keep their full resolution."""
    buffer = io.BytesIO()
    imsave(buffer, pixels, format="jpeg", pil_kwargs={"quality": JPEG_QUALITY, "subsampling": 0, "optimize": True})
    return base64.b64encode(buffer.getvalue()).decode("ascii")


def _resize(values: Array, zoom: Sequence[float], order: int) -> Array:
    return np.asarray(ndimage.zoom(values, zoom, order=order, mode="nearest", grid_mode=True))


def _edge(region: Array, width: int) -> Array:
    return region & ~ndimage.binary_erosion(region, iterations=width)


def as_png(pixels: Array) -> str:
    """A picture as PNG in base64, for a ``data:`` address."""
    buffer = io.BytesIO()
    imsave(buffer, pixels, format="png")
    return base64.b64encode(buffer.getvalue()).decode("ascii")
