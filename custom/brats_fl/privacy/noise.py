"""Numbers that nobody can foresee: the draws and the noise of private training.

They come from the operating system's entropy and not from the job's seed. The seed stands in the job, and the server
has it: who can compute the noise takes it off, and who knows which patients were drawn loses what sampling gains. So a
round of a private job is never the same twice, where all other jobs are deterministic; that is the point of it. The
stream is ChaCha20's, so that what has been seen of it tells nothing of the rest, which does not hold for the generators
of NumPy and PyTorch.
"""

from __future__ import annotations

import secrets
from typing import Final

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import ChaCha20
from numpy.typing import NDArray

KEY_BYTES: Final = 32
NONCE_BYTES: Final = 16


def secret_seed() -> int:
    """A seed of 32 bits for generators that take no better one, such as those of patches and augmentation."""
    return secrets.randbits(32)


def secret_uniform(count: int) -> NDArray[np.float64]:
    """Independent numbers, uniform in the open interval (0, 1), (count,); a new key each time."""
    key, nonce = secrets.token_bytes(KEY_BYTES), secrets.token_bytes(NONCE_BYTES)
    stream = Cipher(ChaCha20(key, nonce), mode=None).encryptor().update(bytes(8 * count))
    words = np.frombuffer(stream, np.uint64) >> np.uint64(11)  # 53 bits, as many as a double holds
    return (words.astype(np.float64) + 0.5) * np.float64(2.0**-53)


def secret_normal(count: int) -> NDArray[np.float64]:
    """Independent standard normal numbers, (count,).

    Source: Box and Muller 1958, doi:10.1214/aoms/1177706645. In floating point the largest of them is 8.6, where a
    true normal number passes that once in 10^17 draws, and the lowest bits show which of them are possible
    (Mironov 2012, doi:10.1145/2382196.2382264); ``docs/privacy.md`` says what that means.
    """
    half = (count + 1) // 2
    radius, turn = np.sqrt(-2 * np.log(secret_uniform(half))), 2 * np.pi * secret_uniform(half)
    return np.concatenate([radius * np.cos(turn), radius * np.sin(turn)])[:count]
