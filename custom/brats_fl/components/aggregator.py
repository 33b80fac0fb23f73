"""The server's aggregator: the exact mean of the updates that pass, weighted by training cases."""

from __future__ import annotations

import threading

from nvflare.apis.dxo import DXO, DataKind, MetaKey, from_shareable
from nvflare.apis.fl_context import FLContext
from nvflare.apis.shareable import Shareable
from nvflare.app_common.abstract.aggregator import Aggregator
from nvflare.app_common.abstract.model import ModelLearnableKey
from nvflare.app_common.app_constant import AppConstants

from brats_fl.aggregation import WeightedMean, check_size, check_update
from brats_fl.errors import LateUpdateError, ModelError

REJECTION = "brats_fl_rejection"
"""Property of the FL context: why the last contribution was not accepted, for the round records."""


class WeightedAggregator(Aggregator):
    """Accepts an update that fits the global model, is finite, of this round and states its cases.

    Args:
        min_accepted: Fewest updates that make a round; fewer end the job rather than average too little.
        max_update_ratio: Largest L2 norm of an update, as a multiple of the global model's. It keeps out what a broken
            site sends, not what a hostile one does.
    """

    def __init__(self, min_accepted: int, max_update_ratio: float) -> None:
        super().__init__()
        if not max_update_ratio > 0:
            raise ValueError(f"max_update_ratio must be > 0 (got {max_update_ratio})")
        self.max_update_ratio = max_update_ratio
        if min_accepted < 1:
            raise ValueError(f"min_accepted must be >= 1 (got {min_accepted})")
        self.min_accepted = min_accepted
        self.mean = WeightedMean()
        self.accepted: set[str] = set()
        self.lock = threading.Lock()

    def accept(self, shareable: Shareable, fl_ctx: FLContext) -> bool:
        """Add an update to the mean; False, with the reason logged and recorded, where it does not pass."""
        peer = fl_ctx.get_peer_context()
        site = peer.get_identity_name() if peer else "?"
        try:
            with self.lock:
                self._add(site, shareable, fl_ctx)
        except (ModelError, ValueError, TypeError) as error:  # what a site sends is not to be trusted
            self.log_error(fl_ctx, f"update of {site} is not accepted: {error}")
            fl_ctx.set_prop(REJECTION, getattr(error, "code", "BAD_UPDATE"), private=True, sticky=False)
            return False
        return True

    def _add(self, site: str, shareable: Shareable, fl_ctx: FLContext) -> None:
        dxo = from_shareable(shareable)
        current = fl_ctx.get_prop(AppConstants.CURRENT_ROUND)
        contributed = shareable.get_cookie(AppConstants.CONTRIBUTION_ROUND)
        if contributed != current:
            raise LateUpdateError(f"it belongs to round {contributed}, this is round {current}")
        if dxo.data_kind != DataKind.WEIGHT_DIFF:
            raise ModelError(f"it is of kind {dxo.data_kind}, expected {DataKind.WEIGHT_DIFF}")
        if site in self.accepted:
            raise ModelError("the site has contributed to this round already")
        model = fl_ctx.get_prop(AppConstants.GLOBAL_MODEL)[ModelLearnableKey.WEIGHTS]
        check_update(dxo.data, model)
        check_size(dxo.data, model, self.max_update_ratio)
        cases = dxo.get_meta_prop(MetaKey.NUM_STEPS_CURRENT_ROUND)
        if cases is None:
            raise ModelError("it does not state its number of training cases")
        self.mean.add(dxo.data, cases)
        self.accepted.add(site)

    def aggregate(self, fl_ctx: FLContext) -> Shareable:
        """The weighted mean as a weight difference.

        Raises:
            ModelError: Fewer than ``min_accepted`` updates were accepted.
        """
        with self.lock:
            if len(self.accepted) < self.min_accepted:
                raise ModelError(
                    f"{len(self.accepted)} of the {self.min_accepted} updates that a round needs were accepted "
                    f"({', '.join(sorted(self.accepted)) or 'none'}); see rounds.jsonl for the others"
                )
            mean = self.mean.result()
        return DXO(DataKind.WEIGHT_DIFF, data=mean).to_shareable()

    def reset(self, fl_ctx: FLContext) -> None:
        """Begin the next round."""
        with self.lock:
            self.mean = WeightedMean()
            self.accepted = set()
