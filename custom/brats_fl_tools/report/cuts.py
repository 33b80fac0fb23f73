"""Where to cut a case open for a picture: through its largest error and its largest tumour, and how closely to look."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

PLANES: Final = {"axial": 2, "coronal": 1}
"""Plane -> axis that it is cut across, of a volume whose axes run to the right, the front and the head."""

MARGIN_MM: Final = 12.0
HEAD_MARGIN_MM: Final = 4.0
SMALLEST_MM: Final = 50.0
"""Side of the smallest window: an enhancing part of three voxels is shown among what is around it."""


@dataclass(frozen=True)
class Cut:
    """A plane through a case and the window that is enlarged."""

    plane: str
    level: int
    """Index of the slice along the axis of the plane."""
    box: tuple[slice, slice]
    """Window on the slice's two axes."""

    def through(self, volume: Array) -> Array:
        """The slice of a volume, (H, W), a view: ``np.take`` would first copy a volume that was turned."""
        place: list[Any] = [slice(None)] * volume.ndim
        place[PLANES[self.plane]] = self.level
        return np.asarray(volume[tuple(place)])

    def spacing_mm(self, spacing_mm: Sequence[float]) -> tuple[float, float]:
        """Voxel size along the slice's two axes, of the volume's three."""
        first, second = (step for axis, step in enumerate(spacing_mm) if axis != PLANES[self.plane])
        return first, second


def find_cut(shown: Array, tumour: Array, plane: str, spacing_mm: Sequence[float]) -> Cut:
    """The slice with the most of ``shown``, with a window around all ``tumour`` in it.

    Args:
        shown: Voxels that the slice is to show the most of, (H, W, D) bool; where there are none, ``tumour`` decides.
        tumour: Voxels that the window is to hold, same shape: tumour of the reference and of the prediction.
        plane: A key of ``PLANES``.
        spacing_mm: Voxel size along the volume's axes.
    """
    level = fullest_slice(shown if shown.any() else tumour, PLANES[plane])
    cut = Cut(plane, level, (slice(None), slice(None)))
    box = zoom_box(cut.through(tumour), cut.spacing_mm(spacing_mm))
    return Cut(plane, level, box)


def frame_in(cut: Cut, slice_: Array, spacing_mm: Sequence[float]) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """The part of a slice that is not background, with what the cut enlarges in it, and where that lies in the part.

    Args:
        cut: What is enlarged.
        slice_: Intensities of the whole slice, 0 around the head, (H, W).
        spacing_mm: Voxel size along both axes.
    """
    head = zoom_box(slice_ > 0, spacing_mm, HEAD_MARGIN_MM, smallest_mm=0.0)
    part = [slice(min(a.start, b.start), max(a.stop, b.stop)) for a, b in zip(head, cut.box, strict=True)]
    frame = [slice(b.start - a.start, b.stop - a.start) for a, b in zip(part, cut.box, strict=True)]
    return (part[0], part[1]), (frame[0], frame[1])


def fullest_slice(voxels: Array, axis: int) -> int:
    """Index of the slice across an axis with the most voxels, the lowest among equals; the middle one without any."""
    others = tuple(other for other in range(voxels.ndim) if other != axis)
    counts = np.count_nonzero(voxels, axis=others)
    return int(np.argmax(counts)) if counts.any() else voxels.shape[axis] // 2


def zoom_box(
    voxels: Array,
    spacing_mm: Sequence[float],
    margin_mm: float = MARGIN_MM,
    smallest_mm: float = SMALLEST_MM,
) -> tuple[slice, slice]:
    """Window of a slice: what is marked, a margin around it, and no side below the smallest; all without a mark.

    Args:
        voxels: (H, W) bool.
        spacing_mm: Voxel size along both axes.
        margin_mm: On each side.
        smallest_mm: Least side, where the slice is as large.
    """
    if not voxels.any():
        return slice(0, voxels.shape[0]), slice(0, voxels.shape[1])
    box = []
    for axis, step in enumerate(spacing_mm):
        marked = np.flatnonzero(voxels.any(axis=1 - axis))
        first, last, size = int(marked[0]), int(marked[-1]) + 1, voxels.shape[axis]
        wanted = max((last - first) * step + 2 * margin_mm, smallest_mm)
        length = min(size, int(np.ceil(wanted / step)))
        begin = min(max(0, (first + last - length) // 2), size - length)
        box.append(slice(begin, begin + length))
    return box[0], box[1]
