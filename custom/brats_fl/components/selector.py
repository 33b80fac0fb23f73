"""The server's choice of the best model: ``brats_fl.best_model`` over the updates that were accepted."""

from __future__ import annotations

from statistics import fmean

from nvflare.apis.dxo import MetaKey
from nvflare.apis.fl_context import FLContext
from nvflare.app_common.app_constant import AppConstants
from nvflare.app_common.app_event_type import AppEventType
from nvflare.widgets.widget import Widget

from brats_fl.best_model import vote
from brats_fl.components.exchange import read_dxo


class BestModelSelector(Widget):
    """Says when the model that a round began with is the best so far; the persistor then keeps it.

    FLARE's own ``IntimeModelSelector`` counts metrics before the update is accepted, whatever number they are. A job's
    first model is rated like the others unless it has random weights: a given one that training only makes worse stays
    the best.

    Args:
        start_from: Checkpoint in the job that the first model is; empty for random weights.
    """

    def __init__(self, start_from: str = "") -> None:
        super().__init__()
        self.start_from = start_from
        self.best = -1.0
        self.votes: dict[str, float] = {}

    def handle_event(self, event_type: str, fl_ctx: FLContext) -> None:
        """Collect votes, and count them before the round's updates are averaged."""
        if event_type == AppEventType.ROUND_STARTED:
            self.votes = {}
        elif event_type == AppEventType.AFTER_CONTRIBUTION_ACCEPT:
            self._collect(fl_ctx)
        elif event_type == AppEventType.BEFORE_AGGREGATION:
            self._count(fl_ctx)

    def _collect(self, fl_ctx: FLContext) -> None:
        peer = fl_ctx.get_peer_context()
        if peer is None or not fl_ctx.get_prop(AppConstants.AGGREGATION_ACCEPTED):
            return
        metrics = read_dxo(fl_ctx.get_prop(AppConstants.TRAINING_RESULT)).get_meta_prop(MetaKey.INITIAL_METRICS)
        value = vote(metrics)
        if value is not None:
            self.votes[peer.get_identity_name()] = value

    def _count(self, fl_ctx: FLContext) -> None:
        round_index = int(fl_ctx.get_prop(AppConstants.CURRENT_ROUND))
        is_random = round_index == 0 and not self.start_from
        if not self.votes or is_random:
            return
        mean = fmean(self.votes.values())
        if mean >= self.best:  # among equals the latest
            self.best = mean
            self.log_info(fl_ctx, f"the model that round {round_index} began with is the best so far: {mean:.4f}")
            self.fire_event(AppEventType.GLOBAL_BEST_MODEL_AVAILABLE, fl_ctx)
