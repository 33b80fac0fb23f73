"""The commands that a run of a study is made of, each a child process of the same command line with a log."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import typer

from brats_fl.cases.datalists import CACHE_VARIABLE
from brats_fl.errors import RunError
from brats_fl.files import CASE_TABLE_FILE
from brats_fl.reading import Reader
from brats_fl_tools.jobs.source import read_source
from brats_fl_tools.model.evaluate import describe_end
from brats_fl_tools.report.run_facts import EVALUATION_FACTS, read_facts
from brats_fl_tools.runs.folder import BEST_MODEL, EVALUATION_FILE, read_state
from brats_fl_tools.runs.processes import python_module, running
from brats_fl_tools.runs.resume import can_resume
from brats_fl_tools.study.expansion import FEDERATED, StudyRun

READER: Final = Reader(RunError, "remove the folder of the run, and the same command runs it again")

COMMAND: Final = "brats_fl_tools"
STUDY_VARIABLE: Final = "BRATS_FL_STUDY"
"""Set to the folder of the study in all that it starts: what a killed study left behind is known by it."""

CACHE_FOLDER: Final = "cache"
GRACE_SECONDS: Final = 30.0
"""For a run that is interrupted: it ends FLARE's processes, which takes up to 10 s, and copies its models."""

QUIET_SECONDS: Final = 30.0
"""Between two words on a run that goes on."""


def commands_of(run: StudyRun, out: Path) -> Iterator[list[str]]:
    """What is still to be done of a run, command by command: each is chosen when those before it have ended.

    Args:
        run: Of the study.
        out: Folder of the study.
    """
    folder = out / run.folder
    recipe = ["--profile", run.profile, "--rounds", str(run.rounds), "--sites-only", ",".join(run.hospitals)]
    recipe += [part for name, value in run.values.items() for part in ("--set", f"{name}={json.dumps(value)}")]
    if run.kind != FEDERATED:
        yield ["baseline", run.kind, "--sites", str(run.sites_dir), "--out", str(folder), "--job", run.job, *recipe]
        return
    if read_state(folder) != "finished":
        if can_resume(folder):
            yield ["resume", str(folder)]
        else:
            yield ["simulate", run.job, "--sites", str(run.sites_dir), "--out", str(folder), *recipe, "--force"]
    if not (folder / CASE_TABLE_FILE).is_file():
        bundle, model = str(read_source(run.job).bundle), str(folder / BEST_MODEL)
        shared = ["--sites", str(run.sites_dir), "--out", str(folder), "--profile", run.profile, "--force"]
        yield ["evaluate", bundle, "--model", model, *shared]


def is_done(run: StudyRun, out: Path) -> bool:
    """Whether nothing is left to do: the table is written last, of a federated run as of a baseline."""
    folder = out / run.folder
    trained = run.kind != FEDERATED or read_state(folder) == "finished"
    return trained and (folder / CASE_TABLE_FILE).is_file()


def carry_out(run: StudyRun, out: Path) -> None:
    """Do what is left of a run.

    Raises:
        RunError: A command failed, with the last line of its log; or a model had seen a case that it was tested on.
        KeyboardInterrupt, SystemExit: It was interrupted; what was started has been given time to keep what it did.
    """
    for arguments in commands_of(run, out):
        begin = time.strftime("%Y-%m-%d %H:%M:%S")
        with (out / run.log).open("a", encoding="utf-8") as log:
            log.write(f"\n{begin} $ brats-fl {shlex.join(arguments)}\n")
        if code := _run(arguments, out / run.log, out):
            raise RunError(describe_end(code, out / run.log))
    path = out / run.folder / EVALUATION_FILE
    if seen := read_facts(READER, path, EVALUATION_FACTS).get("seen_in_training"):
        raise RunError(f"its model was trained or chosen on {', '.join(seen)}, which it was tested on; mend the lists")


def _run(arguments: list[str], log: Path, out: Path) -> int:
    """Exit code of a command of ours."""
    with running(python_module(COMMAND, *arguments), log, environment(out)) as process:
        try:
            follow(process, log)
        except (KeyboardInterrupt, SystemExit):
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(GRACE_SECONDS)
            raise
    return process.returncode


def environment(out: Path) -> dict[str, str]:
    """What a child is told: whose it is, and one cache for all runs, whatever their lists."""
    cache = os.environ.get(CACHE_VARIABLE) or str(out / CACHE_FOLDER)
    return {STUDY_VARIABLE: str(out), CACHE_VARIABLE: cache, "PYTHONUNBUFFERED": "1", "PYTHONWARNINGS": "ignore"}


def follow(process: subprocess.Popen[bytes], log: Path) -> None:
    """Wait for a command, and say now and then what it said last."""
    spoken, told = time.monotonic(), ""
    while process.poll() is None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(1.0)
        if time.monotonic() - spoken > QUIET_SECONDS:
            spoken, (before, told) = time.monotonic(), (told, last_line(log))
            if told != before:
                typer.echo(f"      {told}")


def last_line(log: Path) -> str:
    """The last line of a log that goes on, of which only the end is read."""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - 2000))
        lines = file.read().decode("utf-8", errors="replace").split("\n")
    return next((line.strip() for line in reversed(lines[:-1]) if line.strip()), "")
