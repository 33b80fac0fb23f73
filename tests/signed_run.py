"""A run folder with a ledger: two rounds of two hospitals with real kits, by the components, without a network."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from nvflare.apis.dxo import DXO, DataKind, MetaKey
from nvflare.apis.event_type import EventType
from nvflare.apis.fl_constant import FLContextKey
from nvflare.apis.fl_context import FLContext
from nvflare.apis.shareable import Shareable
from nvflare.app_common.abstract.model import make_model_learnable
from nvflare.app_common.app_constant import AppConstants
from nvflare.app_common.app_event_type import AppEventType
from nvflare.fuel.utils import fobs
from tests.flare import JOB, Engine, as_sent
from tests.tiny_kits import TinyKits

from brats_fl.components.aggregator import MEAN
from brats_fl.components.executor import STATISTICS
from brats_fl.components.ledger import RunLedger
from brats_fl.components.receipts import add_receipt
from brats_fl.components.records import RoundRecords
from brats_fl.exchange import WEIGHTS
from brats_fl_tools.jobs.assembly import JobOptions, build_job
from brats_fl_tools.jobs.built import BuiltJob
from brats_fl_tools.jobs.source import SERVER_CONFIG
from brats_fl_tools.kit.kits import Kit
from brats_fl_tools.runs.collect import FLARE_BEST, FLARE_FINAL, collect
from brats_fl_tools.runs.folder import JOB_FOLDER
from brats_fl_tools.runs.submission import Submission

CASES = {"hospital-1": 3, "hospital-2": 1}
SITES = tuple(CASES)
CHANGE = 2.5
"""What plain averaging makes of the updates 3 and 1 of sites with 3 cases and 1: (3 x 3 + 1 x 1) / 4."""

Weights = Mapping[str, np.ndarray]


def model(value: float) -> dict[str, np.ndarray]:
    return {"w": np.full((2, 3), value, np.float32), "a.bias": np.array([value], np.float32)}


@dataclass
class ServerOfTwo:
    """The server's components of one job, told what FLARE would tell them."""

    engine: Engine
    job: BuiltJob
    kits: Mapping[str, Kit]
    head: str = ""
    keep_updates: bool = False

    def __post_init__(self) -> None:
        self.engine.components = [
            RoundRecords(),
            RunLedger("brats_unet", head=self.head, keep_updates=self.keep_updates),
        ]
        config = self.files / "app_server" / "config"
        config.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(self.job.folder / SERVER_CONFIG, config / SERVER_CONFIG.name)
        with self.engine.new_context() as fl_ctx:
            fl_ctx.set_prop(FLContextKey.JOB_META, {"name": self.job.name}, private=True, sticky=True)

    @property
    def files(self) -> Path:
        """What the server keeps of the job."""
        return Path(self.engine.workspace.get_run_dir(self.engine.job))

    def tell(self, event: str, peer: str | None = None, **props: Any) -> None:
        fl_ctx = self.engine.new_context(peer)
        for key, value in props.items():
            fl_ctx.set_prop(key, value, private=True, sticky=False)
        self.engine.fire_event(event, fl_ctx)

    def set_model(self, value: float, number: int) -> None:
        fl_ctx: FLContext = self.engine.new_context()
        fl_ctx.set_prop(AppConstants.GLOBAL_MODEL, make_model_learnable(model(value), {}), private=True, sticky=True)
        fl_ctx.set_prop(AppConstants.CURRENT_ROUND, number, private=True, sticky=True)

    def begin(self, value: float, number: int = 0) -> None:
        self.set_model(value, number)
        self.tell(AppEventType.TRAINING_STARTED)

    def round(self, number: int, value: float) -> None:
        """A round in which the model becomes ``value`` + ``CHANGE``."""
        self.set_model(value, number)
        self.tell(AppEventType.ROUND_STARTED)
        sent = DXO(DataKind.WEIGHTS, data=model(value)).to_shareable()
        self.tell(AppEventType.BEFORE_TRAIN_TASK, **{AppConstants.TRAIN_SHAREABLE: sent})
        for site in SITES:
            result = update(site, model(value), number, self.kits.get(site), self.engine.job)
            accepted = {AppConstants.TRAINING_RESULT: result, AppConstants.AGGREGATION_ACCEPTED: True}
            self.tell(AppEventType.AFTER_CONTRIBUTION_ACCEPT, site, **accepted)
        change = DXO(DataKind.WEIGHT_DIFF, data=model(CHANGE)).to_shareable()
        shares = {"hospital-1": 0.75, "hospital-2": 0.25}
        facts = {AppConstants.AGGREGATION_RESULT: change, MEAN: {"status": "ok", "shares": shares}}
        self.tell(AppEventType.AFTER_AGGREGATION, **facts)
        self.set_model(value + CHANGE, number)
        self.tell(AppEventType.ROUND_DONE)

    def end(self, value: float, rounds_done: int) -> None:
        self.tell(EventType.END_RUN)
        state = {name: torch.from_numpy(array) for name, array in model(value).items()}
        torch.save({"model": state, "rounds_done": rounds_done}, self.files / "app_server" / FLARE_FINAL)
        torch.save({"model": state, "rounds_done": rounds_done}, self.files / "app_server" / FLARE_BEST)


def update(site: str, received: Weights, number: int, kit: Kit | None, job: str = JOB) -> Shareable:
    """An update as it arrives, with the receipt of a site that has a kit."""
    meta = {MetaKey.NUM_STEPS_CURRENT_ROUND: CASES[site], STATISTICS: {"cases": CASES[site], "steps": 2, "loss": 0.5}}
    result = DXO(DataKind.WEIGHT_DIFF, data=model(CASES[site]), meta=meta).to_shareable()
    if kit:
        with Engine(kit.folder, site, job=job).new_context() as fl_ctx:
            add_receipt(result, {WEIGHTS: received}, number, fl_ctx)
        shutil.rmtree(kit.folder / job)
    sent: Shareable = fobs.loads(as_sent(result))
    return sent


def make_signed_run(folder: Path, kits: TinyKits | None, keep_updates: bool = False) -> Path:
    """Run folder of two rounds, from a model of 1.0 to one of 6.0; without kits nothing is signed."""
    run = folder / "run"
    job = build_job("brats_unet_fedavg", run / JOB_FOLDER, JobOptions("small", 2, sites=SITES))
    by_site = {kit.name: kit for kit in kits.federation.clients} if kits else {}
    server = ServerOfTwo(Engine(folder / "server", "server", SITES), job, by_site, keep_updates=keep_updates)
    server.begin(1.0)
    server.round(0, 1.0)
    server.round(1, 3.5)
    server.end(6.0, 2)
    lead = str(kits.federation.admins[0].folder) if kits else ""
    submission = Submission(job.name, job.name, "2026-02-01T10:00:00+00:00", kit=lead, facts={"lists": {"a": "00"}})
    collect(run, server.files, job, submission, 1.0, {})
    return run
