"""A site's door: requests of other hospitals do not come in, and nobody from outside runs a command or reads a file.

No job comes in either where FLARE could not start its process: it would end for every hospital in seconds. The server
hears why, and that it is this one.

FLARE's client carries out admin messages without asking where they come from, and its server forwards what one site
sends to another. The server vouches for the origin that a message states: it compares it with the sender's token.
"""

from __future__ import annotations

import logging
import sys
from pathlib import Path

from nvflare.apis.event_type import EventType
from nvflare.apis.fl_component import FLComponent
from nvflare.apis.fl_constant import FLContextKey
from nvflare.apis.fl_context import FLContext
from nvflare.fuel.f3.cellnet.defs import MessageHeaderKey, ReturnCode
from nvflare.fuel.f3.cellnet.fqcn import FQCN
from nvflare.fuel.f3.cellnet.utils import make_reply
from nvflare.fuel.f3.message import Message
from nvflare.private.admin_defs import Message as AdminMessage

from brats_fl.errors import FolderError
from brats_fl.names import check_folder

EVERYTHING = "*"
CLOSED_TOPICS = frozenset({"sys.shell"})
"""Admin topics that nobody may ask of a site: FLARE runs ``cat``, ``head``, ``grep`` and ``ls`` for them."""

BLOCKED = "FLARE cannot start a job in the folder of this kit or its Python; `brats-fl kit check` there says why"
"""What the server hears of it: no path leaves the site."""

logger = logging.getLogger(__name__)


def refusal(own: str, origin: str, topic: str) -> str:
    """Why a request may not come in; empty where it may.

    Args:
        own: Name of the site.
        origin: Cell that sent it, such as ``server.JOB`` or ``hospital-2.JOB``.
        topic: Of an admin message; else empty.
    """
    root = origin.split(".")[0]
    if root not in (own, FQCN.ROOT_SERVER):
        return "it is of another site"
    return "commands and files of a site are nobody else's" if topic in CLOSED_TOPICS else ""


class SiteDoor(FLComponent):
    """Component of a site's ``resources.json``; judges every request before FLARE looks at it."""

    def handle_event(self, event_type: str, fl_ctx: FLContext) -> None:
        """Close the door when the site starts, and to every job that could not be started."""
        if event_type == EventType.SYSTEM_START:
            close_door(fl_ctx)
        elif event_type == EventType.BEFORE_CHECK_RESOURCE_MANAGER:
            self._refuse_where_none_can_start(fl_ctx)

    def _refuse_where_none_can_start(self, fl_ctx: FLContext) -> None:
        try:
            # The engine of a site's own process, other than that of a job, has no get_workspace.
            check_folder(Path(fl_ctx.get_prop(FLContextKey.WORKSPACE_ROOT)), "kit")
            check_folder(Path(sys.executable), "Python environment")
        except FolderError as error:
            self.log_error(fl_ctx, f"no job can run here: {error}", fire_event=False)
            fl_ctx.set_prop(FLContextKey.JOB_BLOCK_REASON, f"{error.code}: {BLOCKED}", private=True, sticky=False)


def close_door(fl_ctx: FLContext) -> None:
    """Have every request to this process judged; of a job's process the executor asks for it."""
    cell = fl_ctx.get_engine().get_cell().core_cell
    cell.add_incoming_request_filter(EVERYTHING, EVERYTHING, judge, fl_ctx.get_identity_name())


def judge(message: Message, own: str) -> Message | None:
    """A refusal as FLARE's reply; None lets the request in."""
    origin = str(message.get_header(MessageHeaderKey.ORIGIN, ""))
    payload = message.payload
    topic = payload.topic if isinstance(payload, AdminMessage) else ""
    why = refusal(own, origin, topic)
    if not why:
        return None
    channel = message.get_header(MessageHeaderKey.CHANNEL, "")
    asked = topic or message.get_header(MessageHeaderKey.TOPIC, "")
    logger.warning("a request of %s (%s, %s) was refused: %s", origin, channel, asked, why)
    return make_reply(ReturnCode.UNAUTHENTICATED, error="refused by this site")
