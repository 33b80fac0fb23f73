"""Named payloads as FLARE sends them: one DXO where there are weights alone, else a collection of one for each.

With weights alone the messages are FLARE's usual ones, which its own filters and aggregators understand; a collection's
parts pass through its filters one by one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nvflare.apis.dxo import DXO, DataKind, from_shareable
from nvflare.apis.fl_context import FLContext
from nvflare.apis.shareable import Shareable
from nvflare.app_common.abstract.model import ModelLearnable, ModelLearnableKey
from nvflare.app_common.shareablegenerators.full_model_shareable_generator import FullModelShareableGenerator

from brats_fl.errors import ModelError
from brats_fl.exchange import WEIGHTS, Payloads


def as_dxo(payloads: Payloads, kind: str, meta: Mapping[str, Any] | None = None) -> DXO:
    """Payloads as a DXO.

    Args:
        payloads: ``weights`` at least.
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
    """

    def __init__(self, aggregator_id: str) -> None:
        super().__init__()
        self.aggregator_id = aggregator_id

    def learnable_to_shareable(self, model_learnable: ModelLearnable, fl_ctx: FLContext) -> Shareable:
        """The model and the algorithm's payloads, for a site."""
        aggregator = fl_ctx.get_engine().get_component(self.aggregator_id)
        payloads = {WEIGHTS: model_learnable[ModelLearnableKey.WEIGHTS], **aggregator.broadcast(fl_ctx)}
        return as_dxo(payloads, DataKind.WEIGHTS).to_shareable()


def read_dxo(result: Shareable) -> DXO:
    """What a site sent; empty where it is no DXO, so that a line is written all the same."""
    try:
        dxo = from_shareable(result)
    except Exception:  # FLARE raises what it runs into, and a site may send anything
        dxo = None
    is_sound = dxo is not None and isinstance(dxo.meta, dict) and isinstance(dxo.data_kind, str)
    return dxo if is_sound else DXO(DataKind.APP_DEFINED, data={})
