"""Named payloads as FLARE sends them: one DXO where there are weights alone, else a collection of one for each.

With weights alone the messages are FLARE's usual ones, which its own filters and aggregators understand; a collection's
parts pass through its filters one by one.

Where a job compresses, a site says which model it has with every request, in a public property of its context, and a
model leaves the server as its change since that one; see ``brats_fl.compression``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy.typing as npt
from nvflare.apis.dxo import DXO, DataKind, from_shareable
from nvflare.apis.event_type import EventType
from nvflare.apis.fl_constant import FLContextKey
from nvflare.apis.fl_context import FLContext
from nvflare.apis.shareable import Shareable
from nvflare.app_common.abstract.model import ModelLearnable, ModelLearnableKey
from nvflare.app_common.app_constant import AppConstants
from nvflare.app_common.shareablegenerators.full_model_shareable_generator import FullModelShareableGenerator

from brats_fl.compression import check_compression, compress, decompress
from brats_fl.digests import digest_of_model
from brats_fl.errors import ModelError
from brats_fl.exchange import WEIGHTS, Weights
from brats_fl.model_change import ModelChange

HELD = "brats_fl_held_model"
"""Public property of a site's context: digest of the model that it has; empty for none."""

BASE, MODEL = "brats_fl_base", "brats_fl_model"
"""Of what is said of a change: digests of the model that it is a change of, and of the one that comes of it."""


def as_dxo(
    payloads: Mapping[str, Mapping[str, npt.NDArray[Any]]], kind: str, meta: Mapping[str, Any] | None = None
) -> DXO:
    """Payloads as a DXO.

    Args:
        payloads: ``weights`` at least; compressed or not.
        kind: Data kind of the weights: WEIGHTS to a site, WEIGHT_DIFF to the server.
        meta: What is said of them.
    """
    parts = {
        name: DXO(kind if name == WEIGHTS else DataKind.WEIGHTS, data=dict(arrays)) for name, arrays in payloads.items()
    }
    dxo = parts[WEIGHTS] if len(parts) == 1 else DXO(DataKind.COLLECTION, data=parts)
    for key, value in (meta or {}).items():
        dxo.set_meta_prop(key, value)
    return dxo


def payloads_of(dxo: DXO, kind: str) -> dict[str, Any]:
    """Payload -> its arrays, as they came: nothing in them is checked yet.

    Raises:
        ModelError: There are no weights, they are of another kind, or a part is no DXO.
    """
    parts = dxo.data if dxo.data_kind == DataKind.COLLECTION else {WEIGHTS: dxo}
    if not isinstance(parts, Mapping) or not all(isinstance(part, DXO) for part in parts.values()):
        raise ModelError("it is no collection of named payloads")
    if WEIGHTS not in parts or parts[WEIGHTS].data_kind != kind:
        found = parts[WEIGHTS].data_kind if WEIGHTS in parts else "none"
        raise ModelError(f"its weights are of kind {found}, expected {kind}")
    if not all(isinstance(part.data, Mapping) for part in parts.values()):
        raise ModelError("a payload holds no named arrays")
    return {str(name): part.data for name, part in parts.items()}


class PayloadGenerator(FullModelShareableGenerator):
    """FLARE's generator of what is sent, with what the algorithm sends beside the weights.

    Args:
        aggregator_id: Id of the ``AlgorithmAggregator``, which knows it.
        compression: ``none``, ``float16`` or ``int8``: how a model travels to a site that has the one before.
    """

    def __init__(self, aggregator_id: str, compression: str = "none") -> None:
        super().__init__()
        self.aggregator_id = aggregator_id
        self.compression = check_compression(compression)
        self.change: ModelChange | None = None

    def handle_event(self, event_type: str, fl_ctx: FLContext) -> None:
        """Put the change in the place of a model that is about to be sent to a site that has the one before.

        FLARE's broadcast has one message for all sites; here it has been copied for one of them.
        """
        if event_type == EventType.BEFORE_TASK_DATA_FILTER and self.change is not None:
            peer = fl_ctx.get_peer_context()
            if peer is not None and peer.get_prop(HELD) == self.change.base:
                send_change(fl_ctx.get_prop(FLContextKey.TASK_DATA), self.change)

    def learnable_to_shareable(self, model_learnable: ModelLearnable, fl_ctx: FLContext) -> Shareable:
        """The model and the algorithm's payloads, for a site."""
        aggregator = fl_ctx.get_engine().get_component(self.aggregator_id)
        payloads = {WEIGHTS: model_learnable[ModelLearnableKey.WEIGHTS], **aggregator.broadcast(fl_ctx)}
        return as_dxo(payloads, DataKind.WEIGHTS).to_shareable()

    def shareable_to_learnable(self, shareable: Shareable, fl_ctx: FLContext) -> ModelLearnable:
        """The model with the algorithm's change, as that arrives at the sites."""
        if self.compression == "none":
            return super().shareable_to_learnable(shareable, fl_ctx)
        before: Weights = fl_ctx.get_prop(AppConstants.GLOBAL_MODEL)[ModelLearnableKey.WEIGHTS]
        base, dxo = digest_of_model(before), from_shareable(shareable)
        arrays = compress(dxo.data, self.compression)
        dxo.data = dict(decompress(arrays, before, self.compression))
        learnable = super().shareable_to_learnable(dxo.to_shareable(), fl_ctx)
        self.change = ModelChange(base, digest_of_model(learnable[ModelLearnableKey.WEIGHTS]), arrays)
        return learnable


def send_change(message: object, change: ModelChange) -> None:
    """Make of a message that holds the model which a change leads to one with the change; others stay as they are."""
    try:
        dxo = from_shareable(message)
        payloads = payloads_of(dxo, DataKind.WEIGHTS)
    except (ModelError, ValueError, TypeError):  # another task's
        return
    if digest_of_model(payloads[WEIGHTS]) == change.model:
        said = {**dxo.meta, BASE: change.base, MODEL: change.model}
        as_dxo({**payloads, WEIGHTS: change.arrays}, DataKind.WEIGHT_DIFF, said).update_shareable(message)


def read_dxo(result: Shareable) -> DXO:
    """What a site sent; empty where it is no DXO, so that a line is written all the same."""
    try:
        dxo = from_shareable(result)
    except Exception:  # FLARE raises what it runs into, and a site may send anything
        dxo = None
    is_sound = dxo is not None and isinstance(dxo.meta, dict) and isinstance(dxo.data_kind, str)
    return dxo if is_sound else DXO(DataKind.APP_DEFINED, data={})
