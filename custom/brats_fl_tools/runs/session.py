"""An admin's session with a server: submit a job, follow it round by round, fetch what it left."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import typer

from brats_fl.errors import RunError
from brats_fl.round_records import RECORDS_COMMAND, check_record
from brats_fl.typed import printable
from brats_fl_tools.jobs.built import BuiltJob
from brats_fl_tools.kit.kits import Kit
from brats_fl_tools.kit.server import without_proxy
from brats_fl_tools.runs.progress import Progress

POLL_SECONDS = 1.0
LONGEST_POLL_SECONDS = 10.0
"""Each question is a line in the server's audit log: after a long silence they come less often."""

SETTLE_SECONDS = 5.0
"""Asked for its records before its process is ready, FLARE's server writes an error into the job's log."""

LOST_SECONDS = 90.0
"""How long a job without a process counts as being put away; FLARE waits a minute for sites that it lost."""

PATIENCE_SECONDS = 60.0
"""A link that is down for a moment, or a server with a full disk, does not end the watching."""

LONGEST_LINE = 1000
"""Of what a site says of a job: it is the site's own text, and may be anything."""

FINISHED = "FINISHED"
RUNNING = "RUNNING"
SUBMITTED = "SUBMITTED"

_DETAILS = re.compile(r"not enough sites .*|required sites.*")
"""What FLARE's scheduler says of a job that it does not start, after the time."""

_DURATION = re.compile(r"(?:(\d+) days?, )?(\d+):(\d+):(\d+(?:\.\d+)?)")
"""How FLARE writes how long a job ran: Python's ``str`` of a ``timedelta``."""

LOOPBACK = ("localhost", "127.0.0.1", "::1")
"""Hosts that are this machine by any name service."""

GOOD_ENDS = ("FINISHED:COMPLETED", "FINISHED:ABNORMAL")
"""FLARE calls a job abnormal in which a site was lost and all rounds were finished with the others."""


class NotAllowedError(RunError):
    """The server's policy does not let this admin do it."""


@contextlib.contextmanager
def admin_session(kit: Kit, timeout_s: float = 15.0) -> Iterator[Any]:
    """A connected FLARE session of the admin whose kit it is.

    Raises:
        RunError: It is no admin's kit, or the server cannot be reached, or does not let this admin in.
    """
    if kit.kind != "admin":
        whose = "hospital" if kit.kind == "client" else kit.kind
        raise RunError(f"{kit.folder}: is the kit of a {whose}; give an admin's, such as the lead's, to log in with")
    from nvflare.fuel.flare_api.api_spec import NoConnection
    from nvflare.fuel.flare_api.flare_api import new_secure_session

    if kit.host in LOOPBACK:
        os.environ.update(without_proxy(kit.host))  # gRPC asks the process's own environment
    logging.getLogger("nvflare").setLevel(logging.CRITICAL)  # each failed attempt prints a page
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            session = new_secure_session(kit.name, str(kit.folder.resolve()), timeout=timeout_s, auto_login_max_tries=1)
    except NoConnection as error:
        raise RunError(
            f"{kit.name}: no connection to {kit.host}:{kit.port}; is the server running? ({error})"
        ) from error
    except Exception as error:  # FLARE raises plain exceptions for a refused certificate and the like
        raise RunError(f"{kit.name}: cannot log in at {kit.host}:{kit.port}: {error}") from error
    try:
        yield session
    finally:
        with contextlib.suppress(Exception):
            session.close()


def connected_clients(session: Any) -> set[str]:
    """Names of the sites that are connected.

    Raises:
        RunError: The server did not answer.
    """
    with refused("system status"):
        return {client.name for client in session.get_system_info().client_info}


@contextlib.contextmanager
def refused(what: str) -> Iterator[None]:
    """Turn what FLARE's session raises into our error."""
    from nvflare.fuel.flare_api import api_spec

    try:
        yield
    except (api_spec.AuthorizationError, api_spec.AuthenticationError) as error:
        raise RunError(f"{what}: not allowed for this admin ({error})") from error
    except api_spec.JobNotFound as error:
        raise RunError(f"{what}: the server has no such job any more; somebody deleted it ({error})") from error
    except (api_spec.NoConnection, api_spec.SessionClosed, api_spec.InternalError, api_spec.NoReply) as error:
        raise RunError(f"{what}: the server did not carry it out ({error})") from error


def submit(session: Any, job: BuiltJob) -> str:
    """Submit a job; its id.

    Raises:
        RunError: The server refused it.
    """
    with refused(f"submission of {job.name}"):
        return str(session.submit_job(str(job.folder.resolve())))


def follow(session: Any, job_id: str, progress: Progress, begun: Callable[[], None] = lambda: None) -> str:
    """Print each round record as the server states it, until the job has ended; the job's last status.

    Args:
        session: The admin's.
        job_id: The job's.
        progress: Prints the records.
        begun: Called once when the job is running at those who took it.

    Raises:
        RunError: The server has not answered for ``PATIENCE_SECONDS``, or it was away and came back without the job.
    """
    answered = news = time.monotonic()
    known, was_away, gone_since, running_since, waits_for = 0, False, None, None, ""
    while True:
        has_settled = running_since is not None and answered - running_since >= SETTLE_SECONDS
        try:
            records = news_of(session, job_id, known, progress) if has_settled else None
            status = job_status(session, job_id) if records is None else RUNNING
            if status.startswith(FINISHED):
                return status
            # A server that was restarted has lost the job, and its store says RUNNING of it for ever.
            gone = was_away and status == RUNNING and records is None and not is_running(session, job_id)
        except RunError:
            was_away = True
            if time.monotonic() - answered > PATIENCE_SECONDS:
                raise
        else:
            answered = time.monotonic()
            news = answered if records else news
            known += len(records or ())
            gone_since = (gone_since or answered) if gone else None
            if gone_since and answered - gone_since > LOST_SECONDS:
                raise RunError(
                    f"job {job_id}: the server was away and does not run it any more; go on from the last global model "
                    "with `brats-fl resume RUN`"
                )
            if status == SUBMITTED:
                waits_for = tell_why_it_waits(session, job_id, waits_for)
            if status == RUNNING and running_since is None:
                running_since = answered
                begun()
            progress.show(records or ())
        time.sleep(pause(time.monotonic() - news))


def news_of(session: Any, job_id: str, start: int, progress: Progress) -> list[dict[str, Any]] | None:
    """As ``new_records``; where the admin may not have them that is said, and the job followed by its status alone."""
    try:
        return new_records(session, job_id, start)
    except NotAllowedError as error:
        progress.say_once(f"no rounds until the end: {error}")
        return None


def pause(silence: float) -> float:
    """Seconds until the next question, after so many without news."""
    return min(max(POLL_SECONDS, silence / 10), LONGEST_POLL_SECONDS)


def tell_why_it_waits(session: Any, job_id: str, before: str) -> str:
    """Print why the server has not started a job yet, once: who is not fit for it; returns what was printed."""
    try:
        found = [text for line in deployment(session, job_id) for text in _DETAILS.findall(line)]
    except RunError:
        return before
    if found and found[-1] != before:
        typer.echo(f"the job waits: {found[-1]}")
    return found[-1] if found else before


def is_running(session: Any, job_id: str) -> bool:
    """Whether the server has a process for the job; its store says RUNNING of a lost one, too.

    Raises:
        RunError: The server did not answer.
    """
    with refused("system status"):
        return any(job.job_id == job_id for job in session.get_system_info().job_info)


def job_status(session: Any, job_id: str) -> str:
    """FLARE's status of a job, such as ``RUNNING``."""
    with refused(f"status of job {job_id}"):
        return str(session.get_job_meta(job_id)["status"])


def job_seconds(session: Any, job_id: str) -> float | None:
    """Seconds from the submission of a job to its end, by the server's clock; None of one that the server lost."""
    with refused(f"status of job {job_id}"):
        meta = session.get_job_meta(job_id)
    took = _DURATION.fullmatch(str(meta.get("duration")))
    if not took or not meta.get("start_time"):
        return None
    days, hours, minutes, seconds = (float(part or 0) for part in took.groups())
    ran = ((days * 24 + hours) * 60 + minutes) * 60 + seconds
    return datetime.fromisoformat(meta["start_time"]).timestamp() + ran - float(meta["submit_time"])


def deployment(session: Any, job_id: str) -> list[str]:
    """What server and sites said when a job was sent to them, such as who refused it and why; a line each."""
    with refused(f"status of job {job_id}"):
        meta = session.get_job_meta(job_id)
    told = [*(meta.get("job_deploy_detail") or []), *(meta.get("schedule_history") or [])]
    return [printable(str(line))[:LONGEST_LINE] for line in told if not str(line).endswith("OK")]


def new_records(session: Any, job_id: str, start: int) -> list[dict[str, Any]] | None:
    """Round records of a running job from a number on; None where it does not tell: it has just begun or ended.

    Raises:
        NotAllowedError: The server's policy does not let this admin.
        RunError: What the server answered is no list of records.
    """
    from nvflare.fuel.flare_api.api_spec import AuthorizationError

    try:
        answer = session.do_app_command(job_id, RECORDS_COMMAND, {"from": start})
    except AuthorizationError as error:
        raise NotAllowedError(
            f"{error}: only the lead who submitted a job may follow its rounds; where that is you, the server's kit is "
            "of an earlier release: run `brats-fl kit setup` on it again, and restart the server"
        ) from error
    except Exception:  # FLARE says it with whatever error; the job's status, asked for next, says which it is
        return None
    records = answer.get("records") if isinstance(answer, dict) else None
    place = f"the server's records of job {job_id}"
    if not isinstance(records, list):
        raise RunError(f"{place}: expected a list; the server may be of another version")
    return [check_record(place, one) for one in records]


def download(session: Any, job_id: str, out: Path) -> Path:
    """Fetch a finished job's files from the server; the folder of the server's run.

    Raises:
        RunError: The server has none.
    """
    with refused(f"download of job {job_id}"), tempfile.TemporaryDirectory(dir=out.parent) as scratch:
        fetched = Path(session.download_job_result(job_id, scratch))
        workspace = fetched / "workspace"
        if not workspace.is_dir():
            raise RunError(f"the server keeps no files of job {job_id}")
        shutil.rmtree(out, ignore_errors=True)
        shutil.move(workspace, out)
    return out
