"""A global model as its change since the one before: made by the server, added by a site to the model that it has."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from brats_fl.compression import Compressed, Compression, decompress
from brats_fl.digests import digest_of_model
from brats_fl.errors import ModelError
from brats_fl.exchange import Weights


@dataclass(frozen=True)
class ModelChange:
    """What a site that has the model ``base`` is sent in the place of ``model``."""

    base: str
    """Digest of the model that it is a change of."""
    model: str
    """Digest of what comes of it."""
    arrays: Compressed


@dataclass(frozen=True)
class HeldModel:
    """The model that a site was sent last."""

    weights: Weights

    @cached_property
    def digest(self) -> str:
        """By which the site states which model it has."""
        return digest_of_model(self.weights)

    def changed(self, base: object, model: object, arrays: Mapping[str, object], compression: Compression) -> HeldModel:
        """The model after a change that the server sent.

        Args:
            base: Digest of the model that it is a change of, as the server states it.
            model: Digest of what must come of it.
            arrays: The change, as it came.
            compression: Of the job.

        Raises:
            ModelError: It is the change of another model, no change of this network, or gives another model than the
                server has.
        """
        if base != self.digest:
            raise ModelError("the server sent the change of another model than this site has; the next one comes whole")
        change = decompress(arrays, self.weights, compression)
        held = HeldModel({name: value + change[name] for name, value in self.weights.items()})
        if model != held.digest:
            raise ModelError("the model with the server's change is not the server's to the bit; the next comes whole")
        return held
