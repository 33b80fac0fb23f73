"""A study goes on past a failed run and where it stopped; what it starts are child processes, here stand-ins."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest
from tests.stand_in_commands import __file__ as STAND_IN
from tests.study_files import ONE_JOB, write_study

from brats_fl.errors import FolderError, RunError
from brats_fl_tools.cli import app
from brats_fl_tools.study import children
from brats_fl_tools.study.command import run_study
from brats_fl_tools.study.record import RunRecord, StudyRecord, read_record

ROOT = Path(STAND_IN).parents[1]
FEDERATED, LOCAL = "sites-brats_unet_fedavg-seed0", "sites-brats_unet-local-seed0"
RUN_A_STUDY = """
import sys
from pathlib import Path
from brats_fl_tools.__main__ import main
from brats_fl_tools.study import children
children.COMMAND = "tests.stand_in_commands"
main()
"""


@pytest.fixture(autouse=True)
def stand_ins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(children, "COMMAND", "tests.stand_in_commands")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A study of one job and its local baseline."""
    return write_study(tmp_path, ONE_JOB)


def states(record: StudyRecord) -> dict[str, str]:
    return {run.name: run.state for run in record.runs}


def run_of(out: Path, name: str) -> RunRecord:
    return next(run for run in read_record(out).runs if run.name == name)


def logged(out: Path, name: str) -> list[str]:
    """The verbs that were run of a run."""
    lines = (out / "logs" / f"{name}.log").read_text(encoding="utf-8").splitlines()
    return [line.split(" $ brats-fl ")[1].split()[0] for line in lines if " $ " in line]


def test_study_is_carried_out_recorded_and_done_when_it_is_asked_for_again(
    path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    out = tmp_path / "out"

    record = run_study(path, out)

    assert states(record) == {FEDERATED: "finished", LOCAL: "finished"}
    assert read_record(out) == record
    assert record.text == path.read_text(encoding="utf-8")
    assert (logged(out, FEDERATED), logged(out, LOCAL)) == (["simulate", "evaluate"], ["baseline"])
    told = capsys.readouterr().out
    assert "one job: 2 of 2 runs left, 480 steps, how long they take is told after the first" in told
    assert f"[1/2] {FEDERATED}: done in" in told
    assert "mean Dice 0.500 on 1 test case; 1 of 2 runs left, 240 steps, about " in told
    run_study(path, out)
    assert "one job: all 2 runs are done" in capsys.readouterr().out
    assert logged(out, FEDERATED) == ["simulate", "evaluate"]


def test_failed_run_is_named_with_the_last_line_of_its_log_and_the_rest_goes_on(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    out = tmp_path / "out"
    monkeypatch.setenv("STAND_IN_FAILS", FEDERATED)

    with pytest.raises(RunError, match=rf"1 of 2 runs failed, .*: {FEDERATED} \(hospital-1: a scan is missing\)"):
        run_study(path, out)
    assert states(read_record(out)) == {FEDERATED: "failed", LOCAL: "finished"}

    monkeypatch.delenv("STAND_IN_FAILS")
    assert set(states(run_study(path, out)).values()) == {"finished"}
    assert run_of(out, FEDERATED).error == ""
    assert logged(out, LOCAL) == ["baseline"]


def test_model_that_was_trained_on_its_test_cases_fails_the_run(path: Path, tmp_path: Path):
    out = tmp_path / "out"
    run_study(path, out)
    facts = out / "runs" / FEDERATED / "evaluation.json"
    facts.write_text(json.dumps({"seen_in_training": ["hospital-1/a"]}), encoding="utf-8")

    with pytest.raises(RunError, match="trained or chosen on hospital-1/a, which it was tested on; mend the lists"):
        children.carry_out(run_of(out, FEDERATED), out)


@contextmanager
def waiting_study(path: Path, out: Path) -> Iterator[tuple[subprocess.Popen[str], subprocess.Popen[str]]]:
    """A study in a process of its own, in whose federated run something was done, and which waits in it."""
    command = [sys.executable, "-W", "ignore", "-c", RUN_A_STUDY, "study", str(path), "--out", str(out)]
    environment = {**os.environ, "STAND_IN_WAITS": FEDERATED}
    streams = {"stderr": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    hear = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # where the tests run in the background, it is ignored
    with subprocess.Popen(command, **streams, env=environment, preexec_fn=hear) as study:
        deadline = time.monotonic() + 60
        while not (out / "runs" / FEDERATED / "run.json").is_file():
            assert study.poll() is None, study.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.05)
        yield study
        study.kill()


def children_of(out: Path) -> list[int]:
    """Processes of the study in a folder."""
    import psutil

    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(children.STUDY_VARIABLE) == str(out):
                found.append(process.pid)
        except psutil.Error:
            continue
    return found


def test_interrupted_study_says_how_to_go_on_and_goes_on(path: Path, tmp_path: Path):
    out = tmp_path / "out"
    with waiting_study(path, out) as study:
        study.send_signal(signal.SIGINT)
        _, told = study.communicate(timeout=60)

    assert study.returncode == 1
    assert f"interrupted: {FEDERATED} was stopped; `brats-fl study {path} --out {out}` goes on with it" in told
    assert states(read_record(out)) == {FEDERATED: "interrupted", LOCAL: "waiting"}
    assert children_of(out) == []
    assert set(states(run_study(path, out)).values()) == {"finished"}
    assert logged(out, FEDERATED) == ["simulate", "resume", "evaluate"]


def test_study_that_was_killed_leaves_nothing_that_is_in_the_way(path: Path, tmp_path: Path):
    out = tmp_path / "out"
    with waiting_study(path, out) as study:
        study.kill()
        study.wait()
        assert len(children_of(out)) == 1  # nobody ended it

        assert set(states(run_study(path, out)).values()) == {"finished"}

    assert children_of(out) == []
    assert logged(out, FEDERATED) == ["simulate", "resume", "evaluate"]


def test_run_whose_processes_are_killed_fails_and_is_gone_on_with(path: Path, tmp_path: Path):
    out = tmp_path / "out"
    with waiting_study(path, out) as study:
        (child,) = children_of(out)
        os.killpg(child, signal.SIGKILL)
        _, told = study.communicate(timeout=60)

    assert study.returncode == 1
    assert f"[1/2] {FEDERATED} failed: ended by SIGKILL, perhaps for want of memory, after: simulate" in told
    assert states(read_record(out)) == {FEDERATED: "failed", LOCAL: "finished"}
    assert set(states(run_study(path, out)).values()) == {"finished"}
    assert logged(out, FEDERATED) == ["simulate", "resume", "evaluate"]


def test_changed_study_is_refused_by_the_names_of_the_runs_and_only_those_are_run_again(path: Path, tmp_path: Path):
    out = tmp_path / "out"
    run_study(path, out)
    text = path.read_text(encoding="utf-8")
    path.write_text(text + "set = { learning_rate = 0.01 }\n\n[jobs.brats_unet_scaffold]\n", encoding="utf-8")

    with pytest.raises(FolderError, match=rf"no longer valid are {FEDERATED}, {LOCAL}; add --force .*0 others stay"):
        run_study(path, out)
    path.write_text(text.replace("rounds = 3", "rounds = 3 # three") + "\n[jobs.brats_unet_scaffold]\n", "utf-8")
    run_study(path, out)
    assert logged(out, FEDERATED) == ["simulate", "evaluate"]

    path.write_text(text + "\n[jobs.brats_unet_scaffold]\nset = { learning_rate = 0.01 }\n", encoding="utf-8")
    scaffold = "sites-brats_unet_scaffold-seed0"
    with pytest.raises(FolderError, match=rf"no longer valid is {scaffold}; add --force to run it again \(2 others"):
        run_study(path, out)
    run_study(path, out, force=True)
    assert [run.name for run in read_record(out).runs] == [FEDERATED, LOCAL, scaffold]
    assert (logged(out, FEDERATED), logged(out, scaffold)) == (["simulate", "evaluate"],) * 2


def test_run_that_the_file_has_no_longer_stays_and_counts_when_it_is_back(
    path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    out, text = tmp_path / "out", path.read_text(encoding="utf-8")
    run_study(path, out)
    path.write_text(text.replace('baselines = ["local"]', ""), encoding="utf-8")

    record = run_study(path, out)

    assert [run.name for run in record.runs] == [FEDERATED]
    assert [run.name for run in record.dropped] == [LOCAL]
    assert f"{LOCAL}: no longer in the study; its folder stays" in capsys.readouterr().out
    path.write_text(text, encoding="utf-8")
    assert states(run_study(path, out)) == {FEDERATED: "finished", LOCAL: "finished"}
    assert logged(out, LOCAL) == ["baseline"]


def test_thresholds_are_stated_before_the_first_run_and_not_changed_without_a_word(path: Path, tmp_path: Path):
    out, file = tmp_path / "out", tmp_path / "thresholds.toml"
    path.write_text(path.read_text(encoding="utf-8").replace("rounds", 'thresholds = "thresholds.toml"\nrounds'))
    file.write_text("least_mean_dice = 0.6\n", encoding="utf-8")
    first = run_study(path, out).thresholds
    assert first is not None
    assert (first.asked.least_mean_dice, first.replaced) == (0.6, ())

    file.write_text("least_mean_dice = 0.4\n", encoding="utf-8")
    with pytest.raises(FolderError, match="the thresholds are others after the first run had begun; go back"):
        run_study(path, out)
    changed = run_study(path, out, force=True).thresholds

    assert changed is not None
    assert (changed.asked.least_mean_dice, changed.replaced) == (0.4, (first.sha256,))
    file.write_text("least_dice = 0.4\n", encoding="utf-8")
    with pytest.raises(RunError, match="unknown key 'least_dice'"):
        run_study(path, tmp_path / "another")
    assert not (tmp_path / "another").exists()


def test_folder_of_another_is_left_alone(path: Path, tmp_path: Path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").touch()

    with pytest.raises(FolderError, match="is not empty and no study of brats-fl's"):
        run_study(path, tmp_path / "out", force=True)


def test_verb_may_be_left_out(path: Path, tmp_path: Path):
    from typer.testing import CliRunner

    result = CliRunner().invoke(app, ["study", "--out", str(tmp_path / "out"), str(path)], catch_exceptions=False)

    assert result.exit_code == 0, result.output
    assert "done: 2 runs in" in result.output
