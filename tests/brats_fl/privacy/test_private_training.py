"""The private step, on a network of one weight whose gradients a reader sees, and in a bundle's own trainer."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from tests.tiny_network import TINY, tiny_model
from tests.tiny_sites import make_tiny_sites
from torch import nn
from torch.utils.data import DataLoader

from brats_fl.cases.datalists import read_datalist, write_datalist
from brats_fl.errors import JobError, PrivacyBudgetError, PrivacyError
from brats_fl.privacy import private_training
from brats_fl.privacy.budget import BUDGET_FILE, SPENT_FILE, begin_record, read_spent
from brats_fl.privacy.noise import secret_normal, secret_uniform
from brats_fl.privacy.private_training import (
    PatientDraws,
    PrivateStep,
    add_clipped,
    cases_by_patient,
    check_network,
    keep_scales,
)
from brats_fl.tasks import LocalSettings, Task, TaskFailure, TaskResult
from brats_fl.trainer_process import TaskLoop
from brats_fl.training import LocalTraining, train_round, validate

BUNDLE = Path(__file__).parents[3] / "bundles" / "brats_unet"
CHOSEN = {"noise_multiplier": 1.0, "clipping_norm": 1.0, "sampling_rate": 1.0, "delta": 1e-3}


# --- One step of one weight: the loss is weight * image, and so the gradient is the image ---


def engine() -> Any:
    network = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(network.weight)
    return SimpleNamespace(
        network=network,
        optimizer=torch.optim.SGD(network.parameters(), lr=1.0),
        loss_function=lambda prediction, label: prediction,
        inferer=lambda image, network: network(image),
        prepare_batch=lambda batch, device, non_blocking: (batch["image"], batch["label"]),
        state=SimpleNamespace(device="cpu"),
        non_blocking=False,
        data_loader=SimpleNamespace(dataset=SimpleNamespace(data=())),
    )


def patient(*gradients: float) -> dict[str, Any]:
    image = torch.tensor(gradients).reshape(-1, 1)
    return {"image": image, "label": image}


def weight_after(step: PrivateStep, *patients: dict[str, Any]) -> float:
    trained = engine()
    step(trained, iter(patients))
    return float(trained.network.weight.detach())


@pytest.fixture
def no_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(private_training, "secret_normal", np.zeros)


@pytest.mark.usefixtures("no_noise")
def test_each_patient_counts_by_the_mean_over_its_patches_clipped_and_divided_by_those_expected():
    step = PrivateStep(noise_multiplier=1.0, clipping_norm=1.0, expected=4.0)

    # Means .5 and 5, of which 1 is left; (.5 + 1) / 4; gradient descent goes the other way.
    assert weight_after(step, patient(0.25, 0.75), patient(2.0, 8.0)) == pytest.approx(-0.375)


@pytest.mark.usefixtures("no_noise")
def test_one_patient_changes_the_sum_by_the_clipping_norm_at_most_whatever_its_scans_are():
    step = PrivateStep(noise_multiplier=1.0, clipping_norm=1.0, expected=1.0)
    without = weight_after(step, patient(0.5))

    for odd in (1e30, -1e30, float("inf"), float("nan")):
        assert abs(weight_after(step, patient(0.5), patient(odd)) - without) <= 1 + 1e-6


def test_step_in_which_nobody_is_drawn_still_adds_noise():
    step = PrivateStep(noise_multiplier=3.0, clipping_norm=2.0, expected=4.0)

    weights = np.array([weight_after(step) for _ in range(2000)])

    # Deviation 3 x 2 / 4 = 1.5; of 2,000 draws the estimate lies within 8 % but once in 10^6.
    assert weights.std() == pytest.approx(1.5, rel=0.08)
    assert abs(weights.mean()) < 0.17


def test_gradient_is_clipped_over_all_parameters_together():
    total = [torch.zeros(1), torch.zeros(1)]

    add_clipped(total, [torch.tensor([3.0]), torch.tensor([4.0])], clipping_norm=1.0)  # global norm 5

    torch.testing.assert_close(torch.cat(total), torch.tensor([0.6, 0.8]))


# --- Chance ---


def test_noise_is_normal_and_never_the_same_twice():
    first, second = secret_normal(100_001), secret_normal(100_001)

    assert not np.array_equal(first, second)
    assert abs(first.mean()) < 0.02
    assert first.std() == pytest.approx(1, abs=0.012)
    assert (first**4).mean() == pytest.approx(3, abs=0.2)
    assert np.mean(np.abs(first) > 1.96) == pytest.approx(0.05, abs=0.004)
    assert abs(np.corrcoef(first[:50_000], first[50_001:])[0, 1]) < 0.03  # the two halves of the pairs


def test_seed_of_the_job_does_not_reach_the_noise():
    torch.manual_seed(1)
    first = secret_uniform(4)
    torch.manual_seed(1)

    assert not np.array_equal(first, secret_uniform(4))


def test_patients_are_drawn_one_by_one_with_the_probability_and_not_by_their_scans():
    class Cases:
        data = ()

        def __getitem__(self, number: int) -> dict[str, Any]:
            return {"image": torch.tensor([float(number)])}

    loader = DataLoader(Cases(), batch_size=3, sampler=range(12_000))
    draws = PatientDraws(loader, [[0], [1, 2]], sampling_rate=0.25)

    steps = [list(step) for step in draws]

    assert len(steps) == len(draws) == 4000
    assert sum(map(len, steps)) / 4000 == pytest.approx(0.5, abs=0.05)  # q N
    assert np.mean([not step for step in steps]) == pytest.approx(0.5625, abs=0.05)  # nobody: .75^2
    batches = [batch["image"] for step in steps for batch in step]
    assert {tuple(batch.shape) for batch in batches} == {(3, 1)}
    seen = torch.cat([batch for batch in batches if batch[0, 0] > 0])
    assert (seen == 1).double().mean() == pytest.approx(0.5, abs=0.05)  # the second's two cases alike


# --- Networks and lists ---


def test_network_with_running_statistics_is_refused():
    with pytest.raises(PrivacyError, match=r"1\.num_batches_tracked is no parameter"):
        check_network(nn.Sequential(nn.Conv3d(1, 1, 3), nn.BatchNorm3d(1)))

    check_network(nn.Sequential(nn.Conv3d(1, 1, 3), nn.InstanceNorm3d(1, affine=True)))


def test_scales_only_leaves_kernels_as_they_are():
    network = nn.Sequential(nn.Conv3d(1, 2, 3), nn.InstanceNorm3d(2, affine=True), nn.PReLU())

    keep_scales(network)

    trained = [name for name, parameter in network.named_parameters() if parameter.requires_grad]
    assert trained == ["0.bias", "1.weight", "1.bias", "2.weight"]


# --- In a bundle's trainer ---


@pytest.fixture
def settings(tmp_path: Path) -> LocalSettings:
    """Three training cases of two patients."""
    site = make_tiny_sites(tmp_path / "sites", {"hospital-1": (3, 1, 0)}) / "hospital-1"
    datalist = read_datalist(site / "datalist.json")
    first, *others = datalist.training
    of_two = (first, *(replace(other, patient="b") for other in others))
    write_datalist(site / "datalist.json", replace(datalist, training=of_two))
    (site / BUDGET_FILE).write_text(json.dumps({"epsilon": 20.0, "delta": 1e-3}), encoding="utf-8")
    begin_record(site / SPENT_FILE)
    return LocalSettings(
        bundle=BUNDLE,
        datalist=site / "datalist.json",
        state_dir=tmp_path / "state",
        site="hospital-1",
        rounds=2,
        profile="small",
        overrides=TINY,
        algorithm="dp",
        algorithm_settings=CHOSEN,
        budget=site / BUDGET_FILE,
    )


def round_of(settings: LocalSettings, number: int = 0) -> TaskResult:
    training = LocalTraining(settings)
    training.initialize()
    try:
        return train_round(training, Task("train", {"weights": tiny_model()}, number))
    finally:
        training.finalize()


def test_private_round_tells_its_epsilon_and_nothing_that_was_computed_without_noise(settings):
    result = round_of(settings)

    assert result.metrics == {}
    assert set(result.statistics) == {"cases", "steps", "epsilon", "delta"}  # no loss, and no times
    assert result.statistics["steps"] == 2
    assert 0 < result.statistics["epsilon"] < 20
    assert set(result.payloads) == {"weights"}
    assert all(np.isfinite(value).all() and value.any() for value in result.update.values())
    (line,) = read_spent(settings.budget.with_name(SPENT_FILE))
    assert (line.round, line.noise.steps, len(line.patients)) == (0, 2, 2)


def test_private_round_is_never_the_same_twice(settings):
    first, second = round_of(settings).update, round_of(settings).update

    assert not np.array_equal(first["model.0.conv.unit0.conv.weight"], second["model.0.conv.unit0.conv.weight"])


def test_patients_of_a_list_have_all_their_cases(settings):
    datalist = read_datalist(settings.datalist)

    assert cases_by_patient(datalist, [case.case for case in datalist.training]) == [[0], [1, 2]]


def test_only_scales_move_where_no_more_is_asked_for(settings):
    update = round_of(replace(settings, algorithm_settings={**CHOSEN, "scales_only": True})).update

    assert {name for name, value in update.items() if value.any()} == {n for n, v in update.items() if v.ndim <= 1}


def test_round_that_would_pass_the_budget_is_not_trained(settings):
    settings.budget.write_text('{"epsilon": 0.5, "delta": 0.001}', encoding="utf-8")

    with pytest.raises(PrivacyBudgetError, match=r"0\.5 is the most that this hospital allows"):
        round_of(settings)

    assert not settings.state_dir.exists()
    failed = TaskLoop(settings).carry_out(Task("train", {"weights": tiny_model()}))
    assert isinstance(failed, TaskFailure)
    assert failed.code == "PRIVACY_BUDGET"


def test_crash_in_a_round_gives_nothing_back(settings, monkeypatch):
    def crash(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(private_training, "add_noise", crash)
    with pytest.raises(MemoryError):
        round_of(settings)

    assert len(read_spent(settings.budget.with_name(SPENT_FILE))) == 1


def test_last_evaluation_tells_no_metrics(settings):
    training = LocalTraining(settings)
    training.initialize()

    assert validate(training, Task("validate", {"weights": tiny_model()})).metrics == {}

    training.finalize()


def test_site_refuses_a_private_job_that_leaves_something_to_choose(settings):
    with pytest.raises(JobError, match="noise_multiplier must be chosen"):
        round_of(replace(settings, algorithm_settings={k: v for k, v in CHOSEN.items() if k != "noise_multiplier"}))
