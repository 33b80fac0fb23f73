"""One digest of a model, of an update, of a JSON value: who compares two of them asks here for both."""

from __future__ import annotations

import hashlib
import json

import numpy as np

from brats_fl.exchange import WEIGHTS, Payloads, Weights


def digest_of(payloads: Payloads) -> str:
    """SHA-256 over names, dtypes, shapes and bytes of all arrays, in the order of their names."""
    digest = hashlib.sha256()
    for name in sorted(payloads):
        for key in sorted(payloads[name]):
            array = np.asarray(payloads[name][key])
            little = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
            digest.update(canonical([name, key, little.dtype.str, list(array.shape)]) + b"\n")
            digest.update(little.reshape(-1).view(np.uint8).data)  # no copy of it
    return digest.hexdigest()


def digest_of_model(weights: Weights) -> str:
    """Digest of a model: of its weights alone."""
    return digest_of({WEIGHTS: weights})


def canonical(content: object) -> bytes:
    """The one way to write a value: keys in order, no spaces, no NaN."""
    return json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False).encode()
