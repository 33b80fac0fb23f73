"""Which scans two hospitals have: keyed fingerprints go to the server, and a site hears of its own that came twice."""

from __future__ import annotations

import json
import math
import re
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nvflare.apis.client import Client
from nvflare.apis.controller_spec import Task
from nvflare.apis.dxo import DXO, DataKind, from_shareable
from nvflare.apis.executor import Executor
from nvflare.apis.fl_constant import ReturnCode
from nvflare.apis.fl_context import FLContext
from nvflare.apis.shareable import Shareable, make_reply
from nvflare.apis.signal import Signal
from nvflare.app_common.abstract.response_processor import ResponseProcessor
from nvflare.app_common.workflows.broadcast_and_process import BroadcastAndProcess

from brats_fl.cases.datalists import find_datalist, read_datalist
from brats_fl.components.bundle_location import check_code
from brats_fl.components.contract_in_force import refuse_unfiltered
from brats_fl.components.executor import ERROR_HEADER, failure
from brats_fl.constants import SPLITS
from brats_fl.errors import BratsFLError
from brats_fl.files import write_whole
from brats_fl.names import check_site_names
from brats_fl.privacy.budget import find_budget, refuse_unaccounted
from brats_fl.round_records import typed_status
from brats_fl.sharing.fingerprints import find_shared, fingerprint_case, mark_key, read_key, sites_with_another_key
from brats_fl.typed import typed

SHARED_FILE = "shared_scans.json"
"""At the server: how many scans which hospitals share. At a site, in the job's folder: which of its cases."""

TASK_FINGERPRINTS = "fingerprints"
TASK_SHARED = "shared_scans"


MOST_SCANS = 400_000
"""Of a hospital: as many as ``MOST_CASES`` have."""

_HASH = re.compile(r"[ -~]{1,64}")


@dataclass(frozen=True)
class SentFingerprints:
    """What a site sends."""

    key_mark: str
    fingerprints: list[str]

    def __post_init__(self) -> None:
        """Check the texts.

        Raises:
            ValueError: One is no hash, or there are more than any hospital has.
        """
        if len(self.fingerprints) > MOST_SCANS or not all(map(_HASH.fullmatch, (self.key_mark, *self.fingerprints))):
            raise ValueError("what was sent are no fingerprints")


class FingerprintMatcher(ResponseProcessor):
    """Collects the sites' fingerprints, and knows which of a site's another has, too."""

    def __init__(self) -> None:
        super().__init__()
        self.fingerprints: dict[str, list[str]] = {}
        self.marks: dict[str, str] = {}
        self.failed: dict[str, str] = {}

    def create_task_data(self, task_name: str, fl_ctx: FLContext) -> Shareable:
        """Nothing: what is broadcast goes to every site alike."""
        return DXO(DataKind.COLLECTION, data={}).to_shareable()

    def shared_with(self, site: str) -> Shareable:
        """What a site is told: those of its own fingerprints that others sent, too, and by whom; of others' nothing."""
        own = set(self.fingerprints[site])
        shared = {name: sites for name, sites in find_shared(self.fingerprints).items() if name in own}
        others = {name: [other for other in sites if other != site] for name, sites in shared.items()}
        return DXO(DataKind.COLLECTION, data={"shared": others}).to_shareable()

    def process_client_response(self, client: Client, task_name: str, response: Shareable, fl_ctx: FLContext) -> bool:
        """Take what a site sent; a site that failed does not end the job."""
        if response.get_return_code() != ReturnCode.OK:
            self.failed[client.name] = typed_status(response.get_header(ERROR_HEADER, response.get_return_code()))
        elif task_name == TASK_FINGERPRINTS:
            try:
                sent = typed(SentFingerprints, from_shareable(response).data)
            except Exception:  # FLARE's and ours: what a site sends may be anything
                self.failed[client.name] = "BAD_RESULT"
            else:
                self.fingerprints[client.name], self.marks[client.name] = sent.fingerprints, sent.key_mark
        return True

    def final_process(self, fl_ctx: FLContext) -> bool:
        """Write what is known so far; False, which ends the job, where fewer than two sites took part."""
        if len(self.fingerprints) < 2:
            self.log_error(fl_ctx, f"fewer than two hospitals sent fingerprints; the others: {self.failed}")
            return False
        others = sites_with_another_key(self.marks)
        status = {site: "OTHER_KEY" if site in others else "ok" for site in self.fingerprints} | self.failed
        together = Counter(find_shared(self.fingerprints).values())
        content = {
            "sites": {
                site: {"status": status[site], "scans": len(self.fingerprints.get(site, []))} for site in sorted(status)
            },
            "shared": [{"sites": list(sites), "scans": count} for sites, count in sorted(together.items())],
        }
        write_whole(run_folder(fl_ctx) / SHARED_FILE, json.dumps(content, indent=1) + "\n")
        return True


class SharedScansTeller(BroadcastAndProcess):
    """Tells each site that sent fingerprints which of its own another site has, and waits as ``BroadcastAndProcess``.

    FLARE broadcasts one payload to all sites, and a filter at the server could only go by the name that a site gives
    itself. So each site gets a task of its own, which the server hands out by the site's certificate.
    """

    def control_flow(self, abort_signal: Signal, fl_ctx: FLContext) -> None:
        """Send the tasks, wait for enough answers and then a while for the others."""
        tasks = [self._send(site, fl_ctx) for site in sorted(self.processor.fingerprints)]
        enough = min(self.min_responses_required or len(tasks), len(tasks))
        give_up_s = math.inf
        while waiting := [task for task in tasks if task.completion_status is None]:
            if abort_signal.triggered:
                return
            if len(tasks) - len(waiting) >= enough:
                give_up_s = min(give_up_s, time.monotonic() + self.wait_time_after_min_received)
            if time.monotonic() >= give_up_s:
                break
            time.sleep(self._task_check_period)
        for task in waiting:
            self.cancel_task(task, fl_ctx=fl_ctx)
        if not self.processor.final_process(fl_ctx):
            self.system_panic("the hospitals' answers cannot be written down", fl_ctx)

    def _send(self, site: str, fl_ctx: FLContext) -> Task:
        task = Task(
            name=self.task_name,
            data=self.processor.shared_with(site),
            timeout=self.timeout,
            result_received_cb=self._process_client_response,
        )
        self.send(task, fl_ctx, targets=[site])
        return task


class FingerprintExecutor(Executor):
    """Sends a site's fingerprints, and writes down at the site which of its cases another hospital has, too.

    Args:
        required_code: What must be installed where the job brings no code; see ``brats_fl.provenance``.
    """

    def __init__(self, required_code: Mapping[str, str] | None = None) -> None:
        super().__init__()
        self.required_code = required_code
        self.case_of: dict[str, str] = {}

    def execute(self, task_name: str, shareable: Shareable, fl_ctx: FLContext, abort_signal: Signal) -> Shareable:
        """Carry out a task; what goes wrong leaves the site as a code."""
        try:
            refuse_unfiltered(fl_ctx)
            check_code(self.required_code, fl_ctx)
            if task_name == TASK_FINGERPRINTS:
                return self._fingerprints(fl_ctx, abort_signal)
            if task_name == TASK_SHARED:
                return self._write_shared(from_shareable(shareable).data["shared"], fl_ctx)
            return make_reply(ReturnCode.TASK_UNKNOWN)
        except BratsFLError as error:
            text, code = str(error), error.code
        except Exception as error:
            text, code = repr(error), "EXECUTION_EXCEPTION"
        self.log_error(fl_ctx, f"{task_name} failed: {text}", fire_event=False)
        return failure(code)

    def _fingerprints(self, fl_ctx: FLContext, abort_signal: Signal) -> Shareable:
        kit = Path(fl_ctx.get_engine().get_workspace().get_root_dir())
        refuse_unaccounted(find_budget(fl_ctx.get_identity_name(), kit), "fingerprints of scans")
        key = read_key(kit)
        datalist = read_datalist(find_datalist(fl_ctx.get_identity_name(), kit))
        self.case_of = {}
        for case in (case for split in SPLITS for case in datalist.split(split)):
            if abort_signal.triggered:
                return make_reply(ReturnCode.TASK_ABORTED)
            self.case_of |= dict.fromkeys(fingerprint_case(case, key), case.case)
        data = {"key_mark": mark_key(key), "fingerprints": sorted(self.case_of)}
        return DXO(DataKind.COLLECTION, data=data).to_shareable()

    def _write_shared(self, shared: Mapping[str, Any], fl_ctx: FLContext) -> Shareable:
        also_at: dict[str, set[str]] = {}
        for fingerprint in sorted(set(shared) & set(self.case_of)):
            sites = typed(list[str], list(shared[fingerprint]))
            check_site_names(sites, "the server's answer")
            also_at.setdefault(self.case_of[fingerprint], set()).update(sites)
        found = {case: sorted(names) for case, names in sorted(also_at.items())}
        write_whole(run_folder(fl_ctx) / SHARED_FILE, json.dumps(found, indent=1) + "\n")
        for case, names in found.items():
            self.log_warning(fl_ctx, f"{case} is also at {', '.join(names)}: agree who keeps it", fire_event=False)
        return make_reply(ReturnCode.OK)


def run_folder(fl_ctx: FLContext) -> Path:
    """The job's folder in this process's workspace."""
    return Path(fl_ctx.get_engine().get_workspace().get_run_dir(fl_ctx.get_job_id()))
