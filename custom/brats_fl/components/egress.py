"""The hospital's contract on what leaves, kept where a job has no say: a component that the site's own files add.

FLARE builds the components of ``local/privacy.json`` into every job's process, behind the job's own: this one sees a
reply after the executor and all filters, and what it refuses does not leave.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import datetime, timezone
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np
from nvflare.apis.dxo import DXO, DataKind, MetaKey, from_shareable
from nvflare.apis.event_type import EventType
from nvflare.apis.fl_component import FLComponent
from nvflare.apis.fl_constant import FLContextKey, ReturnCode
from nvflare.apis.fl_context import FLContext
from nvflare.apis.shareable import ReservedHeaderKey, Shareable
from nvflare.apis.workspace import Workspace
from nvflare.app_common.app_constant import AppConstants

from brats_fl.aggregation import is_count
from brats_fl.components.executor import ERROR_HEADER, STATISTICS
from brats_fl.errors import EgressError
from brats_fl.failures import DISK_FULL, is_disk_full
from brats_fl.files import locked
from brats_fl.numbers import is_finite
from brats_fl.reading import read_if_sound
from brats_fl.round_records import typed_status
from brats_fl.sharing.egress import (
    CONTRACT_FILE,
    DECIMALS,
    KINDS,
    LOG_FILE,
    Contract,
    Sent,
    read_contract,
    read_log,
    why_refused,
    write_log,
)

LOSS = "loss"
"""Of an update's statistics: told as the metrics are."""

Found = tuple[str, Any]
"""Name, and what has it."""


class EgressContract(FLComponent):
    """Lets out what the hospital's contract allows, and logs it; whatever goes wrong here, nothing leaves."""

    def __init__(self) -> None:
        super().__init__()
        self.round = 0

    def handle_event(self, event_type: str, fl_ctx: FLContext) -> None:
        """Look at each reply before it is sent."""
        if event_type == EventType.BEFORE_TASK_EXECUTION:
            data = fl_ctx.get_prop(FLContextKey.TASK_DATA)
            stated = data.get_header(AppConstants.CURRENT_ROUND) if isinstance(data, Shareable) else None
            self.round = stated if type(stated) is int and stated >= 0 else 0
        elif event_type == EventType.AFTER_TASK_RESULT_FILTER:
            reply = fl_ctx.get_prop(FLContextKey.TASK_RESULT)
            try:
                self._judge(reply, fl_ctx)
            except Exception as error:  # FLARE goes on with the reply, whatever an event's handler raises
                self._refuse(reply, f"{error}", fl_ctx, DISK_FULL if is_disk_full(error) else EgressError.code)

    def _judge(self, reply: Shareable, fl_ctx: FLContext) -> None:
        workspace: Workspace = fl_ctx.get_engine().get_workspace()
        local = Path(workspace.get_site_config_dir())
        if reply.get_return_code() not in (None, ReturnCode.OK):
            clean_failure(reply)
        contract = read_contract(local / CONTRACT_FILE)
        if contract is not None:
            soften_metrics(reply, contract)
        with locked(local / f".{LOG_FILE}.lock"):
            log = read_log(local / LOG_FILE) if contract is not None else []
            sent, names = describe(reply, self._started(workspace, fl_ctx))
            if contract is not None and sent.kind != "code" and (why := why_refused(contract, sent, names, log)):
                sent = replace(sent, status=EgressError.code, why=why)
            write_log(local / LOG_FILE, sent)
        if sent.why:
            self._refuse(reply, sent.why, fl_ctx)

    def _started(self, workspace: Workspace, fl_ctx: FLContext) -> Sent:
        """What is known of a reply before one looks at it."""
        job = str(fl_ctx.get_job_id())
        name = read_if_sound(Path(workspace.get_run_dir(job)) / "meta.json").get("name", "")
        time = datetime.now(timezone.utc).isoformat(timespec="seconds")
        task = str(fl_ctx.get_prop(FLContextKey.TASK_NAME))
        return Sent(time, job, str(name), self.round, task, KINDS.get(task, "other"))

    def _refuse(self, reply: Shareable, why: str, fl_ctx: FLContext, code: str = EgressError.code) -> None:
        """Put a code in the place of all that a reply holds."""
        self.log_error(fl_ctx, f"nothing was sent: {why}", fire_event=False)
        empty(reply, code)


def clean_failure(reply: Shareable) -> None:
    """Leave of a reply that is a failure its return code and the site's own code, if that is a word."""
    empty(reply, typed_status(reply.get_header(ERROR_HEADER, reply.get_return_code())), reply.get_return_code())


def empty(reply: Shareable, code: str, return_code: str = ReturnCode.EXECUTION_EXCEPTION) -> None:
    """Make of a reply one that holds nothing but codes."""
    reply.clear()
    reply[ReservedHeaderKey.HEADERS] = {}
    reply.set_return_code(return_code)
    reply.set_header(ERROR_HEADER, code)


def soften_metrics(reply: Shareable, contract: Contract) -> None:
    """Round the metrics and the loss of a reply, or take them out, as the contract says."""
    if contract.metrics == "exact" or reply.get_return_code() not in (None, ReturnCode.OK):
        return
    dxo = dxo_of(reply)
    if dxo is None:
        return
    if dxo.data_kind == DataKind.METRICS:
        dxo.data = softened(dxo.data, contract)
    if MetaKey.INITIAL_METRICS in dxo.meta:
        dxo.meta[MetaKey.INITIAL_METRICS] = softened(dxo.meta[MetaKey.INITIAL_METRICS], contract)
    if isinstance(stated := dxo.meta.get(STATISTICS), Mapping) and LOSS in stated:
        dxo.meta[STATISTICS] = {
            **{k: v for k, v in stated.items() if k != LOSS},
            **softened({LOSS: stated[LOSS]}, contract),
        }
    dxo.update_shareable(reply)


def softened(metrics: Mapping[str, Any], contract: Contract) -> dict[str, float]:
    """Metrics as they may go."""
    return {} if contract.metrics == "no" else {name: round(float(value), DECIMALS) for name, value in metrics.items()}


def dxo_of(reply: Shareable) -> DXO | None:
    """The DXO of a reply; None where it holds none."""
    try:
        return from_shareable(reply)
    except ValueError:
        return None


def describe(reply: Shareable, started: Sent) -> tuple[Sent, list[str]]:
    """What a reply holds, for the log, and the names of its arrays.

    Raises:
        EgressError: It holds something of which nobody can say what it is.
    """
    found = list(walk("", reply))
    arrays = [name for name, value in found if isinstance(value, np.ndarray)]
    size = sum(len(name.encode()) + bytes_of(value) for name, value in found)
    if reply.get_return_code() not in (None, ReturnCode.OK):
        return replace(started, kind="code", payloads=(str(reply.get_header(ERROR_HEADER)),), bytes=size), []
    dxo = dxo_of(reply)
    if dxo is None:
        return replace(started, arrays=len(arrays), bytes=size), arrays
    metrics = {**(dxo.data if dxo.data_kind == DataKind.METRICS else {}), **dxo.meta.get(MetaKey.INITIAL_METRICS, {})}
    stated = dxo.meta.get(STATISTICS, {})
    cases = dxo.meta.get(MetaKey.NUM_STEPS_CURRENT_ROUND, stated.get("cases") if isinstance(stated, Mapping) else None)
    is_collection = dxo.data_kind == DataKind.COLLECTION
    payloads = tuple(map(str, dxo.data)) if is_collection else (DataKind(dxo.data_kind).value,)
    seen = replace(started, payloads=payloads, arrays=len(arrays), bytes=size, metrics=tuple(map(str, metrics)))
    epsilon = stated.get("epsilon") if isinstance(stated, Mapping) else None
    seen = replace(seen, cases=int(cases) if is_count(cases) else None)
    return replace(seen, epsilon=float(epsilon) if is_finite(epsilon) else None), arrays


def walk(name: str, value: object) -> Iterator[Found]:
    """All values in a reply that hold no others, each with its name.

    Raises:
        EgressError: One is of a type that is no data.
    """
    if isinstance(value, Mapping):
        for key, part in value.items():
            yield from walk(str(key), part)
    elif isinstance(value, (list, tuple, set, frozenset)):
        for part in value:
            yield from walk(name, part)
    elif value is None or isinstance(value, (str, bytes, bool, int, float, np.ndarray, np.generic, Enum)):
        yield name, value
    elif hasattr(value, "__dict__"):
        yield from walk(name, vars(value))
    else:
        raise EgressError(f"{name}: a {type(value).__name__} is no data that may leave")


def bytes_of(value: object) -> int:
    """Bytes of a value: of an array and a text as they are, 8 of a number."""
    if isinstance(value, (np.ndarray, np.generic)):
        return value.nbytes
    if isinstance(value, (str, bytes)):
        return len(value.encode() if isinstance(value, str) else value)
    return 0 if value is None else 8
