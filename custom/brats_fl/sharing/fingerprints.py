"""Keyed fingerprints: hospitals find a scan that two of them have, and show nobody a scan.

A scan is reduced to 96 bits, which of two small pieces of brain is brighter, and the bits go through HMAC-SHA256
with a key that the hospitals share and the server does not know. Two scans with one fingerprint are the same scan.
"""

from __future__ import annotations

import hashlib
import hmac
import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from brats_fl.cases.datalists import SITES_VARIABLE, Case
from brats_fl.cases.grids import Grid
from brats_fl.cases.scan_values import background_of
from brats_fl.cases.scans import Volume, count_not_finite, read_volumes
from brats_fl.constants import MODALITIES
from brats_fl.errors import CaseError, PrivacyError

MIN_KEY_BYTES: Final = 32
"""As long as the hash's own output (RFC 2104, section 3)."""

MIN_DISTINCT_BYTES: Final = 16
"""32 random bytes have 28 to 32 different values; a repeated word has a few."""

BITS: Final = 96

_BLOCK_MM = 4.0
_SIGMA_MM = 6.0
_PAIR_MM = 14.0
_REACH_MM = (42.0, 55.0, 35.0)
"""Pairs lie within an ellipsoid of these radii around the middle of the brain: far from its edge."""

_PURPOSE: Final = b"brats-fl scan fingerprint 1\0"


KEY_FILE: Final = "fingerprint.key"
KEY_VARIABLE: Final = "BRATS_FL_FINGERPRINT_KEY"


def read_key(kit: Path, environ: Mapping[str, str] = os.environ) -> bytes:
    """The hospitals' key: the file that ``BRATS_FL_FINGERPRINT_KEY`` names, else ``local/fingerprint.key`` of the kit.

    The simulator and POC also look in ``$BRATS_FL_SITES/fingerprint.key``.

    Raises:
        PrivacyError: There is none, or ``check_key`` refuses it.
    """
    places = [Path(environ[KEY_VARIABLE])] if environ.get(KEY_VARIABLE) else [kit / "local" / KEY_FILE]
    if not environ.get(KEY_VARIABLE) and environ.get(SITES_VARIABLE):
        places.append(Path(environ[SITES_VARIABLE]) / KEY_FILE)
    for place in places:
        if place.is_file():
            key = place.read_bytes()
            check_key(key)
            return key
    raise PrivacyError(
        f"no fingerprint key in {' or '.join(str(place) for place in places)}; one hospital makes it with "
        f"`openssl rand {MIN_KEY_BYTES} > {KEY_FILE}` and gives it to the other hospitals, not to the server"
    )


def mark_key(key: bytes) -> str:
    """What tells whether two hospitals have the same key, and nothing else of it."""
    return hmac.new(key, b"brats-fl fingerprint key 1", hashlib.sha256).hexdigest()[:16]


def check_key(key: bytes) -> None:
    """Raise ``PrivacyError`` where a key can be guessed: whoever guesses it can test which scans a hospital has."""
    if len(key) < MIN_KEY_BYTES:
        raise PrivacyError(
            f"the fingerprint key has {len(key)} bytes; it must have at least {MIN_KEY_BYTES} random ones: "
            f"make one with `openssl rand {MIN_KEY_BYTES}`"
        )
    if len(set(key)) < MIN_DISTINCT_BYTES:
        raise PrivacyError(
            f"the fingerprint key has only {len(set(key))} different bytes and is not random; make one with "
            f"`openssl rand {MIN_KEY_BYTES}`"
        )


def fingerprint_case(case: Case, key: bytes) -> tuple[str, ...]:
    """Fingerprints of a case's scans, 64 hexadecimal digits each, sorted so that they do not tell the modality.

    Two cases that share one of them share a scan.

    Args:
        case: The case; each of its files is read once.
        key: Secret of the hospitals.

    Raises:
        PrivacyError: The key is short or not random.
        CaseError: A scan cannot be read, or shows nothing; their grids differ.
    """
    check_key(key)
    fingerprints = []
    scans = dict(zip(MODALITIES, case.image, strict=True))
    for name, volume in read_volumes(case.case, scans):
        try:
            fingerprints.append(fingerprint_scan(volume.voxels, volume.grid.affine, key))
        except CaseError as error:
            raise CaseError(f"{case.case}: {name}: {error} ({scans[name]})") from None
    return tuple(sorted(fingerprints))


def fingerprint_scan(voxels: NDArray[Any], affine: NDArray[np.float64], key: bytes) -> str:
    """HMAC-SHA256 of ``describe_scan``, 64 hexadecimal digits; raises as ``check_key`` and ``describe_scan``."""
    check_key(key)
    return hmac.new(key, _PURPOSE + describe_scan(voxels, affine), hashlib.sha256).hexdigest()


def describe_scan(voxels: NDArray[Any], affine: NDArray[np.float64]) -> bytes:
    """What a scan shows, in ``BITS`` bits that are the same however it is saved.

    Each bit says which of two points, 14 mm apart, is brighter in the scan smoothed by 6 mm. The points lie around
    the brain's centre of mass; the mean is over brain only. A change of file format, data type, axis order, field of
    view, or of intensities by a linear map with a positive factor leaves the bits as they are.

    Args:
        voxels: (H, W, D), any real dtype, one value outside the brain.
        affine: (4, 4), voxel to mm.

    Raises:
        CaseError: There is no brain: fewer than 1 % of the voxels differ from the background, or one is not finite.
    """
    volume = Volume(voxels, Grid(voxels.shape, affine)).in_ras()
    brightness, count, step_mm = _sum_blocks(volume.voxels, volume.grid.spacing_mm)
    sigma = _SIGMA_MM / step_mm
    smooth = [ndimage.gaussian_filter(part, sigma, truncate=3, mode="constant") for part in (brightness, count)]
    mean = smooth[0] / np.maximum(smooth[1], 1e-3 * count.max())
    centre = np.asarray(ndimage.center_of_mass(count))
    points = centre[:, None, None] + _pairs().transpose(2, 0, 1) / step_mm[:, None, None]
    first, second = ndimage.map_coordinates(mean, points, order=1, mode="nearest").T
    return np.packbits(first > second).tobytes()


def _sum_blocks(
    volume: NDArray[Any], steps_mm: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Brightness above the background and number of brain voxels in blocks of about 4 mm, and their size in mm.

    Blocks are counted from the brain's centre of mass, so that a cropped or padded scan has the same ones.
    """
    factors = np.maximum(1, np.rint(_BLOCK_MM / steps_mm)).astype(int)
    background = background_of(volume)
    box, padding = _align_box(volume, background, factors)
    crop = volume[box]
    if np.any(padding):
        crop = np.pad(crop, padding, constant_values=background)
    if count_not_finite(crop):
        raise CaseError("holds NaN or infinite values; write the scan again")
    count = _add_up(crop != background, factors)
    # Blocks hold the background too, where they reach beyond the brain.
    brightness = _add_up(crop, factors) - background * float(np.prod(factors))
    return brightness, count, factors * steps_mm


def _align_box(
    volume: NDArray[Any], background: float, factors: NDArray[np.int_]
) -> tuple[tuple[slice, ...], list[tuple[int, int]]]:
    """Box around the brain and what to add before and after it, so that whole blocks meet at the centre of mass."""
    strides = np.maximum(1, factors // 2)  # every second voxel at 1 mm is enough to find the middle
    inside = volume[tuple(slice(None, None, int(stride)) for stride in strides)] != background
    box, padding = [], []
    for axis in range(3):
        marginal = np.count_nonzero(inside, axis=tuple(other for other in range(3) if other != axis))
        there = np.flatnonzero(marginal)
        if marginal.sum() < 0.01 * inside.size:
            raise CaseError("shows no brain: fewer than 1 % of its voxels differ from the background; replace the scan")
        stride, factor = int(strides[axis]), int(factors[axis])
        low = max(0, (int(there[0]) - 1) * stride)
        high = min(volume.shape[axis], (int(there[-1]) + 2) * stride)
        centre = round(float(np.arange(len(marginal)) @ marginal / marginal.sum() * stride))
        low -= (low - centre) % factor
        high += -(high - low) % factor
        box.append(slice(max(low, 0), high))
        padding.append((max(-low, 0), max(high - volume.shape[axis], 0)))
    return tuple(box), padding


def _add_up(volume: NDArray[Any], factors: NDArray[np.int_]) -> NDArray[np.float64]:
    """Sum of every block; the axes are multiples of the factors."""
    # 64 voxels of 16 bits add up without rounding in float32, which is twice as fast as float64.
    total: NDArray[Any] = volume
    for axis in (2, 1, 0):
        parts = np.moveaxis(total, axis, 0)
        total = parts[0 :: factors[axis]].astype(np.float32 if axis else np.float64)
        for start in range(1, factors[axis]):
            total += parts[start :: factors[axis]]
        total = np.moveaxis(total, 0, axis)
    return total


@lru_cache(maxsize=1)
def _pairs() -> NDArray[np.float64]:
    """Offsets from the centre of mass in mm, RAS, (BITS, 2, 3).

    From the fractions of multiples of square roots, spread evenly (a Kronecker sequence), and not from a random
    generator, whose numbers may change with a NumPy release: hospitals must get the same bits with any.
    """
    shares = np.arange(1, BITS + 1)[:, None] * np.sqrt([2, 3, 5, 7, 11]) % 1
    directions = _PAIR_MM / 2 * _on_sphere(shares[:, 0], shares[:, 1])
    # Uniform in a ball: a direction, and the cube root of a share of its volume.
    middles = np.cbrt(shares[:, 4:]) * _on_sphere(shares[:, 2], shares[:, 3]) * _REACH_MM
    return np.stack([middles - directions, middles + directions], axis=1)


def _on_sphere(height: NDArray[np.float64], turn: NDArray[np.float64]) -> NDArray[np.float64]:
    """Unit vectors (N, 3) from shares in [0, 1), uniform where the shares are."""
    z, angle = 2 * height - 1, 2 * np.pi * turn
    radius = np.sqrt(1 - z**2)
    return np.stack([radius * np.cos(angle), radius * np.sin(angle), z], axis=1)


def find_shared(of_site: Mapping[str, Iterable[str]]) -> dict[str, tuple[str, ...]]:
    """Fingerprint -> the sites that have it, sorted, of those that more than one site has."""
    sites: dict[str, set[str]] = defaultdict(set)
    for site, fingerprints in of_site.items():
        for fingerprint in fingerprints:
            sites[fingerprint].add(site)
    return {fingerprint: tuple(sorted(names)) for fingerprint, names in sites.items() if len(names) > 1}


def sites_with_another_key(marks: Mapping[str, str]) -> tuple[str, ...]:
    """Sites whose ``mark_key`` is not the most common one: their fingerprints can match nobody's."""
    if not marks:
        return ()
    common = Counter(sorted(marks.values())).most_common(1)[0][0]
    return tuple(sorted(site for site, mark in marks.items() if mark != common))
