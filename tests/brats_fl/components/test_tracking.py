"""Curves by FLARE's own receivers, from round records to files, and back by TensorBoard's and MLflow's readers."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from nvflare.apis.dxo import DXO, DataKind, MetaKey
from nvflare.apis.event_type import EventType
from nvflare.apis.fl_component import FLComponent
from nvflare.apis.fl_context import FLContext
from nvflare.apis.shareable import Shareable
from nvflare.app_common.app_constant import AppConstants
from nvflare.app_common.app_event_type import AppEventType
from nvflare.widgets.fed_event import ServerFedEventRunner
from tests.flare import JOB, Engine
from tests.tracked_curves import Curves, read_event_files, read_store

from brats_fl.components.executor import STATISTICS
from brats_fl.components.records import RoundRecords
from brats_fl.components.tracking import EVENT, RoundTracker
from brats_fl.tracking import TRACKING_VARIABLE

UNTRACKED = {"cases": 3, "steps": 2, "train_seconds": 1.0}


def server(root: Path, *receivers: FLComponent) -> Engine:
    """A server with two sites, whose receivers come before the tracker, as they may in a job."""
    engine = Engine(root, "server", clients=("hospital-1", "hospital-2"))
    engine.components = [*receivers, RoundRecords(), RoundTracker()]
    engine.fire_event(EventType.START_RUN, engine.new_context())
    return engine


def begin_round(engine: Engine, number: int) -> FLContext:
    """FLARE's controller begins a round."""
    fl_ctx = engine.new_context()
    fl_ctx.set_prop(AppConstants.CURRENT_ROUND, number, private=True, sticky=True)
    engine.fire_event(AppEventType.ROUND_STARTED, fl_ctx)
    return fl_ctx


def contribute(engine: Engine, site: str, loss: Any, dice: float, accepted: bool = True) -> None:
    """A site's update arrives and is accepted, or not."""
    meta = {
        STATISTICS: {"loss": loss, "seconds": 2.0, **UNTRACKED},
        MetaKey.INITIAL_METRICS: {"val_mean_dice": dice, "val_dice_tc": dice},
    }
    update = DXO(DataKind.WEIGHT_DIFF, data={"w": np.zeros(3, np.float32)}, meta=meta).to_shareable()
    facts = {AppConstants.TRAINING_RESULT: update, AppConstants.AGGREGATION_ACCEPTED: accepted}
    engine.fire_event(AppEventType.AFTER_CONTRIBUTION_ACCEPT, context(engine, site, facts))


def evaluate(engine: Engine, site: str, dice: float) -> None:
    """A site's evaluation of the final model arrives."""
    result = DXO(DataKind.METRICS, data={"val_mean_dice": dice, "val_dice_tc": dice}, meta={STATISTICS: UNTRACKED})
    facts = {AppConstants.VALIDATION_RESULT: result.to_shareable(), AppConstants.DATA_CLIENT: site}
    engine.fire_event(AppEventType.VALIDATION_RESULT_RECEIVED, context(engine, None, facts))


def context(engine: Engine, peer: str | None, facts: Mapping[str, Any]) -> FLContext:
    fl_ctx = engine.new_context(peer)
    for key, value in facts.items():
        fl_ctx.set_prop(key, value, private=True, sticky=False)
    return fl_ctx


def run_two_rounds(engine: Engine) -> None:
    """Both sites in round 0, one of them and a refused update in round 1, both at the end."""
    fl_ctx = begin_round(engine, 0)
    contribute(engine, "hospital-1", 1.0, 0.25)
    contribute(engine, "hospital-2", 2.0, 0.5)
    engine.fire_event(AppEventType.ROUND_DONE, fl_ctx)
    fl_ctx = begin_round(engine, 1)
    contribute(engine, "hospital-1", 0.5, 0.5)
    contribute(engine, "hospital-2", float("nan"), 1.0, accepted=False)
    engine.fire_event(AppEventType.ROUND_DONE, fl_ctx)
    evaluate(engine, "hospital-1", 0.75)
    evaluate(engine, "hospital-2", 0.25)
    for event in (EventType.ABOUT_TO_END_RUN, EventType.END_RUN):
        engine.fire_event(event, engine.new_context())


EXPECTED: Curves = {
    "hospital-1": {
        "loss": [(0, 1.0), (1, 0.5)],
        "seconds": [(0, 2.0), (1, 2.0)],
        "val_mean_dice": [(0, 0.25), (1, 0.5), (2, 0.75)],
        "val_dice_tc": [(0, 0.25), (1, 0.5), (2, 0.75)],
    },
    "hospital-2": {
        "loss": [(0, 2.0)],
        "seconds": [(0, 2.0)],
        "val_mean_dice": [(0, 0.5), (2, 0.25)],
        "val_dice_tc": [(0, 0.5), (2, 0.25)],
    },
    "mean": {
        "loss": [(0, 1.5), (1, 0.5)],
        "seconds": [(0, 2.0), (1, 2.0)],
        "val_mean_dice": [(0, 0.375), (1, 0.5), (2, 0.5)],
        "val_dice_tc": [(0, 0.375), (1, 0.5), (2, 0.5)],
    },
}


def tensorboard_receiver() -> FLComponent:
    pytest.importorskip("tensorboard", reason="not installed: tensorboard (`pip install 'brats-fl[tracking]'`)")
    from brats_fl.components.tracking_tensorboard import TensorBoardReceiver

    return TensorBoardReceiver()


def mlflow_receiver(**settings: str) -> FLComponent:
    pytest.importorskip("mlflow", reason="not installed: mlflow-skinny (`pip install 'brats-fl[tracking]'`)")
    from brats_fl.components.tracking_mlflow import MLflowSitesReceiver

    return MLflowSitesReceiver(**settings)


def test_tensorboard_shows_the_curves_of_each_site_and_their_mean(tmp_path: Path):
    run_two_rounds(server(tmp_path, tensorboard_receiver()))

    assert read_event_files(tmp_path / JOB / "tracking") == EXPECTED


def test_tensorboard_shows_a_round_as_soon_as_it_is_done(tmp_path: Path):
    engine = server(tmp_path, tensorboard_receiver())

    fl_ctx = begin_round(engine, 0)
    contribute(engine, "hospital-1", 1.0, 0.25)
    engine.fire_event(AppEventType.ROUND_DONE, fl_ctx)

    assert {site: curves["loss"] for site, curves in read_event_files(tmp_path / JOB / "tracking").items()} == {
        "hospital-1": [(0, 1.0)],
        "mean": [(0, 1.0)],
    }
    engine.fire_event(EventType.END_RUN, engine.new_context())


@pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning")  # MLflow, with SQLAlchemy 2.1
def test_mlflow_has_a_run_of_each_site_and_of_their_mean_in_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    variables = dict(os.environ)

    run_two_rounds(server(tmp_path, mlflow_receiver()))

    assert read_store(tmp_path / JOB / "tracking" / "mlflow.db") == EXPECTED
    assert not (tmp_path / "mlruns").exists()
    assert dict(os.environ) == variables  # no store for what else this machine records with MLflow


@pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning")
def test_mlflow_writes_to_the_address_that_it_is_given(tmp_path: Path):
    run_two_rounds(server(tmp_path, mlflow_receiver(tracking_uri=f"sqlite:///{tmp_path / 'elsewhere.db'}")))

    assert read_store(tmp_path / "elsewhere.db") == EXPECTED
    assert not (tmp_path / JOB / "tracking").exists()


def test_mlflow_does_not_tell_its_makers():
    mlflow_receiver()
    telemetry = pytest.importorskip("mlflow.telemetry.utils")

    assert telemetry.is_telemetry_disabled()


def test_curves_go_to_the_folder_that_the_environment_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(TRACKING_VARIABLE, str(tmp_path / "run" / "tracking"))

    run_two_rounds(server(tmp_path, tensorboard_receiver()))

    assert read_event_files(tmp_path / "run" / "tracking") == EXPECTED
    assert not (tmp_path / JOB / "tracking").exists()


def test_round_that_was_not_finished_has_no_mean(tmp_path: Path):
    engine = server(tmp_path, tensorboard_receiver())
    begin_round(engine, 0)
    contribute(engine, "hospital-1", 1.0, 0.25)

    for event in (EventType.ABOUT_TO_END_RUN, EventType.END_RUN):
        engine.fire_event(event, engine.new_context())

    assert set(read_event_files(tmp_path / JOB / "tracking")) == {"hospital-1"}


class NotedFedEvents(ServerFedEventRunner):
    """FLARE's sender of events to the sites; notes what it would send."""

    def __init__(self) -> None:
        super().__init__()
        self.sent: list[Shareable] = []

    def fire_and_forget_request(self, request: Shareable, *_: Any, **__: Any) -> None:
        self.sent.append(request)


def test_curves_are_not_sent_to_the_sites(tmp_path: Path):
    sender = NotedFedEvents()
    engine = Engine(tmp_path, "server", clients=("hospital-1",))
    engine.components = [sender, RoundRecords(), RoundTracker()]
    fl_ctx = begin_round(engine, 0)
    contribute(engine, "hospital-1", 1.0, 0.25)
    engine.fire_event(AppEventType.ROUND_DONE, fl_ctx)

    events = [data for name, data in engine.events if name == EVENT]
    assert len(events) == 8  # loss, seconds, two Dice: of the site, and of the mean
    assert sender.sent == []

    RoundTracker().fire_fed_event(EVENT, DXO(DataKind.ANALYTIC, data={"a": 1}).to_shareable(), engine.new_context())
    assert len(sender.sent) == 1, "an event that goes out is sent"
