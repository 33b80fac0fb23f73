"""Curves in MLflow: FLARE's receiver, one MLflow run a site and one for their mean. Needs ``mlflow-skinny``."""

from __future__ import annotations

import os

from nvflare.apis.analytix import AnalyticsDataType
from nvflare.apis.fl_constant import ReservedKey
from nvflare.apis.fl_context import FLContext
from nvflare.apis.job_def import JobMetaKey
from nvflare.apis.shareable import Shareable

from brats_fl.components.tracking import EVENT, tracking_folder

# MLflow tells its makers how it is used, and looks here when it is imported; a consortium's server tells nobody.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")

from mlflow.tracking.client import MlflowClient
from nvflare.app_opt.tracking.mlflow.mlflow_receiver import MLflowReceiver

STORE_FILE = "mlflow.db"


class MLflowSitesReceiver(MLflowReceiver):
    """Writes to an MLflow server, or else to ``tracking/mlflow.db``: MLflow has no other store of files any more.

    FLARE's own has an MLflow run for each site that is connected when the job starts, and loses the values of others.
    Here one begins with the first value of whoever has one, the mean of the sites included.

    Args:
        tracking_uri: Address of an MLflow server; empty for the file.
    """

    def __init__(self, tracking_uri: str = "") -> None:
        # Nothing is held back: a round has a few values, and whoever watches wants to see them.
        super().__init__(tracking_uri=tracking_uri or None, events=[EVENT], buffer_flush_time=0)

    def initialize(self, fl_ctx: FLContext) -> None:
        """Open the store; the experiment is called as the job."""
        # By a client of its own: mlflow.set_tracking_uri sets MLFLOW_TRACKING_URI for all that this process starts.
        self.client = MlflowClient(self.tracking_uri or f"sqlite:///{tracking_folder(fl_ctx).resolve() / STORE_FILE}")
        job = (fl_ctx.get_prop(ReservedKey.JOB_META) or {}).get(JobMetaKey.JOB_NAME, "brats-fl")
        known = self.client.get_experiment_by_name(job)
        self.experiment_id = known.experiment_id if known else self.client.create_experiment(job)

    def save(self, fl_ctx: FLContext, shareable: Shareable, record_origin: str) -> None:
        """Write a value."""
        if record_origin not in self.run_ids:
            self._begin_run(record_origin, fl_ctx)
        super().save(fl_ctx, shareable, record_origin)

    def _begin_run(self, name: str, fl_ctx: FLContext) -> None:
        run = self.client.create_run(self.experiment_id, run_name=name, tags={"job_id": fl_ctx.get_job_id()})
        self.mlflow_clients[name], self.run_ids[name] = self.client, run.info.run_id
        kinds = (AnalyticsDataType.METRICS, AnalyticsDataType.PARAMETERS, AnalyticsDataType.TAGS)
        self.buffer[name] = {kind: [] for kind in kinds}
