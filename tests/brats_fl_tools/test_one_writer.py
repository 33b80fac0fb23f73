"""Two commands that write one folder at once: the second is refused, whichever command it is."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.run_folders import write_run

from brats_fl.errors import BratsFLError, FolderError
from brats_fl_tools.audit.canary_command import write_planted
from brats_fl_tools.audit.command import audit_model
from brats_fl_tools.baseline.pretrain import write_pretrained
from brats_fl_tools.data.case_table import write_case_table
from brats_fl_tools.jobs.assembly import JobOptions, build_job
from brats_fl_tools.kit.kits import provision
from brats_fl_tools.ledger.crate import write_crate
from brats_fl_tools.model.evaluate import evaluate_sites
from brats_fl_tools.model.export import export_model
from brats_fl_tools.model.rescore import rescore_masks
from brats_fl_tools.model.segment import segment_cases
from brats_fl_tools.model.trained import TrainedModel
from brats_fl_tools.model.tune import tune_model
from brats_fl_tools.one_writer import lock_file, only_writer
from brats_fl_tools.partition.command import write_partition
from brats_fl_tools.report import write_report
from brats_fl_tools.runs.poc import prepare_poc, submit_poc
from brats_fl_tools.runs.resume import resume_run
from brats_fl_tools.runs.simulate import run_simulation
from brats_fl_tools.runs.submit import collect_run
from brats_fl_tools.sample.write import write_sample
from brats_fl_tools.stress.command import stress_models
from brats_fl_tools.study.command import run_study
from brats_fl_tools.withdrawal.command import withdraw_from

JOB = "brats_unet_fedavg"
HOLD = """
import sys
from pathlib import Path
from brats_fl_tools.one_writer import only_writer
with only_writer(Path(sys.argv[1])):
    print("mine", flush=True)
    sys.stdin.read()
"""


@contextmanager
def held_by_another(target: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process writes a folder or file."""
    command = [sys.executable, "-c", HOLD, str(target)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "mine\n"
        yield holder
        holder.kill()


Nothing: Any = None
"""In place of what is not looked at before the folder is."""

COMMANDS: Mapping[str, tuple[Callable[[Path], object], str]] = {
    "sample": (lambda out: write_sample(out, 3, 0, False, print), ""),
    "import": (lambda out: write_case_table(out, []), ""),
    "partition": (lambda out: write_partition(out, Nothing, {}), ""),
    "job build": (lambda out: build_job(JOB, out, JobOptions()), JOB),
    "simulate": (lambda out: run_simulation(JOB, out, out, JobOptions()), ""),
    "poc prepare": (lambda out: prepare_poc(out, None), ""),
    "poc submit": (lambda out: submit_poc(Nothing, JOB, out, JobOptions()), ""),
    "pretrain": (lambda out: write_pretrained(out, Nothing, JOB, 3, 0), ""),
    "collect": (collect_run, ""),
    "resume": (resume_run, ""),
    "withdraw": (lambda out: withdraw_from(Nothing, out), ""),
    "evaluate": (lambda out: evaluate_sites(out, out, out, out), ""),
    "evaluate --rescore": (lambda out: rescore_masks(out, out, out), ""),
    "tune": (lambda out: tune_model(TrainedModel(out, out / "m.pt", "small"), out), "postprocessing.json"),
    "segment": (lambda out: segment_cases([], Nothing, out, {}, False), ""),
    "stress": (lambda out: stress_models([], out, out, {}), ""),
    "audit": (lambda out: audit_model(TrainedModel(out, out / "m.pt", "small"), out, out, Nothing), ""),
    "canaries plant": (lambda out: write_planted(out, out, out, out), ""),
    "ledger crate": (lambda out: write_crate(out, out, "MIT"), ""),
    "export": (lambda out: export_model(out, out), "models"),
    "report": (write_report, "report.html"),
    "study": (lambda out: run_study(Nothing, out), ""),
    "kit provision": (lambda out: provision(out, out), ""),
}


def test_every_command_refuses_a_folder_that_another_process_writes(tmp_path: Path):
    for name, (command, within) in COMMANDS.items():
        out = tmp_path / name.replace(" ", "-")
        with held_by_another(out / within), pytest.raises(FolderError, match="another command of brats-fl") as caught:
            command(out)
        assert str(out) in str(caught.value), name
        assert not (out / within).exists(), name


def test_message_names_the_process_and_a_killed_one_holds_nothing(tmp_path: Path):
    with held_by_another(tmp_path / "run") as holder:
        with pytest.raises(FolderError, match=rf"run: another command of brats-fl \(process {holder.pid}\)"):
            only_writer(tmp_path / "run").__enter__()
        os.kill(holder.pid, signal.SIGKILL)
        holder.wait()

        with only_writer(tmp_path / "run"):
            assert lock_file(tmp_path / "run").read_text() == f"{os.getpid()}\n"
    assert list(tmp_path.iterdir()) == []


def test_command_does_not_stand_in_its_own_way_and_leaves_no_lock(tmp_path: Path):
    with only_writer(tmp_path / "run"), only_writer(tmp_path / "run"), only_writer(tmp_path / "other"):
        assert len(list(tmp_path.iterdir())) == 2
    assert list(tmp_path.iterdir()) == []


def test_report_of_a_run_can_be_written_while_the_run_goes_on(tmp_path: Path):
    run = write_run(tmp_path / "run")

    with held_by_another(run):
        write_report(run)

    assert (run / "report.html").is_file()


@pytest.mark.parametrize("name", ["simulate", "collect", "resume", "evaluate", "ledger crate", "export", "report"])
def test_command_that_fails_before_it_writes_leaves_nothing_of_a_place_that_was_not_there(tmp_path: Path, name: str):
    with pytest.raises(BratsFLError):
        COMMANDS[name][0](tmp_path / "not" / "there" / "yet")

    assert list(tmp_path.iterdir()) == []


def test_folder_in_which_something_was_written_stays(tmp_path: Path):
    with only_writer(tmp_path / "a" / "b" / "run"):
        (tmp_path / "a" / "result").touch()

    assert [path.name for path in tmp_path.rglob("*")] == ["a", "result"]


def test_disk_without_locks_keeps_no_lock_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)

    with only_writer(tmp_path / "run"):
        pass

    assert list(tmp_path.iterdir()) == []


def test_place_beneath_a_file_is_refused_by_its_name_and_not_by_a_number_of_the_system(tmp_path: Path):
    (tmp_path / "notes").write_text("mine")

    with (
        pytest.raises(
            FolderError, match=r"notes/out: cannot be written \(.*notes is a file, no folder\); choose another"
        ),
        only_writer(tmp_path / "notes" / "out"),
    ):
        pass


def test_place_where_the_system_lets_nobody_write_is_refused_in_its_words():
    with (
        pytest.raises(FolderError, match=r"^/proc/out: cannot be written \(.+\); choose another place$"),
        only_writer(Path("/proc/out")),
    ):
        pass


def test_folder_that_may_not_be_written_is_told_before_the_work_begins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    closed = tmp_path / "closed"
    closed.mkdir()
    may = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != closed and may(path, mode))  # root may always

    with pytest.raises(FolderError, match=r"closed: cannot be written \(Permission denied\); choose another place"):
        only_writer(closed).__enter__()
