"""A stand-in for a hospital that trains: it answers at once, so that many rounds of many hospitals take minutes."""

from __future__ import annotations

import numpy as np
from nvflare.apis.dxo import DXO, DataKind, MetaKey, from_shareable
from nvflare.apis.executor import Executor
from nvflare.apis.fl_context import FLContext
from nvflare.apis.shareable import Shareable
from nvflare.apis.signal import Signal
from nvflare.app_common.app_constant import AppConstants

from brats_fl.components.exchange import payloads_of
from brats_fl.components.executor import STATISTICS
from brats_fl.constants import KEY_METRIC
from brats_fl.exchange import WEIGHTS

CHANGE = 1e-3
"""Deviation of the update's values, as of a round of training."""


class StandIn(Executor):
    """Sends random updates of the global model's form and size; all of the server's side is what it always is."""

    def execute(self, task_name: str, shareable: Shareable, fl_ctx: FLContext, abort_signal: Signal) -> Shareable:
        """An update of one case, or metrics."""
        metrics = {KEY_METRIC: 0.5}
        if task_name != AppConstants.TASK_TRAIN:
            return DXO(DataKind.METRICS, data=metrics).to_shareable()
        rng = np.random.default_rng(shareable.get_header(AppConstants.CURRENT_ROUND, 0))
        weights = payloads_of(from_shareable(shareable), DataKind.WEIGHTS)[WEIGHTS]
        update = {name: rng.normal(0, CHANGE, np.shape(value)).astype(np.float32) for name, value in weights.items()}
        meta = {MetaKey.NUM_STEPS_CURRENT_ROUND: 1, MetaKey.INITIAL_METRICS: metrics}
        meta[STATISTICS] = {"cases": 1, "steps": 1, "loss": 0.5, "seconds": 0.0}
        return DXO(DataKind.WEIGHT_DIFF, data=update, meta=meta).to_shareable()
