"""Curves for FLARE's trackers, made at the server of what it receives anyway: for them, nothing more leaves a site."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from pathlib import Path

from nvflare.apis.analytix import ANALYTIC_EVENT_TYPE, AnalyticsDataType
from nvflare.apis.event_type import EventType
from nvflare.apis.fl_constant import EventScope, FedEventHeader, FLContextKey, ReservedKey
from nvflare.apis.fl_context import FLContext
from nvflare.apis.utils.analytix_utils import create_analytic_dxo
from nvflare.app_common.app_constant import AppConstants
from nvflare.app_common.app_event_type import AppEventType
from nvflare.app_common.widgets.convert_to_fed_event import FED_EVENT_PREFIX
from nvflare.widgets.widget import Widget

from brats_fl.components.records import RECORD, RECORD_WRITTEN
from brats_fl.tracking import MEAN, TRACKING_FOLDER, TRACKING_VARIABLE, mean_values, tracked_values

EVENT = FED_EVENT_PREFIX + ANALYTIC_EVENT_TYPE
"""What FLARE's receivers listen to: analytics of a site, as if the site had sent them."""


class RoundTracker(Widget):
    """Turns round records into FLARE's analytics events: a value of a curve each, of a site or of the sites' mean."""

    def __init__(self) -> None:
        super().__init__()
        self.lock = threading.Lock()
        self.accepted: dict[str, dict[str, Mapping[str, float]]] = {}

    def handle_event(self, event_type: str, fl_ctx: FLContext) -> None:
        """Track a record that was written, and the mean when all of its round are there."""
        if event_type == AppEventType.ROUND_STARTED:
            self._take("train")
        elif event_type == RECORD_WRITTEN:
            self._track_record(fl_ctx)
        elif event_type == AppEventType.ROUND_DONE:
            self._track_mean("train", int(fl_ctx.get_prop(AppConstants.CURRENT_ROUND)), fl_ctx)
        elif event_type == EventType.ABOUT_TO_END_RUN:
            self._track_mean("final", int(fl_ctx.get_prop(AppConstants.CURRENT_ROUND, 0)) + 1, fl_ctx)

    def _take(self, phase: str) -> dict[str, Mapping[str, float]]:
        with self.lock:
            return self.accepted.pop(phase, {})

    def _track_mean(self, phase: str, step: int, fl_ctx: FLContext) -> None:
        self._track(MEAN, mean_values(self._take(phase)), step, fl_ctx)

    def _track_record(self, fl_ctx: FLContext) -> None:
        record = fl_ctx.get_prop(RECORD)
        values = tracked_values(record)
        if values:
            with self.lock:
                self.accepted.setdefault(record["phase"], {})[record["site"]] = values
            self._track(record["site"], values, record["round"], fl_ctx)

    def _track(self, origin: str, values: Mapping[str, float], step: int, fl_ctx: FLContext) -> None:
        engine = fl_ctx.get_engine()
        for name, value in values.items():
            data = create_analytic_dxo(name, value, AnalyticsDataType.SCALAR, global_step=step).to_shareable()
            data.set_peer_props({ReservedKey.IDENTITY_NAME: origin})
            # An event that came in: one that goes out would be sent to every site.
            data.set_header(FedEventHeader.DIRECTION, "in")
            with engine.new_context() as own_ctx:
                own_ctx.set_prop(FLContextKey.EVENT_DATA, data, private=True, sticky=False)
                own_ctx.set_prop(FLContextKey.EVENT_SCOPE, EventScope.FEDERATION, private=True, sticky=False)
                engine.fire_event(EVENT, own_ctx)


def tracking_folder(fl_ctx: FLContext) -> Path:
    """Folder that a tracker writes: ``$BRATS_FL_TRACKING``, else ``tracking`` of the server's run."""
    run = Path(fl_ctx.get_engine().get_workspace().get_run_dir(fl_ctx.get_job_id()))
    folder = Path(os.environ.get(TRACKING_VARIABLE) or run / TRACKING_FOLDER)
    folder.mkdir(parents=True, exist_ok=True)
    return folder
