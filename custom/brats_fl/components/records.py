"""Round records: what each site contributed to each round, a line each in ``rounds.jsonl`` at the server."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from nvflare.apis.dxo import DXO, DataKind, MetaKey
from nvflare.apis.event_type import EventType
from nvflare.apis.fl_component import FLComponent
from nvflare.apis.fl_constant import FLContextKey, ReturnCode
from nvflare.apis.fl_context import FLContext
from nvflare.apis.shareable import Shareable
from nvflare.app_common.app_constant import AppConstants
from nvflare.app_common.app_event_type import AppEventType

from brats_fl.components.aggregator import MEAN, REJECTION
from brats_fl.components.exchange import read_dxo
from brats_fl.components.executor import ERROR_HEADER, STATISTICS
from brats_fl.components.statistics import EPSILON_HEADER
from brats_fl.files import append_line, write_whole
from brats_fl.machine import MACHINE_FILE, describe_machine
from brats_fl.round_records import (
    MEAN_PHASE,
    PHASES,
    RECORDS_COMMAND,
    RECORDS_FILE,
    RECORDS_PER_ANSWER,
    SERVER,
    typed_statement,
    typed_status,
)

RECORD_WRITTEN = "brats_fl_record_written"
"""Event at the server: a line has been added to ``rounds.jsonl``."""

RECORD = "brats_fl_record"
"""Context property of that event: the line."""


ANSWER_TAKEN = "brats_fl_answer_taken"
"""Event at the server: a controller of ours has judged a site's answer."""

ANSWER = "brats_fl_answer"
"""Its data: ``phase``, ``site``, ``status`` and ``facts``, as they are to be recorded."""


class RoundRecords(FLComponent):
    """Appends a line when a site's result arrives, and one for each site that is missing when a round ends.

    Each line is an event at the server as well, for whoever follows the rounds there, and the lead may ask for those
    that are new. What the server is lies beside them in ``machine.json``; of the sites' machines nothing is asked.
    """

    def __init__(self) -> None:
        super().__init__()
        self.bytes_down: dict[str, int] = {}
        self.seen: set[str] = set()
        self.answered: set[str] = set()
        self.lines: list[dict[str, Any]] = []
        self.lock = threading.Lock()

    def handle_event(self, event_type: str, fl_ctx: FLContext) -> None:
        """Record what the event says."""
        if event_type == EventType.START_RUN:
            write_whole(run_folder(fl_ctx) / MACHINE_FILE, json.dumps(describe_machine(), indent=1) + "\n")
            fl_ctx.get_engine().register_app_command(RECORDS_COMMAND, self.tell)
        elif event_type == AppEventType.ROUND_STARTED:
            self.answered = set()
        elif event_type == EventType.AFTER_TASK_DATA_FILTER:
            self._note_sent(fl_ctx)
        elif event_type == AppEventType.AFTER_CONTRIBUTION_ACCEPT:
            self._record_contribution(fl_ctx)
        elif event_type == EventType.BEFORE_PROCESS_SUBMISSION:
            self._record_failure(fl_ctx)
            self._record_release(fl_ctx)
        elif event_type == AppEventType.AFTER_AGGREGATION:
            self._record_mean(fl_ctx)
        elif event_type == AppEventType.ROUND_DONE:
            self._record_missing(fl_ctx)
        elif event_type == ANSWER_TAKEN:
            answer = fl_ctx.get_prop(ANSWER)
            self._write(fl_ctx, answer["phase"], answer["status"], answer["facts"], answer["site"])
        elif event_type == AppEventType.VALIDATION_RESULT_RECEIVED:
            self._record_final(fl_ctx)

    def tell(self, topic: str, asked: object, fl_ctx: FLContext) -> dict[str, Any]:
        """The lines from number ``asked["from"]`` on, else from the first; ``RECORDS_PER_ANSWER`` at most."""
        start = asked.get("from") if isinstance(asked, Mapping) else None
        start = start if isinstance(start, int) and start > 0 else 0
        with self.lock:
            return {"records": self.lines[start : start + RECORDS_PER_ANSWER]}

    def _note_sent(self, fl_ctx: FLContext) -> None:
        """Bytes of the model as this site gets it: after all filters, whole or as its change."""
        if fl_ctx.get_prop(FLContextKey.TASK_NAME) == AppConstants.TASK_TRAIN:
            self.bytes_down[site_of(fl_ctx)] = size_in_bytes(read_dxo(fl_ctx.get_prop(FLContextKey.TASK_DATA)))

    def _record_contribution(self, fl_ctx: FLContext) -> None:
        result = fl_ctx.get_prop(AppConstants.TRAINING_RESULT)
        accepted = fl_ctx.get_prop(AppConstants.AGGREGATION_ACCEPTED)
        dxo = read_dxo(result)
        status = "ok" if accepted else fl_ctx.get_prop(REJECTION, "BAD_UPDATE")
        facts = stated_facts(dxo.get_meta_prop(STATISTICS), dxo.get_meta_prop(MetaKey.INITIAL_METRICS))
        sizes = {"bytes_down": self.bytes_down.get(site_of(fl_ctx), 0), "bytes_up": size_in_bytes(dxo)}
        self._write(fl_ctx, "train", status, {**facts, **sizes})

    def _record_failure(self, fl_ctx: FLContext) -> None:
        result = fl_ctx.get_prop(FLContextKey.TASK_RESULT)
        if not isinstance(result, Shareable) or result.get_return_code() in (None, ReturnCode.OK):
            return
        task = str(fl_ctx.get_prop(FLContextKey.TASK_NAME))
        phase = PHASES.get(task, task)
        self._write(fl_ctx, phase, typed_status(result.get_header(ERROR_HEADER, result.get_return_code())), {})

    def _record_mean(self, fl_ctx: FLContext) -> None:
        facts = fl_ctx.get_prop(MEAN)
        if facts:
            self._write(fl_ctx, MEAN_PHASE, facts["status"], facts, SERVER)

    def _record_release(self, fl_ctx: FLContext) -> None:
        """A line, once a site, on how much noise is in the statistics that it released."""
        result = fl_ctx.get_prop(FLContextKey.TASK_RESULT)
        epsilon = result.get_header(EPSILON_HEADER) if isinstance(result, Shareable) else None
        peer = fl_ctx.get_peer_context()
        if not isinstance(epsilon, float) or not 0 < epsilon < float("inf") or peer.get_identity_name() in self.seen:
            return
        self._write(fl_ctx, "statistics", "ok", {"epsilon": epsilon})

    def _record_missing(self, fl_ctx: FLContext) -> None:
        sites = self.seen | {client.name for client in fl_ctx.get_engine().get_clients()}
        for site in sorted(sites - self.answered):
            self._write(fl_ctx, "train", "missing", {}, site)

    def _record_final(self, fl_ctx: FLContext) -> None:
        result = fl_ctx.get_prop(AppConstants.VALIDATION_RESULT)
        if result.get_return_code() not in (None, ReturnCode.OK):
            return  # recorded when it arrived
        dxo = read_dxo(result)
        self._write(fl_ctx, "final", "ok", stated_facts(dxo.get_meta_prop(STATISTICS), dxo.data))

    def _write(
        self, fl_ctx: FLContext, phase: str, status: str, facts: Mapping[str, Any], site: str | None = None
    ) -> None:
        site = site_of(fl_ctx) if site is None else site
        round_index = int(fl_ctx.get_prop(AppConstants.CURRENT_ROUND, 0)) + (1 if phase == "final" else 0)
        line = {"phase": phase, "round": round_index, "site": site, "status": status} | dict(facts)
        path = run_folder(fl_ctx) / RECORDS_FILE
        with self.lock:
            if phase != MEAN_PHASE:
                self.seen.add(site)
                self.answered.add(site)
            self.lines.append(line)
            append_line(path, json.dumps(line))
        self.fire_event_with_data(RECORD_WRITTEN, fl_ctx, RECORD, line)


def site_of(fl_ctx: FLContext) -> str:
    """Whom a message came from, or is for."""
    peer = fl_ctx.get_peer_context()
    return str(peer.get_identity_name() if peer else fl_ctx.get_prop(AppConstants.DATA_CLIENT))


def stated_facts(stated: object, metrics: object) -> dict[str, Any]:
    """What a site stated, typed, with the number of entries that were dropped where there are some."""
    facts, dropped = typed_statement(stated, {} if metrics is None else metrics)
    return facts | ({"dropped": dropped} if dropped else {})


def run_folder(fl_ctx: FLContext) -> Path:
    """What the server keeps of the job."""
    return Path(fl_ctx.get_engine().get_workspace().get_run_dir(fl_ctx.get_job_id()))


def size_in_bytes(dxo: DXO) -> int:
    """Bytes of the arrays of all payloads."""
    is_collection = dxo.data_kind == DataKind.COLLECTION and isinstance(dxo.data, Mapping)
    parts = dxo.data.values() if is_collection else [dxo]
    named = [part.data for part in parts if isinstance(part, DXO) and isinstance(part.data, Mapping)]
    return sum(array.nbytes for arrays in named for array in arrays.values() if isinstance(array, np.ndarray))
