"""What is remembered of a run from its start: enough to find its job again, and to go on with it.

It lies in the run folder as ``submission.json`` before the first round begins, and so survives whatever ends the
command. A run that was resumed has several parts; each was a job of its own to FLARE.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from brats_fl.errors import RunError
from brats_fl.files import write_whole
from brats_fl.provenance import find_commit
from brats_fl.reading import Reader
from brats_fl.round_records import RECORDS_FILE
from brats_fl_tools.jobs.assembly import JobOptions
from brats_fl_tools.jobs.built import BuiltJob
from brats_fl_tools.runs.folder import State, facts_of, write_facts

SUBMISSION_FILE: Final = "submission.json"
READER: Final = Reader(
    RunError,
    "it is damaged: fetch the job with FLARE's own `nvflare job download`",
    "not there; give the run folder of a job that was started",
)


@dataclass(frozen=True)
class Part:
    """A stretch of a run, from a start to the job's end or loss."""

    started: str
    """UTC, ISO 8601."""
    seconds: float
    first_round: int
    job_id: str = ""
    """FLARE's; empty in the simulator."""


@dataclass(frozen=True)
class Submission:
    """The part of a run that was started last, and those before it."""

    job: str
    """Name of the job."""
    source: str
    """What finds the job to build it again: its name in the checkout, else its folder."""
    started: str
    options: JobOptions = field(default_factory=JobOptions)
    facts: Mapping[str, Any] = field(default_factory=dict)
    """For ``run.json``."""
    kit: str = ""
    """Folder of the admin's kit; empty for the simulator."""
    job_id: str = ""
    earlier: tuple[Part, ...] = ()
    """Parts before this one."""
    commit: str = field(default_factory=lambda: find_commit() or "")
    """Of the checkout that the job was built in, at the start of this part; empty where there is none."""

    @property
    def first_round(self) -> int:
        """Where this part began."""
        return int(self.options.values.get("start_round", 0))

    def __post_init__(self) -> None:
        """Check what is read from a file.

        Raises:
            ValueError: A time is none, or the first round is no whole number.
        """
        for started in filter(None, (self.started, *(part.started for part in self.earlier))):
            datetime.fromisoformat(started)
        begun = self.options.values.get("start_round", 0)
        if not isinstance(begun, int) or begun < 0:
            raise ValueError(f"start_round must be a whole number, 0 or more (got {begun!r})")

    def part(self, seconds: float) -> Part:
        """This part, once it has ended."""
        return Part(self.started, round(max(0.0, seconds), 1), self.first_round, self.job_id)


def begin(run: Path, job: BuiltJob, submission: Submission) -> None:
    """Write ``submission.json`` and a first ``run.json``."""
    content = asdict(submission)
    content["options"] |= {
        name: str(path) if (path := getattr(submission.options, name)) else None for name in ("checkpoint", "of_run")
    }
    write_whole(run / SUBMISSION_FILE, json.dumps(content, indent=1) + "\n")
    state_run(run, job, submission, "running", 0.0, {})


def state_run(
    run: Path, job: BuiltJob, submission: Submission, state: State, seconds: float, facts: Mapping[str, Any]
) -> None:
    """Write ``run.json`` of all parts; as ``facts_of_run``."""
    write_facts(run, facts_of_run(run, job, submission, state, seconds, facts))


def facts_of_run(
    run: Path, job: BuiltJob, submission: Submission, state: State, seconds: float, facts: Mapping[str, Any]
) -> dict[str, Any]:
    """What ``run.json`` says of all parts.

    Args:
        run: Run folder.
        job: As it was built for this part.
        submission: This part.
        state: Of the run.
        seconds: That this part took, so far.
        facts: What else is known of it.
    """
    parts = (*submission.earlier, submission.part(seconds))
    times = {
        "started": parts[0].started,
        "seconds": round(sum(part.seconds for part in parts), 1),
        "parts": [asdict(part) for part in parts],
    }
    code = {"commit": submission.commit} if submission.commit else {}
    return facts_of(run, job, state, {**submission.facts, **code, **times, **facts})


def read_submission(run: Path) -> Submission:
    """The submission of a run folder.

    Raises:
        RunError: There is none, or it is damaged.
    """
    path = run / SUBMISSION_FILE
    known = {"commit": "", **READER.json_object(path)}  # a run of an earlier release did not note it
    return READER.typed(Submission, known, path)


def sites_folder_of(run: Path, submission: Submission) -> Path:
    """The folder of sites of a run on this machine.

    Raises:
        RunError: The submission does not say it.
    """
    return Path(READER.at(str, submission.facts, ["sites_dir"], run / SUBMISSION_FILE))


def seconds_until_lost(submission: Submission, server_files: Path) -> float:
    """How long a part went on that nobody saw end: until its last record."""
    records = server_files / RECORDS_FILE
    if not records.is_file():
        return 0.0
    return max(0.0, records.stat().st_mtime - datetime.fromisoformat(submission.started).timestamp())
