"""Nobody starts hundreds of hours without having been told."""

from __future__ import annotations

import pytest

from brats_fl.errors import RunError
from brats_fl_tools.jobs.assembly import JobOptions
from brats_fl_tools.jobs.source import read_source
from brats_fl_tools.runs import workload

JOB = "brats_unet_fedavg"


def on_a_machine_with(monkeypatch: pytest.MonkeyPatch, gpu: bool) -> None:
    monkeypatch.setattr(workload, "has_gpu", lambda: gpu)


@pytest.mark.parametrize(("gpu", "profile"), [(True, "full"), (False, "small")])
def test_profile_that_nobody_chose_fits_the_machine(
    gpu: bool, profile: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    on_a_machine_with(monkeypatch, gpu)

    assert workload.profile_here(read_source(JOB), None) == profile
    assert ("no GPU here: profile small" in capsys.readouterr().out) is not gpu


def test_profile_that_was_chosen_stays(monkeypatch: pytest.MonkeyPatch):
    on_a_machine_with(monkeypatch, gpu=False)

    assert workload.profile_here(read_source(JOB), "full") == "full"
    assert workload.profile_here(read_source("brats_statistics"), None) == "full"


def test_steps_are_those_of_all_hospitals_and_rounds():
    options = JobOptions("full", rounds=10, values={"local_epochs": 2, "batch_size": 4}, sites=("a", "b", "c"))

    work = workload.workload_of(read_source(JOB), options)

    assert work == workload.Workload(10, 500, 3, 4, (128, 128, 128))  # 2 epochs of 250 steps
    assert work.total == 15_000
    assert work.describe(2.4) == (
        "10 rounds x 500 steps x 3 hospitals = 15,000 steps of 4 patches of 128 x 128 x 128; a step takes about 2.4 s "
        "on this processor, all of them about 10.0 hours, validation not counted"
    )


def test_hours_are_said_from_a_measured_step_and_may_be_declined(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    on_a_machine_with(monkeypatch, gpu=False)
    options = JobOptions("full", rounds=1, values={"patch_size": [32, 32, 32], "batch_size": 1, "steps_per_epoch": 1})

    workload.warn_of_hours(read_source(JOB), options)  # no terminal: nobody to ask
    assert "1 rounds x 1 steps x 5 hospitals = 5 steps of 1 patches of 32 x 32 x 32" in capsys.readouterr().out

    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    monkeypatch.setattr("typer.confirm", lambda question: False)
    with pytest.raises(RunError, match="nothing was started; --profile small"):
        workload.warn_of_hours(read_source(JOB), options)


@pytest.mark.parametrize(("gpu", "profile"), [(True, "full"), (False, "small")])
def test_run_that_fits_the_machine_needs_no_word(
    gpu: bool, profile: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    on_a_machine_with(monkeypatch, gpu)

    workload.warn_of_hours(read_source(JOB), JobOptions(profile))

    assert capsys.readouterr().out == ""
