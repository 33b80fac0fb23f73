"""The second implementation of every metric: sets of voxels and loops, sharing nothing with the library's."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import product

import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]
Voxel = tuple[int, ...]
Voxels = set[Voxel]

FACES = [(1, 0, 0), (-1, 0, 0), (0, 1, 0), (0, -1, 0), (0, 0, 1), (0, 0, -1)]
AROUND = [step for step in product((-1, 0, 1), repeat=3) if any(step)]
FACES_AND_EDGES = [step for step in AROUND if 0 in step]


def voxels_of(mask: Mask) -> Voxels:
    return {tuple(voxel) for voxel in np.argwhere(mask).tolist()}


def neighbours(voxel: Voxel, steps: Iterable[Voxel]) -> Voxels:
    return {(voxel[0] + i, voxel[1] + j, voxel[2] + k) for i, j, k in steps}


def reference_surface(mask: Mask) -> list[Voxel]:
    voxels = voxels_of(mask)
    return [voxel for voxel in sorted(voxels) if neighbours(voxel, FACES) - voxels]


def reference_percentile(values: Sequence[float]) -> float:
    ordered = sorted(values)
    place = 0.95 * (len(ordered) - 1)
    low = math.floor(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (place - low) * (ordered[high] - ordered[low])


def reference_distances(a: Mask, b: Mask, spacing: Sequence[float]) -> tuple[NDArray, NDArray]:
    first, second = (np.array(reference_surface(mask)) * spacing for mask in (a, b))
    nearest_first = np.full(len(first), np.inf)
    nearest_second = np.full(len(second), np.inf)
    for start in range(0, len(first), 500):
        pairs = np.linalg.norm(first[start : start + 500, None] - second[None], axis=2)
        nearest_first[start : start + 500] = pairs.min(axis=1)
        nearest_second = np.minimum(nearest_second, pairs.min(axis=0))
    return nearest_first, nearest_second


def reference_hd95(a: Mask, b: Mask, spacing: Sequence[float]) -> float:
    if a.any() != b.any():
        return 373.13
    if not a.any():
        return 0.0
    return max(reference_percentile(distances) for distances in reference_distances(a, b, spacing))


def reference_surface_dice(a: Mask, b: Mask, spacing: Sequence[float], tolerance_mm: float = 1.0) -> float:
    if not a.any() or not b.any():
        return 1.0 if a.any() == b.any() else 0.0
    all_distances = [distance for distances in reference_distances(a, b, spacing) for distance in distances]
    return sum(distance <= tolerance_mm + 0.001 for distance in all_distances) / len(all_distances)


def reference_dice(a: Mask, b: Mask) -> float:
    first, second = voxels_of(a), voxels_of(b)
    return 2 * len(first & second) / (len(first) + len(second)) if first or second else 1.0


def reference_share(part: Mask, whole: Mask) -> float:
    """Share of a mask's voxels that are in the other, too."""
    if not whole.any():
        return 0.0 if part.any() else 1.0
    return len(voxels_of(part) & voxels_of(whole)) / len(voxels_of(whole))


def flood(voxels: Voxels) -> list[Voxels]:
    """Parts whose voxels touch by face, edge or corner."""
    left, parts = set(voxels), []
    while left:
        part, front = set(), {min(left)}
        while front:
            part |= front
            front = {other for voxel in front for other in neighbours(voxel, AROUND)} & left - part
        parts.append(part)
        left -= part
    return parts


def dilated(voxels: Voxels, shape: Sequence[int]) -> Voxels:
    """Three steps over faces and edges, within the array."""
    grown = set(voxels)
    for _ in range(3):
        grown |= {other for voxel in grown for other in neighbours(voxel, FACES_AND_EDGES)}
        grown = {one for one in grown if all(0 <= at < size for at, size in zip(one, shape, strict=True))}
    return grown


def as_mask(voxels: Voxels, shape: Sequence[int]) -> Mask:
    mask = np.zeros(shape, dtype=bool)
    for voxel in voxels:
        mask[voxel] = True
    return mask


def reference_lesions(a: Mask, b: Mask, spacing: Sequence[float]) -> tuple[float, float, int, int, int]:
    """Lesion-wise Dice, HD95, and found, missed and false lesions, lesion by lesion as the challenge's program goes."""
    parts, reference = flood(voxels_of(a)), voxels_of(b)
    matched: list[Voxels] = []
    scores, found, missed = [], 0, 0
    for extent in flood(dilated(reference, b.shape)):
        lesion = reference & extent
        around = dilated(lesion, b.shape)
        own = [part for part in parts if part & around]
        matched += own
        if len(lesion) * math.prod(spacing) <= 50:
            continue
        if not own:
            scores.append((0.0, 374.0))
            missed += 1
            continue
        found += 1
        pair = as_mask(set().union(*own), b.shape), as_mask(lesion, b.shape)
        scores.append((reference_dice(*pair), reference_hd95(*pair, spacing)))
    false = [part for part in parts if part not in matched]
    scores += [(0.0, 374.0)] * len(false)
    if not scores:
        return 1.0, 0.0, 0, 0, 0
    dice, distances = (sum(values) / len(scores) for values in zip(*scores, strict=True))
    return dice, distances, found, missed, len(false)


def reference_calibration_error(probabilities: Sequence[float], truths: Sequence[bool]) -> float:
    """Expected calibration error in ten bins."""
    error = 0.0
    for number in range(10):
        inside = [
            (p, t)
            for p, t in zip(probabilities, truths, strict=True)
            if number / 10 <= p < (number + 1) / 10 or (p == 1 and number == 9)
        ]
        if inside:
            mean = sum(p for p, _ in inside) / len(inside)
            share = sum(t for _, t in inside) / len(inside)
            error += len(inside) / len(probabilities) * abs(mean - share)
    return error
