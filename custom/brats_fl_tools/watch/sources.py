"""Where a running job is seen: in a run folder on this machine, or at a federation's server."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from brats_fl.errors import RunError
from brats_fl.round_records import read_records
from brats_fl_tools.kit.kits import Kit, read_kit
from brats_fl_tools.report.run_folder import RunFolder, means_of, read_run, rounds_of
from brats_fl_tools.runs.folder import records_files
from brats_fl_tools.runs.session import (
    FINISHED,
    RUNNING,
    admin_session,
    connected_clients,
    job_status,
    new_records,
    refused,
)
from brats_fl_tools.runs.submission import SUBMISSION_FILE, read_submission

Lines = tuple[Mapping[str, Any], ...]


@dataclass(frozen=True)
class Seen:
    """A job as it was at the last look."""

    run: RunFolder
    state: str
    """``running``, ``finished``, ``interrupted``, or the server's own word."""
    lines: Lines = ()
    """Round records as they came."""
    connected: frozenset[str] | None = None
    """Hospitals that the server has now; None where nobody can say."""
    trouble: str = ""
    """Why this is an older look than it should be."""

    @property
    def is_running(self) -> bool:
        """Whether there is more to come."""
        return self.state == "running"


Look = Callable[[], Seen]
"""Looks once; raises ``RunError`` where nothing is to be seen."""


def look_into(folder: Path) -> Seen:
    """A run folder on this machine, also while the simulator writes into it.

    Raises:
        RunError: It is none, or a file in it is damaged.
    """
    run = read_run(folder, with_rounds=False, with_cases=False)
    state = str(run.info.get("state", "finished"))
    lines = tuple(line for path in records_files(folder, state) for line in read_records(path))
    return Seen(with_lines(run, lines), state, lines)


def with_lines(run: RunFolder, lines: Lines) -> RunFolder:
    """The run with these records, and no others."""
    return replace(run, records=rounds_of(lines), means=means_of(lines))


@contextmanager
def source_of(folder: Path) -> Iterator[Look]:
    """How a run is looked at: one of a federation at its server, as long as it goes on there, else in its folder.

    Raises:
        RunError: It is no run folder, or its server lets this kit not in.
    """
    seen = look_into(folder)
    started = read_submission(folder) if (folder / SUBMISSION_FILE).is_file() else None
    if not (seen.is_running and started and started.kit and started.job_id):
        yield lambda: look_into(folder)
        return
    with admin_session(read_kit(Path(started.kit))) as session:
        yield AtServer(session, started.job_id, seen.run, folder).look


@contextmanager
def source_at(kit: Kit) -> Iterator[Look]:
    """How the job that a federation runs now is looked at.

    Raises:
        RunError: No connection, or no job is running.
    """
    with admin_session(kit) as session:
        job = running_job(session)
        name = str(job["job_name"])
        run = RunFolder(Path(name), {"job": name, "state": "running", "mode": "federation"}, (), ())
        yield AtServer(session, str(job["job_id"]), run).look


def running_job(session: Any) -> Mapping[str, Any]:
    """The job that was submitted last of those that run.

    Raises:
        RunError: None does.
    """
    with refused("list of jobs"):
        jobs: list[Mapping[str, Any]] = session.list_jobs()
    for job in sorted(jobs, key=lambda job: str(job.get("submit_time")), reverse=True):
        if job_status(session, job["job_id"]) == RUNNING:
            return job
    raise RunError("no job is running there; `brats-fl status` lists those that there were")


@dataclass
class AtServer:
    """A job that is followed over an admin's session.

    Args:
        session: The admin's; FLARE writes a line into the server's audit log for each question.
        job_id: The job's.
        run: What is known of it without the server.
        folder: Its run folder, where it has one.
    """

    session: Any
    job_id: str
    run: RunFolder
    folder: Path | None = None
    lines: Lines = ()
    last: Seen | None = field(default=None, init=False)

    def look(self) -> Seen:
        """Ask the server; while it does not answer, what it said last, and since when that is so."""
        try:
            self.last = self._ask()
        except RunError as error:
            if self.last is None:
                raise
            return replace(self.last, trouble=str(error))
        return self.last

    def _ask(self) -> Seen:
        connected = frozenset(connected_clients(self.session))
        status = job_status(self.session, self.job_id)
        if status.startswith(FINISHED):
            return self._ended(status, connected)
        self.lines += tuple(new_records(self.session, self.job_id, len(self.lines)) or ())
        return Seen(with_lines(self.run, self.lines), "running", self.lines, connected)

    def _ended(self, status: str, connected: frozenset[str]) -> Seen:
        if self.folder is not None and (seen := look_into(self.folder)).lines:
            return replace(seen, connected=connected, state=seen.state if not seen.is_running else status)
        return Seen(with_lines(self.run, self.lines), status, self.lines, connected)
