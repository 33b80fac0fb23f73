"""Keys of a round: X25519 pairs, what two of them share by HKDF-SHA256, ChaCha20 streams and sealed messages.

All of it is the package ``cryptography``, which FLARE brings; it is imported where it is used, so that a job without
masks does not load it.

Source: RFC 7748 (X25519), RFC 5869 (HKDF), RFC 8439 (ChaCha20, and ChaCha20-Poly1305 for sealing).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from brats_fl.errors import MaskingError
from brats_fl.privacy.fixed_point import Words

KEY_BYTES: Final = 32

# A key seals one message or makes one stream and is never used again, so that its nonce may be the same each time.
_SEAL_NONCE: Final = bytes(12)
_STREAM_NONCE: Final = bytes(16)
"""Counter and nonce; the counter's 32 bits last for 256 GB."""


@dataclass(frozen=True)
class KeyPair:
    """An X25519 key, in the raw form of RFC 7748."""

    private: bytes
    public: bytes


def new_pair() -> KeyPair:
    """A fresh key."""
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

    private = X25519PrivateKey.generate()
    return KeyPair(private.private_bytes_raw(), private.public_key().public_bytes_raw())


def public_of(private: bytes) -> bytes:
    """The public key of a private one."""
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

    return X25519PrivateKey.from_private_bytes(private).public_key().public_bytes_raw()


def derive(secret: bytes, *purpose: str) -> bytes:
    """A key of 32 bytes for one purpose, from a secret.

    Args:
        secret: 32 bytes.
        purpose: Words that say what the key is for; no two purposes give the same key.
    """
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF

    info = b"".join(len(word.encode()).to_bytes(4, "big") + word.encode() for word in ("brats-fl", *purpose))
    return HKDF(algorithm=SHA256(), length=KEY_BYTES, salt=None, info=info).derive(secret)


def agree(private: bytes, public: bytes, *purpose: str) -> bytes:
    """A key that the owners of two pairs come to alike, and nobody else.

    Raises:
        MaskingError: The public key is none that an honest site can have.
    """
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

    try:
        shared = X25519PrivateKey.from_private_bytes(private).exchange(X25519PublicKey.from_public_bytes(public))
    except ValueError as error:  # of low order
        raise MaskingError(f"a public key cannot be used ({error})") from error
    return derive(shared, *purpose)


def stream(key: bytes, count: int) -> Words:
    """Pseudorandom words: ChaCha20 of a key that is used once."""
    from cryptography.hazmat.primitives.ciphers import Cipher
    from cryptography.hazmat.primitives.ciphers.algorithms import ChaCha20

    encryptor = Cipher(ChaCha20(key, _STREAM_NONCE), mode=None).encryptor()
    return np.frombuffer(encryptor.update(bytes(4 * count)), dtype="<u4").astype(np.uint32, copy=False)


def seal(key: bytes, message: bytes, bound_to: bytes) -> bytes:
    """A message that nobody but the key's owners reads or changes.

    Args:
        key: Used for this message only.
        message: What is sealed.
        bound_to: What the receiver must know alike for it to open.
    """
    from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

    return ChaCha20Poly1305(key).encrypt(_SEAL_NONCE, message, bound_to)


def unseal(key: bytes, sealed: bytes, bound_to: bytes) -> bytes:
    """What was sealed.

    Raises:
        MaskingError: Something was changed on the way, or was sealed for others.
    """
    from cryptography.exceptions import InvalidTag
    from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

    try:
        return ChaCha20Poly1305(key).decrypt(_SEAL_NONCE, sealed, bound_to)
    except InvalidTag as error:
        raise MaskingError("a sealed message does not open: it was changed on the way, or is for others") from error
