"""JOB OPTIONS: a field of ``JobFlags`` is an option of every command that takes a job."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import get_type_hints

import pytest
import typer
from typer.testing import CliRunner

from brats_fl_tools import cli
from brats_fl_tools.jobs.options import JobFlags, NameArgument, SentJobFlags, names_in, takes_job_options
from brats_fl_tools.jobs.source import read_source


@pytest.mark.parametrize("command", ["simulate", "submit", "poc submit", "job build"])
def test_every_command_that_takes_a_job_has_every_job_option(command: str):
    said = CliRunner().invoke(cli.app, [*command.split(), "--help"], env={"COLUMNS": "200"}).output

    hints = get_type_hints(JobFlags, include_extras=True)
    options = [hints[field.name].__metadata__[0].default for field in fields(JobFlags)]
    assert {"--profile", "--rounds", "--set", "--sites-only", "--leave-out", "--timeouts-from", "--start-from"} <= set(
        options
    )
    assert [option for option in options if option not in said] == []
    assert ("--preinstalled" in said) == (command != "simulate")


def test_options_arrive_as_they_were_given():
    app, got = typer.Typer(), []

    @app.command()
    @takes_job_options
    def run(name: NameArgument, flags: SentJobFlags, out: Path = Path("there")) -> None:
        """Run it."""
        got.append((name, flags.options(read_source("brats_unet_fedavg"), 0.5), flags.asked, out))

    arguments = "unet --rounds 3 --set a=1 --set b=x --sites-only n,s --sites-only e --leave-out n --preinstalled"
    result = CliRunner().invoke(app, arguments.split())

    assert result.exit_code == 0, result.output
    name, options, asked, out = got[0]
    assert (name, out, options.profile, options.rounds) == ("unet", Path("there"), "full", 3)
    assert (options.values, options.preinstalled, options.polling_seconds) == ({"a": 1, "b": "x"}, True, 0.5)
    assert (asked.only, asked.leave_out) == (("n", "s", "e"), ("n",))


def test_names_may_be_repeated_or_have_commas_between():
    assert names_in(["a, b", "c", ","]) == ("a", "b", "c")
    assert names_in(None) == ()


@pytest.mark.parametrize("values", [[""], [" ", ","]])
def test_option_that_names_nobody_is_no_option_that_was_not_given(values: list[str]):
    with pytest.raises(typer.BadParameter, match="a hospital's name is wanted"):
        names_in(values)
