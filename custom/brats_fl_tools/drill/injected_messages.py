"""What runs inside a broken job process: metrics that are none, releases that are none, messages to other houses."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from nvflare.apis.dxo import MetaKey, from_shareable
from nvflare.apis.event_type import EventType
from nvflare.apis.fl_constant import ReturnCode
from nvflare.apis.fl_context import FLContext
from nvflare.apis.shareable import Shareable
from nvflare.app_common.app_constant import StatisticsConstants
from nvflare.fuel.f3.cellnet.defs import MessageHeaderKey
from nvflare.fuel.utils import fobs
from nvflare.private.admin_defs import Message
from nvflare.private.defs import CellChannel, new_cell_message

from brats_fl.privacy.keys import new_pair
from brats_fl.privacy.messages import TASK_SHARES
from brats_fl_tools.drill.injected import CANARY, METRICS

TOLD_FILE: Final = "told.json"
"""In the job's folder: request -> return code and text of what another house answered."""

ANSWER_SECONDS: Final = 10.0


def break_job(plan: Mapping[str, Any]) -> None:
    """Break this process as ``injected.break_process`` says."""
    if kinds := plan.get("metrics"):
        _send_metrics(kinds)
    if asked := plan.get("ask"):
        _ask_at_start(asked["site"], asked["requests"])
    if plan.get("release"):
        _release_nonsense()
    if swapped := plan.get("swap_key"):
        _swap_key(swapped)
    if rounds := plan.get("reveal"):
        _reveal_falsely(rounds)


def _send_metrics(kinds: Mapping[str, str]) -> None:
    from brats_fl.components.executor import BratsExecutor

    honest = BratsExecutor._update

    def update(self: Any, task: Any, result: Any, fl_ctx: FLContext) -> Shareable:
        dxo = from_shareable(honest(self, task, result, fl_ctx))
        if kind := kinds.get(str(task.round_index)):
            dxo.set_meta_prop(MetaKey.INITIAL_METRICS, METRICS[kind])
        return dxo.to_shareable()

    BratsExecutor._update = update  # type: ignore[method-assign]


def _ask_at_start(site: str, requests: Mapping[str, tuple[str, str]]) -> None:
    """Have the job's own component, at a site or at the server, ask another site when the job begins.

    Args:
        site: Whom.
        requests: Name -> topic and body of an admin message.
    """
    from brats_fl.components.executor import BratsExecutor
    from brats_fl.components.records import RoundRecords

    for component in (BratsExecutor, RoundRecords):
        honest = component.handle_event

        def handle_event(self: Any, event_type: str, fl_ctx: FLContext, honest: Any = honest) -> None:
            honest(self, event_type, fl_ctx)
            if event_type == EventType.START_RUN:
                _ask(site, requests, fl_ctx)

        component.handle_event = handle_event  # type: ignore[method-assign]


def _ask(site: str, requests: Mapping[str, tuple[str, str]], fl_ctx: FLContext) -> None:
    engine, told = fl_ctx.get_engine(), {}
    for name, (topic, body) in requests.items():
        request = new_cell_message({}, Message(topic, body))
        reply = engine.get_cell().send_request(CellChannel.CLIENT_MAIN, topic, site, request, ANSWER_SECONDS)
        code = reply.get_header(MessageHeaderKey.RETURN_CODE)
        told[name] = [code, str(getattr(reply.payload, "body", ""))]
    folder = Path(engine.get_workspace().get_run_dir(fl_ctx.get_job_id()))
    (folder / TOLD_FILE).write_text(json.dumps(told), encoding="utf-8")


def _release_nonsense() -> None:
    """Have a hospital's part of the federated statistics be none: each statistic is another of ``RELEASES``."""
    from brats_fl.components.statistics import SiteStatisticsExecutor

    honest = SiteStatisticsExecutor.execute

    def execute(self: Any, task_name: str, shareable: Shareable, fl_ctx: FLContext, abort_signal: Any) -> Shareable:
        answer = honest(self, task_name, shareable, fl_ctx, abort_signal)
        task = shareable.get(StatisticsConstants.STATISTICS_TASK_KEY)
        if task and answer.get_return_code() == ReturnCode.OK:
            dxo = from_shareable(answer)
            told = fobs.loads(dxo.data[task])
            values = itertools.cycle(RELEASES)
            dxo.data[task] = fobs.dumps({name: put_in(part, next(values)) for name, part in told.items()})
            dxo.update_shareable(answer)
        return answer

    SiteStatisticsExecutor.execute = execute  # type: ignore[method-assign]


def put_in(told: Mapping[str, Mapping[str, Any]], value: Any) -> dict[str, dict[str, Any]]:
    """Data set -> feature -> the value, in place of what was told."""
    return {dataset: dict.fromkeys(features, value) for dataset, features in told.items()}


RELEASES: Final = (CANARY, [CANARY] * 10, 1.7e308)


def _swap_key(swapped: Mapping[str, str]) -> None:
    """Have the server tell all sites a key of its own as that of one of them.

    Args:
        swapped: Round -> site.
    """
    from brats_fl.components.secure_aggregation import SecureScatterAndGather

    honest = SecureScatterAndGather._ask

    def ask(
        self: Any,
        task_name: str,
        number: int,
        content: Any,
        sites: Any,
        take: Any,
        fl_ctx: FLContext,
        abort_signal: Any,
    ) -> None:
        site = swapped.get(str(number))
        if task_name == TASK_SHARES and site:
            content = with_own_key(content, site)
        honest(self, task_name, number, content, sites, take, fl_ctx, abort_signal)

    SecureScatterAndGather._ask = ask  # type: ignore[method-assign]


def with_own_key(roster: Mapping[str, Mapping[str, Any]], site: str) -> dict[str, Mapping[str, Any]]:
    """A round's roster in which the masks of a site are made with a key of whom it knows nothing."""
    return {**roster, site: {**roster[site], "masking_key": new_pair().public.hex()}}


def _reveal_falsely(rounds: Sequence[str]) -> None:
    """Have a site reveal in some rounds other shares of the secrets than it was dealt."""
    from brats_fl.privacy.site_round import SiteRound

    honest = SiteRound.reveal

    def reveal(self: SiteRound, confirmations: Mapping[str, str]) -> dict[str, str]:
        told = honest(self, confirmations)
        return falsified(told) if self.context.rpartition("/")[2] in rounds else told

    SiteRound.reveal = reveal  # type: ignore[method-assign]


def falsified(shares: Mapping[str, str]) -> dict[str, str]:
    """Shares in hexadecimal with the last bit of each turned."""
    return {site: f"{int(text, 16) ^ 1:0{len(text)}x}" for site, text in shares.items()}
