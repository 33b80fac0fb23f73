"""The private learning step: patients drawn by chance, each patient's gradient clipped, noise on the sum.

``make_private`` puts it into a bundle's own trainer, in the place of loader and step; schedule, optimiser and all else
of the trainer stay. The mechanism and its source are in ``brats_fl.algorithms.dp``, what it is worth in ``accounting``.
Each patient is a forward and a backward pass of its own, so that neither a loss over a batch nor a normalisation can
couple two patients, and memory does not grow with the number that is drawn.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import torch
from monai.data.utils import list_data_collate
from torch import Tensor, nn

from brats_fl.algorithms import Algorithm
from brats_fl.cases.datalists import DataList, read_datalist
from brats_fl.errors import PrivacyError
from brats_fl.exchange import shared_keys
from brats_fl.failures import during
from brats_fl.network.engines import batch_items
from brats_fl.privacy.accounting import NoisedSteps
from brats_fl.privacy.budget import Spending, digests_of, reserve
from brats_fl.privacy.noise import secret_normal, secret_uniform
from brats_fl.tasks import LocalSettings

Patches = Mapping[str, Any]
"""A batch of patches of one patient."""

LEAVES: Final = ("cases", "steps")
"""What is told of a private round beside its update: the same whatever the scans show."""


class PatientDraws:
    """Loader of a private trainer: at each step the patients that chance has drawn, each as a batch of patches.

    Args:
        loader: The bundle's own, whose dataset, number of steps and patches a batch hold.
        patients: Of each patient, the numbers of its cases in the dataset.
        sampling_rate: Probability of a patient at a step.
    """

    def __init__(self, loader: Any, patients: Sequence[Sequence[int]], sampling_rate: float) -> None:
        self.dataset = loader.dataset
        self.patches = int(loader.batch_size)
        self.steps = len(loader)
        self.patients = patients
        self.sampling_rate = sampling_rate

    def __len__(self) -> int:
        """Steps of an epoch."""
        return self.steps

    def __iter__(self) -> Iterator[Iterator[Patches]]:
        """For each step the patches of those drawn, read one patient after the other; a step may have none."""
        for _ in range(self.steps):
            chances = secret_uniform(len(self.patients))
            drawn = [who for who, chance in zip(self.patients, chances, strict=True) if chance < self.sampling_rate]
            yield map(self._patches_of, drawn)

    def _patches_of(self, cases: Sequence[int]) -> Patches:
        """Patches of one patient, each of a case of its that chance chooses."""
        batch: Patches = list_data_collate([self.dataset[secrets.choice(cases)] for _ in range(self.patches)])
        return batch


class PrivateStep:
    """An iteration of a trainer: what the optimiser sees is the noised mean of clipped gradients.

    The loss is withheld, and stands as NaN in the engine's output.

    Args:
        noise_multiplier: Standard deviation of the noise, in clipping norms.
        clipping_norm: Longest gradient of a patient.
        expected: Patients that a step draws on average, q * N.
    """

    def __init__(self, noise_multiplier: float, clipping_norm: float, expected: float) -> None:
        self.noise_multiplier = noise_multiplier
        self.clipping_norm = clipping_norm
        self.expected = expected

    def __call__(self, engine: Any, patients: Iterator[Patches]) -> list[dict[str, float]]:
        """Take a step; raises ``StepError``, which names the cases, where a patient's gradient cannot be had."""
        engine.network.train()
        trained = [parameter for parameter in engine.network.parameters() if parameter.requires_grad]
        total = [torch.zeros_like(parameter) for parameter in trained]
        for batch in patients:
            with during("training on a patch", batch_items(engine, batch)):
                add_clipped(total, gradient_of(engine, batch, trained), self.clipping_norm)
        add_noise(total, self.noise_multiplier * self.clipping_norm)
        engine.optimizer.zero_grad()
        for parameter, gradient in zip(trained, total, strict=True):
            parameter.grad = gradient / self.expected
        engine.optimizer.step()
        return [{"loss": float("nan")}]


def gradient_of(engine: Any, batch: Patches, trained: Sequence[nn.Parameter]) -> list[Tensor]:
    """Gradient of the loss over one patient's patches, an array for each parameter."""
    image, label = engine.prepare_batch(batch, engine.state.device, engine.non_blocking)[:2]
    loss = engine.loss_function(engine.inferer(image, engine.network), label).mean()
    found = torch.autograd.grad(loss, trained, allow_unused=True)
    return [torch.zeros_like(p) if g is None else g for p, g in zip(trained, found, strict=True)]


def add_clipped(total: Sequence[Tensor], gradient: Sequence[Tensor], clipping_norm: float) -> None:
    """Add a gradient, scaled down to the clipping norm at most, to a sum; one that is not finite counts as none."""
    norm = torch.stack([part.double().norm() for part in gradient]).norm().item()
    if norm != norm or norm == float("inf"):  # an error here would tell of the patient
        return
    scale = min(1.0, clipping_norm / norm) if norm else 1.0
    for whole, part in zip(total, gradient, strict=True):
        whole.add_(part, alpha=scale)


def add_noise(total: Sequence[Tensor], deviation: float) -> None:
    """Add independent Gaussian noise to every value of a sum."""
    for whole in total:
        noise = torch.from_numpy(secret_normal(whole.numel())).reshape(whole.shape)
        whole.copy_(whole.double() + deviation * noise.to(whole.device))


def make_private(trainer: Any, settings: Mapping[str, float], datalist: DataList) -> None:
    """Put patients' draws and the private step into a bundle's trainer.

    Raises:
        PrivacyError: The network would share more than its parameters.
    """
    check_network(trainer.network)
    if settings["scales_only"]:
        keep_scales(trainer.network)
    patients = cases_by_patient(datalist, [item["case"] for item in trainer.data_loader.dataset.data])
    rate = settings["sampling_rate"]
    trainer.data_loader = PatientDraws(trainer.data_loader, patients, rate)
    trainer._process_function = PrivateStep(
        settings["noise_multiplier"], settings["clipping_norm"], rate * len(patients)
    )


def check_network(network: nn.Module) -> None:
    """Refuse a network that would share what gets no noise: running statistics of scans, as batch norm has them.

    Raises:
        PrivacyError: Names the first.
    """
    if other := sorted(set(shared_keys(network)) - {name for name, _ in network.named_parameters()}):
        raise PrivacyError(
            f"{other[0]} is no parameter, such as a running statistic of batch norm: it would leave without noise; "
            "take a bundle with instance norm"
        )


def keep_scales(network: nn.Module) -> None:
    """Hold still all but the parameters of one dimension: scales, shifts, biases, slopes of PReLU."""
    for parameter in network.parameters():
        parameter.requires_grad_(is_scale(parameter))


def is_scale(parameter: Tensor) -> bool:
    """Whether a parameter is one of ``keep_scales``: a convolution's kernel has five dimensions."""
    return parameter.ndim <= 1


def cases_by_patient(datalist: DataList, cases: Sequence[str]) -> list[list[int]]:
    """Of each training patient, the numbers of its cases in a list of them."""
    patient_of = {case.case: case.patient for case in datalist.training}
    numbers: dict[str, list[int]] = {}
    for number, case in enumerate(cases):
        numbers.setdefault(patient_of[case], []).append(number)
    return list(numbers.values())


def reserve_round(
    settings: LocalSettings, algorithm: Algorithm, steps_per_epoch: int, round_index: int
) -> dict[str, float]:
    """Spend what a round costs, before it trains, and what of that is told: epsilon of the study so far, and delta.

    Both follow from the job's settings and the rounds in which the hospital took part, and from nothing in a scan.

    Raises:
        PrivacyBudgetError: The hospital does not allow it.
    """
    if settings.budget is None:
        raise PrivacyError("a private job needs the place of the hospital's budget; take the executor of this release")
    chosen, steps = algorithm.settings, steps_per_epoch * settings.local_epochs
    noise = NoisedSteps(chosen["noise_multiplier"], chosen["sampling_rate"], steps)
    patients = digests_of(case.patient for case in read_datalist(settings.datalist).training)
    spending = Spending(settings.state_dir.name, round_index, patients, noise)
    spent = reserve(settings.budget, spending, chosen["delta"])
    return {"epsilon": round(spent.of_study, 6), "delta": chosen["delta"]}
