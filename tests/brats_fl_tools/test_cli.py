from __future__ import annotations

import sys

import pytest
import typer

from brats_fl_tools import __main__, cli


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
