from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from tests.jobs.test_jobs import CHOSEN
from tests.tiny_kits import TinyKits
from tests.tiny_sites import make_tiny_sites
from typer.testing import CliRunner

from brats_fl.errors import DataListError, FolderError, JobError, KitError
from brats_fl.privacy.accounting import NoisedSteps, epsilon_of
from brats_fl.privacy.budget import BUDGET_FILE, SPENT_FILE, Budget, Spending, digests_of, read_spent, reserve
from brats_fl_tools.cli import app
from brats_fl_tools.jobs.assembly import JobOptions, configure
from brats_fl_tools.jobs.source import read_source
from brats_fl_tools.privacy.budgets import sum_up, write_budgets
from brats_fl_tools.privacy.plan import Plan, plan_job

# 4 hospitals of 25 patients, all drawn, 10,000 values: a step's noise is 2 x 100, its signal 25, and of all four
# hospitals 100 / (2 x 100 x 2); of 16 steps four times as much.
PLAN = Plan(
    noise=NoisedSteps(2.0, 1.0, 16),
    delta=1e-3,
    clipping_norm=1.0,
    rounds=1,
    trained=10_000,
    values=10_000,
    patients={f"hospital-{number}": 25 for number in range(1, 5)},
    starts_from=False,
    epsilon=1.0,
)
OTHERS = {name: value for name, value in CHOSEN.items() if name != "noise_multiplier"}


def planned(values: dict[str, float], epsilon: float | None = None, **others: object) -> Plan:
    options = JobOptions("small", 2, {"steps_per_epoch": 3, "local_epochs": 2, **values, **others})
    return plan_job(configure(read_source("brats_unet_dp"), options), "small", {"a": 10}, epsilon, False)


def test_signal_is_told_in_lengths_of_the_noise():
    assert PLAN.signal("hospital-1") == 0.125
    assert PLAN.signal_of_all == 0.25
    assert PLAN.signal_of_study == 1.0


def test_verdict_says_plainly_when_nothing_will_be_learnt_and_what_could_be_done():
    small = replace(PLAN, patients={"hospital-1": 25})
    assert small.signal_of_study == 0.5
    assert small.verdict.startswith("Nothing will be learnt")
    assert "2 times as long" in small.verdict
    assert "--set scales_only=true" in small.verdict

    # 100 / (2 x 120 x 2) = .21 a step; 6 times as much in 36 steps.
    longer = replace(PLAN, trained=14_400, noise=NoisedSteps(2.0, 1.0, 36))
    assert longer.verdict.startswith("Little will be learnt")
    assert PLAN.verdict.startswith("This may learn: a step's signal is up to 0.25 times as long as its noise")


def test_delta_that_would_allow_to_publish_a_patient_and_scales_of_random_convolutions_are_warned_of():
    (delta,) = replace(PLAN, delta=0.04).warnings()
    assert "0.04 is not below 1 / patients of hospital-1" in delta

    (scales,) = replace(PLAN, trained=100).warnings()
    assert "stay random" in scales
    assert replace(PLAN, trained=100, starts_from=True).warnings() == []


def test_plan_counts_steps_of_all_rounds_and_the_values_that_are_trained():
    plan = planned(CHOSEN)

    assert plan.noise == NoisedSteps(4.0, 0.5, 12)  # 2 rounds x 2 epochs x 3 steps
    assert plan.epsilon == epsilon_of([plan.noise], 1e-3)
    assert (plan.trained, plan.values) == (4_812_512, 4_812_512)
    assert planned(CHOSEN, scales_only=True).trained == 4_173


def test_plan_finds_the_noise_for_an_epsilon():
    plan = planned({**OTHERS, "sampling_rate": 1.0}, epsilon=4.0)

    assert 3.9 < plan.epsilon <= 4.0


@pytest.mark.parametrize(
    ("values", "epsilon", "words"),
    [
        (CHOSEN, 4.0, "choose either"),
        (OTHERS, None, "choose either"),
        ({}, 4.0, "choose clipping_norm, sampling_rate, delta"),
    ],
)
def test_plan_wants_each_choice_once(values: dict[str, float], epsilon: float | None, words: str):
    with pytest.raises(JobError, match=words):
        planned(values, epsilon)


def test_plan_of_a_job_without_noise_is_refused():
    built = configure(read_source("brats_unet_fedavg"), JobOptions("small"))

    with pytest.raises(JobError, match="is no private job"):
        plan_job(built, "small", {"a": 10}, None, False)


def test_command_prints_epsilon_by_hospital_for_its_patients(tmp_path: Path):
    sites = make_tiny_sites(tmp_path / "sites", {"hospital-1": (2, 0, 0), "hospital-2": (1, 0, 0)})
    settings = [part for name, value in CHOSEN.items() for part in ("--set", f"{name}={value}")]

    result = CliRunner().invoke(
        app, ["privacy", "plan", "--sites", str(sites), "--profile", "small", "--rounds", "1", *settings]
    )

    assert result.exit_code == 0, result.output
    assert "1 rounds, 40 steps; noise_multiplier=4 clipping_norm=1 sampling_rate=0.5 delta=0.001" in result.output
    assert "Nothing will be learnt" in result.output
    assert not (tmp_path / "sites" / "hospital-1" / BUDGET_FILE).exists()


# --- Budgets ---


def test_budget_is_written_for_each_hospital_and_what_was_spent_is_summed_up(tmp_path: Path):
    sites = make_tiny_sites(tmp_path / "sites", {"hospital-1": (1, 0, 0), "hospital-2": (1, 0, 0)})
    write_budgets(sites, Budget(8.0, 1e-3), force=False)
    steps = NoisedSteps(4.0, 1.0, 1)
    reserve(sites / "hospital-1" / BUDGET_FILE, Spending("one", 0, digests_of(["ann"]), steps), 1e-3)

    rows = list(sum_up(sites))

    assert rows[0] == ("hospital-1", f"{epsilon_of([steps], 1e-3):.3f}", "8", "0.001", "1", "1")
    assert rows[1][:2] == ("hospital-2", "0.000")


def test_budget_is_written_nowhere_but_beside_a_hospitals_list(kits: TinyKits, tmp_path: Path):
    (tmp_path / "notes.txt").write_text("no list")
    (tmp_path / "empty").mkdir()

    for where, words in (
        (tmp_path / "sites", "no such data list"),
        (tmp_path / "notes.txt", "notes.txt"),
        (tmp_path / "empty", "holds no SITE/datalist.json"),
    ):
        with pytest.raises(DataListError, match=words):
            write_budgets(where, Budget(8.0, 1e-3), force=False)
    with pytest.raises(KitError, match="which has no patients"):
        write_budgets(kits.federation.server.folder, Budget(8.0, 1e-3), force=False)

    assert not list(tmp_path.rglob(BUDGET_FILE))


def test_budget_of_a_kit_lies_in_local_and_is_replaced_by_force_only(kits: TinyKits):
    kit = kits.hospital.folder
    write_budgets(kit, Budget(8.0, 1e-3), force=False)
    reserve(kit / "local" / BUDGET_FILE, Spending("one", 0, digests_of(["ann"]), NoisedSteps(4.0, 1.0, 1)), 1e-3)

    with pytest.raises(FolderError, match="is there already"):
        write_budgets(kit, Budget(9.0, 1e-3), force=False)
    write_budgets(kit, Budget(9.0, 1e-3), force=True)

    assert json.loads((kit / "local" / BUDGET_FILE).read_text(encoding="utf-8"))["epsilon"] == 9.0
    assert len(read_spent(kit / "local" / SPENT_FILE)) == 1


def test_record_of_a_budget_that_was_lost_goes_on_under_the_new_one(kits: TinyKits):
    kit = kits.hospital.folder
    write_budgets(kit, Budget(8.0, 1e-3), force=False)
    reserve(kit / "local" / BUDGET_FILE, Spending("one", 0, digests_of(["ann"]), NoisedSteps(4.0, 1.0, 1)), 1e-3)
    (kit / "local" / BUDGET_FILE).unlink()

    write_budgets(kit, Budget(8.0, 1e-3), force=False)

    assert len(read_spent(kit / "local" / SPENT_FILE)) == 1


def test_record_that_was_lost_is_not_begun_anew_by_a_new_budget(tmp_path: Path):
    sites = make_tiny_sites(tmp_path / "sites", {"hospital-1": (1, 0, 0)})
    write_budgets(sites, Budget(8.0, 1e-3), force=False)
    (sites / "hospital-1" / SPENT_FILE).unlink()

    write_budgets(sites, Budget(8.0, 1e-3), force=True)

    assert not (sites / "hospital-1" / SPENT_FILE).exists()


def test_half_a_budget_is_wrong_usage(tmp_path: Path):
    result = CliRunner().invoke(app, ["privacy", "budget", str(tmp_path), "--epsilon", "8"])

    assert result.exit_code == 2
    assert "neither has a default" in result.output
