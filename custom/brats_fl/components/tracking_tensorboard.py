"""Curves in TensorBoard's event files: FLARE's receiver, in the folder that a run shows. Needs ``tensorboard``."""

from __future__ import annotations

from nvflare.apis.fl_context import FLContext
from nvflare.apis.shareable import Shareable
from nvflare.app_opt.tracking.tb.tb_receiver import TBAnalyticsReceiver

from brats_fl.components.tracking import EVENT, tracking_folder


class TensorBoardReceiver(TBAnalyticsReceiver):
    """Writes ``tracking/SITE`` and ``tracking/mean``."""

    def __init__(self) -> None:
        super().__init__(events=[EVENT])

    def initialize(self, fl_ctx: FLContext) -> None:
        """Take the run's folder."""
        self.root_log_dir = str(tracking_folder(fl_ctx))

    def save(self, fl_ctx: FLContext, shareable: Shareable, record_origin: str) -> None:
        """Write a value so that it can be seen at once: TensorBoard's writer holds it back for up to two minutes."""
        super().save(fl_ctx, shareable, record_origin)
        self.writers_table[record_origin].flush()
