"""Who may ask a site for what; that FLARE lets the door judge is tested with real processes in test_own_project.py."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from nvflare.apis.event_type import EventType
from nvflare.apis.fl_constant import FLContextKey
from nvflare.fuel.f3.cellnet.defs import MessageHeaderKey, ReturnCode
from nvflare.fuel.f3.message import Message
from nvflare.private.admin_defs import Message as AdminMessage
from nvflare.private.fed.client.client_engine import ClientEngine

from brats_fl.components.door import BLOCKED, SiteDoor, judge, refusal


@pytest.mark.parametrize(
    ("origin", "topic", "allowed"),
    [
        ("server", "train.deploy", True),
        ("server.0f7a", "", True),
        ("hospital-1", "train.notify_job_status", True),
        ("hospital-1.0f7a", "train.notify_job_status", True),
        ("hospital-2", "", False),
        ("hospital-2.0f7a", "train.shutdown", False),
        ("hospital-10.0f7a", "", False),
        ("serverless.0f7a", "", False),
        ("", "", False),
        ("server", "sys.shell", False),
        ("server.0f7a", "sys.shell", False),
        ("hospital-1.0f7a", "sys.shell", False),
    ],
)
def test_requests_come_from_the_server_and_the_sites_own_jobs_and_run_no_command(origin, topic, allowed):
    assert (refusal("hospital-1", origin, topic) == "") is allowed


def test_refused_request_is_answered_and_logged_without_what_it_holds(caplog):
    message = Message({MessageHeaderKey.ORIGIN: "hospital-2.0f7a", MessageHeaderKey.CHANNEL: "admin"}, None)
    message.payload = AdminMessage("sys.shell", "cat /data/secret-7391")

    reply = judge(message, "hospital-1")

    assert reply.get_header(MessageHeaderKey.RETURN_CODE) == ReturnCode.UNAUTHENTICATED
    assert "a request of hospital-2.0f7a (admin, sys.shell) was refused: it is of another site" in caplog.text
    assert "7391" not in caplog.text + str(reply.headers)
    assert judge(Message({MessageHeaderKey.ORIGIN: "server"}, None), "hospital-1") is None


@pytest.mark.parametrize(("folder", "reason"), [("kit", None), ("hospital-5 (1)", f"FOLDER_ERROR: {BLOCKED}")])
def test_job_does_not_come_in_where_it_could_not_be_started_and_no_path_goes_out(folder, reason, tmp_path, caplog):
    door = SiteDoor()
    # FLARE's own engine of a site's process, which has less than that of a job.
    client = SimpleNamespace(client_args={}, client_name="hospital-5", components={}, secure_train=True)
    fl_ctx = ClientEngine(client, SimpleNamespace(workspace=str(tmp_path / folder)), rank=0).new_context()

    door.handle_event(EventType.BEFORE_CHECK_RESOURCE_MANAGER, fl_ctx)

    # FLARE's client tells the server this reason with its name, and its scheduler goes on without it, if it may.
    assert fl_ctx.get_prop(FLContextKey.JOB_BLOCK_REASON) == reason
    assert str(tmp_path) not in (reason or "")
    assert ("holds a space" in caplog.text) is (reason is not None)
