"""The server's ledger of a run, ``ledger.jsonl``: a line a round that anyone can check; see ``brats_fl.ledger``."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from nvflare.apis.dxo import DataKind
from nvflare.apis.event_type import EventType
from nvflare.apis.fl_component import FLComponent
from nvflare.apis.fl_constant import FLContextKey
from nvflare.apis.fl_context import FLContext
from nvflare.apis.shareable import Shareable
from nvflare.app_common.app_constant import AppConstants
from nvflare.app_common.app_event_type import AppEventType

from brats_fl.components.aggregator import global_weights
from brats_fl.components.bundle_location import app_root, locate_bundle
from brats_fl.components.exchange import payloads_of, read_dxo
from brats_fl.components.receipts import RECEIPT_HEADER, sent_in
from brats_fl.components.records import RECORD, RECORD_WRITTEN, run_folder
from brats_fl.digests import digest_of, digest_of_model
from brats_fl.kept_updates import UPDATES_FOLDER, keep_start, keep_update
from brats_fl.ledger import LEDGER_FILE, Kind, Line, Signed, Update, append, follow
from brats_fl.provenance import required_code
from brats_fl.reading import read_if_sound
from brats_fl.typed import NotTypedError, typed

SERVER_CONFIG = Path("config") / "config_fed_server.json"
FILTERS = ("task_data_filters", "task_result_filters")
OF_JOB = ("name", "content_hash", "study", "brats_fl_version")
"""What the job's own meta data say of it."""


class RunLedger(FLComponent):
    """Writes a line when the training starts, one when a round is done, and one when the job ends.

    It stands behind ``RoundRecords`` in the configuration: a line holds the round's records.

    Args:
        bundle: Name of the job's bundle.
        required_code: What must be installed where the job brings no code; see ``brats_fl.provenance``.
        head: Hash of the last line of the part of the run before this one; empty for the first part.
        keep_updates: Keep every accepted update, so that the models can be computed again.
    """

    def __init__(
        self,
        bundle: str,
        required_code: Mapping[str, str] | None = None,
        head: str = "",
        keep_updates: bool = False,
    ) -> None:
        super().__init__()
        self.keep_updates = keep_updates
        self.bundle = bundle
        self.required_code = required_code
        self.head = head
        self.last: Line | None = None
        self.path = Path(LEDGER_FILE)
        self.model = self.sent = self.change = ""
        self.invited: tuple[str, ...] = ()
        self.updates: dict[str, Update] = {}
        self.certificates: dict[str, str] = {}
        self.known_certificates: dict[str, str] = {}
        self.records: list[Mapping[str, Any]] = []
        self.has_started = False
        self.lock = threading.Lock()

    def handle_event(self, event_type: str, fl_ctx: FLContext) -> None:
        """Note what the event says, and write a line where one is due."""
        with self.lock:
            self._note(event_type, fl_ctx)

    def _note(self, event_type: str, fl_ctx: FLContext) -> None:
        if event_type == RECORD_WRITTEN:
            self.records.append(fl_ctx.get_prop(RECORD))
        elif event_type == AppEventType.TRAINING_STARTED:
            self._start(fl_ctx)
        elif event_type == AppEventType.ROUND_STARTED:
            self.updates, self.sent, self.change = {}, "", ""
            self.invited = tuple(sorted(client.name for client in fl_ctx.get_engine().get_clients()))
        elif event_type == AppEventType.BEFORE_TRAIN_TASK and not self.sent:  # each site gets the same
            self.sent = digest_of_result(fl_ctx.get_prop(AppConstants.TRAIN_SHAREABLE), DataKind.WEIGHTS)
        elif event_type == AppEventType.AFTER_CONTRIBUTION_ACCEPT:
            self._take_update(fl_ctx)
        elif event_type == AppEventType.AFTER_AGGREGATION:
            self.change = digest_of_result(fl_ctx.get_prop(AppConstants.AGGREGATION_RESULT), DataKind.WEIGHT_DIFF)
        elif event_type == AppEventType.ROUND_DONE:
            self._end_round(fl_ctx)
        elif event_type == EventType.END_RUN and self.has_started:
            self._write("end", records=self._take_records())

    def _start(self, fl_ctx: FLContext) -> None:
        """The first line of the job."""
        self.path, self.has_started = run_folder(fl_ctx) / LEDGER_FILE, True
        self.model = digest_of_model(global_weights(fl_ctx))
        if self.keep_updates and not self.head:
            keep_start(self.path.parent / UPDATES_FOLDER, global_weights(fl_ctx))
        config = read_if_sound(app_root(fl_ctx) / SERVER_CONFIG)
        meta = fl_ctx.get_prop(FLContextKey.JOB_META) or {}
        stated = {key: str(meta[key]) for key in OF_JOB if isinstance(meta.get(key), str)}
        self._write(
            "start",
            job={"id": str(fl_ctx.get_job_id()), **stated},
            code=required_code(locate_bundle(self.bundle, self.required_code, fl_ctx)),
            settings={key: value for key, value in config.items() if key not in ("workflows", "components", *FILTERS)},
            filters={key: config[key] for key in FILTERS if config.get(key)},
            model=self.model,
        )

    def _take_update(self, fl_ctx: FLContext) -> None:
        if not fl_ctx.get_prop(AppConstants.AGGREGATION_ACCEPTED):
            return
        result, peer = fl_ctx.get_prop(AppConstants.TRAINING_RESULT), fl_ctx.get_peer_context()
        update, certificate = update_of(result)
        site = str(peer.get_identity_name())
        self.updates[site] = update
        if self.keep_updates:
            number = int(fl_ctx.get_prop(AppConstants.CURRENT_ROUND))
            keep_update(self.path.parent / UPDATES_FOLDER, number, site, sent_in(read_dxo(result)))
        if certificate and self.known_certificates.get(site) != certificate:
            self.known_certificates[site] = self.certificates[site] = certificate

    def _end_round(self, fl_ctx: FLContext) -> None:
        self.model = digest_of_model(global_weights(fl_ctx))
        self._write(
            "round",
            round=int(fl_ctx.get_prop(AppConstants.CURRENT_ROUND)),
            invited=self.invited,
            sent=self.sent,
            updates=dict(sorted(self.updates.items())),
            certificates=dict(sorted(self.certificates.items())),
            change=self.change,
            model=self.model,
            records=self._take_records(),
        )
        self.certificates = {}

    def _take_records(self) -> tuple[Mapping[str, Any], ...]:
        records, self.records = tuple(self.records), []
        return records

    def _write(self, kind: Kind, **fields: Any) -> None:
        time = datetime.now(timezone.utc).isoformat(timespec="seconds")
        self.last = Line(kind, **follow(self.last, self.head), time=time, **fields)
        append(self.path, self.last)


def digest_of_result(result: Shareable, kind: str) -> str:
    """Digest of all payloads of a message."""
    return digest_of(payloads_of(read_dxo(result), kind))


def update_of(result: Shareable) -> tuple[Update, str]:
    """An accepted update's digest with the site's receipt, and the certificate of it; no receipt where it is none."""
    digest = digest_of(sent_in(read_dxo(result)))
    try:
        signed = typed(Signed, result.get_header(RECEIPT_HEADER))
    except NotTypedError:  # without certificates, or nonsense: not signed
        return Update(digest), ""
    return Update(digest, signed.receipt, signed.signature), signed.certificate
