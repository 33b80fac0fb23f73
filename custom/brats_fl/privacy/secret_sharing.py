"""Shamir's secret sharing: a secret in n shares, of which any t give it back and t - 1 say nothing of it.

It is arithmetic and no cipher, 40 lines of Lagrange over a prime field, and so it is here: the kept library that has
it (pycryptodome) shares 16 bytes at a time, has no way to tell a false share, and would be one more package at every
hospital. Coefficients come from the operating system's generator.

Source: Shamir 1979, "How to Share a Secret", doi:10.1145/359168.359176.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping, Sequence
from itertools import combinations, islice
from typing import Final

from brats_fl.errors import MaskingError

PRIME: Final = 2**256 + 297
"""The smallest prime above 2^256: every secret of 32 bytes is an element of its field."""

SECRET_BYTES: Final = 32
SHARE_BYTES: Final = 33

MOST_TRIES: Final = 1000
"""Sets of shares that are tried for one that gives the right secret; of 10 with 7 needed there are 120."""


def split(secret: bytes, threshold: int, points: Sequence[int]) -> dict[int, int]:
    """A share for each point: the value there of a random polynomial of degree ``threshold`` - 1, the secret at 0.

    Args:
        secret: 32 bytes.
        threshold: Shares that give the secret back.
        points: Different whole numbers above 0.

    Raises:
        ValueError: The threshold is not 1 to the number of points, the secret not 32 bytes, or a point not its own.
    """
    if len(secret) != SECRET_BYTES:
        raise ValueError(f"secret must be {SECRET_BYTES} bytes (got {len(secret)})")
    if not 1 <= threshold <= len(points):
        raise ValueError(f"threshold must be 1 to {len(points)}, the shares (got {threshold})")
    if len(set(points)) != len(points) or not all(0 < point < PRIME for point in points):
        raise ValueError(f"points must be different whole numbers above 0 (got {list(points)[:10]})")
    coefficients = [int.from_bytes(secret, "big"), *(secrets.randbelow(PRIME) for _ in range(threshold - 1))]
    return {point: _polynomial(coefficients, point) for point in points}


def _polynomial(coefficients: Sequence[int], point: int) -> int:
    value = 0
    for coefficient in reversed(coefficients):
        value = (value * point + coefficient) % PRIME
    return value


def interpolate(shares: Mapping[int, int], at: int) -> int:
    """Value at a point of the polynomial of lowest degree through the shares, modulo the prime."""
    value = 0
    for point, share in shares.items():
        above, below = 1, 1
        for other in shares:
            if other != point:
                above = above * (at - other) % PRIME
                below = below * (point - other) % PRIME
        value += share * above * pow(below, -1, PRIME)
    return value % PRIME


def combine(
    shares: Mapping[int, int], threshold: int, is_right: Callable[[bytes], bool]
) -> tuple[bytes, frozenset[int]]:
    """The secret, and the points whose share is false.

    Args:
        shares: Point -> share, not trusted.
        threshold: Shares that give the secret.
        is_right: Whether a secret is the one that was shared: it is checked against what was published before.

    Raises:
        MaskingError: There are too few shares, or too many of them are false.
    """
    if len(shares) < threshold:
        raise MaskingError(f"{len(shares)} shares of a secret came, {threshold} are needed")
    for points in islice(combinations(sorted(shares), threshold), MOST_TRIES):
        chosen = {point: shares[point] for point in points}
        number = interpolate(chosen, 0)
        if number < 2 ** (8 * SECRET_BYTES) and is_right(secret := number.to_bytes(SECRET_BYTES, "big")):
            return secret, frozenset(point for point in shares if interpolate(chosen, point) != shares[point])
    raise MaskingError(f"no {threshold} of the {len(shares)} shares of a secret give the one that was shared")
