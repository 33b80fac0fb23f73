from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from monai.transforms import Compose

from brats_fl.cases.transforms import LoadCased
from brats_fl_tools import __main__, cli
from brats_fl_tools.runs.processes import Interrupted


def test_interrupted_command_says_so_and_ends_with_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    app = typer.Typer()

    @app.command()
    def work() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "app", app)
    monkeypatch.setattr(sys, "argv", ["brats-fl"])

    with pytest.raises(SystemExit) as end:
        __main__.main()

    assert end.value.code == 1
    assert capsys.readouterr().err.strip() == "interrupted: what was started has been stopped"


def test_version_names_what_a_run_depends_on(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "argv", ["brats-fl", "--version"])

    with pytest.raises(SystemExit) as end:
        __main__.main()

    assert end.value.code == 0
    said = capsys.readouterr().out
    own, pairs = said.split(") ")[0], said.split(") ")[1].split()
    assert re.fullmatch(r"brats-fl [0-9][^ ]* \(commit ([0-9a-f]{12}( with changes)?|unknown)", own)
    assert pairs[::2] == ["monai", "nvflare", "torch"]


def test_every_verb_is_in_a_group(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "argv", ["brats-fl", "-h"])

    with pytest.raises(SystemExit):
        __main__.main()

    text = capsys.readouterr().out
    assert "Others:" not in text
    for title, verbs in cli.GROUPS.items():
        section = text.split(f"{title}:\n")[1].split("\n\n")[0]
        assert tuple(line.split()[0] for line in section.splitlines()) == verbs


@pytest.mark.parametrize("arguments", [["-h"], ["job", "-h"], ["job", "build", "-h"]])
def test_help_is_short_as_well(arguments, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "argv", ["brats-fl", *arguments])

    with pytest.raises(SystemExit) as end:
        __main__.main()

    assert end.value.code == 0
    assert "-h, --help" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("end", "words"),
    [
        (SystemExit(143), "what was started has been stopped"),  # SIGTERM
        (Interrupted("job 0f7a goes on at the hospitals"), "job 0f7a goes on at the hospitals"),
    ],
)
def test_command_that_was_ended_says_what_became_of_its_work(
    end: SystemExit, words: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    def work() -> None:
        raise end

    monkeypatch.setattr(cli, "app", work)

    with pytest.raises(SystemExit) as left:
        __main__.main()

    assert left.value.code == 1
    assert capsys.readouterr().err == f"interrupted: {words}\n"


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["nothing"], 2, "No such command 'nothing'"),
        (["job", "show"], 2, "Missing argument 'NAME'"),
        (["simulate", "x", "--rounds", "0"], 2, "Invalid value for '--rounds'"),
        (["simulate", "x", "--tracking", "wandb"], 2, "must be one of tensorboard, mlflow"),
        (["job", "show", "nothing"], 1, "error: no job 'nothing'; there are"),
    ],
)
def test_wrong_usage_ends_with_2_and_a_failure_with_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: list[str], code: int, message: str
):
    monkeypatch.setattr(sys, "argv", ["brats-fl", *arguments])

    with pytest.raises(SystemExit) as end:
        __main__.main()

    assert end.value.code == code
    assert message in capsys.readouterr().err


def test_command_for_which_memory_ran_out_says_so(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    app = typer.Typer()

    @app.command()
    def work() -> None:
        raise MemoryError

    monkeypatch.setattr(cli, "app", app)
    monkeypatch.setattr(sys, "argv", ["brats-fl"])

    with pytest.raises(SystemExit) as end:
        __main__.main()

    assert end.value.code == 1
    assert capsys.readouterr().err.strip() == "error: memory ran out; free some, or take a machine with more"


def test_error_of_ours_that_monai_wrapped_is_told_as_ours(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
):
    def work() -> None:
        Compose([LoadCased()])({"case": "P_001", "image": [str(tmp_path / "P_001_t1ce.nii")] * 4})

    monkeypatch.setattr(cli, "app", work)
    monkeypatch.setattr(sys, "argv", ["brats-fl"])

    with pytest.raises(SystemExit) as end:
        __main__.main()

    assert end.value.code == 1
    assert capsys.readouterr().err.startswith("error: P_001: t1c: ")


def test_command_line_itself_loads_neither_torch_nor_monai():
    heavy = {"torch", "monai", "nvflare", "pandas"}
    program = f"import sys, brats_fl_tools.cli; sys.exit(' '.join({heavy} & set(sys.modules)))"

    done = subprocess.run([sys.executable, "-W", "ignore", "-c", program], capture_output=True, text=True, check=False)

    assert done.stderr.strip() == ""


def test_argument_of_no_letters_is_wrong_usage_and_not_the_current_folder(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(sys, "argv", ["brats-fl", "report", "run", "--sites", ""])

    with pytest.raises(SystemExit) as end:
        __main__.main()

    assert end.value.code == 2
    assert "an argument is empty, behind `report run --sites`" in capsys.readouterr().err


def test_name_that_the_terminal_cannot_show_ends_nothing():
    code = "from brats_fl_tools import cli; cli.app = lambda: cli.typer.echo('case=\\u4e2d\\udce4'); cli.main()"

    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, env={**os.environ, "PYTHONIOENCODING": "latin-1"}
    )

    assert (done.returncode, done.stdout.strip()) == (0, rb"case=\u4e2d\udce4"), done.stderr
