"""What a private job comes to before it starts: epsilon by hospital, and how much of a step is signal.

A step's signal is at most q * N * C long, when the gradients of all patients that are drawn are as long as allowed and
point the same way; its noise, sigma * C in each of d trained values, is sigma * C * sqrt(d) long on average. Over T
steps the signals add up to T times one at best, the noise to sqrt(T) times one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import sqrt
from typing import Any, Final

from brats_fl.algorithms import check_chosen
from brats_fl.bundle import build_network
from brats_fl.errors import JobError
from brats_fl.privacy.accounting import NoisedSteps, epsilon_of, noise_for
from brats_fl.settings import bundle_settings
from brats_fl_tools.jobs.assembly import Configuration

LEARNS: Final = 0.25
"""Signal of a step of all hospitals, in lengths of its noise, below which little is to be hoped for: a rule of thumb.

Abadi et al. 2016, section 5.2, train 71,010 values on MNIST in lots of 600: sigma 8, 4 and 2 are .28, .56 and 1.1 in
this measure, and 90, 95 and 97 % right. Segmentation from tens of patients is harder."""

ROUTE: Final = (
    "What can learn: start from a trained model (--start-from), train its scales, shifts and biases alone "
    "(--set scales_only=true), draw many patients at a step (--set sampling_rate=1), take fewer steps (--rounds, "
    "--set steps_per_epoch), or bring more patients."
)


@dataclass(frozen=True)
class Plan:
    """A private job as it will run."""

    noise: NoisedSteps
    """All of its steps."""
    delta: float
    clipping_norm: float
    rounds: int
    trained: int
    """Values that are trained."""
    values: int
    """Of the network."""
    patients: Mapping[str, int]
    """Hospital -> training patients."""
    starts_from: bool
    """Whether it starts from a given model."""
    epsilon: float
    """Of each patient, after all rounds; the same at every hospital, whatever its size."""

    def signal(self, site: str) -> float:
        """Of a step at a hospital: the longest signal in lengths of the noise."""
        drawn = self.noise.sampling_rate * self.patients[site]
        return drawn / (self.noise.noise_multiplier * sqrt(self.trained))

    @property
    def signal_of_all(self) -> float:
        """Of a step of all hospitals: their mean by patients adds signals up, and noises by their squares."""
        drawn = self.noise.sampling_rate * sum(self.patients.values())
        return drawn / (self.noise.noise_multiplier * sqrt(self.trained * len(self.patients)))

    @property
    def signal_of_study(self) -> float:
        """Of all steps of all hospitals, at best."""
        return self.signal_of_all * sqrt(self.noise.steps)

    @property
    def verdict(self) -> str:
        """In words, whether anything will be learnt."""
        if self.signal_of_study < 1:
            return (
                f"Nothing will be learnt: even if the gradients of all {self.noise.steps:,} steps pointed the same "
                f"way, the noise would be {1 / self.signal_of_study:.2g} times as long as what they add up to. {ROUTE}"
            )
        if self.signal_of_all < LEARNS:
            return (
                "Little will be learnt: a step is mostly noise, and only what very many steps agree on is more than "
                f"that. {ROUTE} Compare the result with the model that it starts from."
            )
        return (
            f"This may learn: a step's signal is up to {self.signal_of_all:.2g} times as long as its noise. Compare "
            "with a run without noise, and with the model that it starts from."
        )

    def warnings(self) -> list[str]:
        """What else should be known before one starts."""
        found = []
        if large := [site for site, count in self.patients.items() if self.delta * count >= 1]:
            found.append(
                f"delta {self.delta:g} is not below 1 / patients of {', '.join(large)}: it would allow to publish one "
                "of them as a whole; take a smaller one"
            )
        if self.trained < self.values and not self.starts_from:
            found.append("scales_only without --start-from: the convolutions stay random")
        return found


def plan_job(
    built: Configuration, profile: str, patients: Mapping[str, int], epsilon: float | None, starts_from: bool
) -> Plan:
    """The plan of a configured job.

    Args:
        built: The job with its options.
        profile: Of its bundle.
        patients: Hospital -> training patients.
        epsilon: To find the noise multiplier for; None where it is chosen.
        starts_from: Whether a start was given.

    Raises:
        JobError: The job is not private, or something is left to choose, or too much is chosen.
        PrivacyError: No noise does it.
    """
    from brats_fl.privacy.private_training import is_scale

    if built.algorithm is None or not built.algorithm.is_private or built.bundle is None:
        raise JobError(f"{built.meta['name']}: is no private job; take brats_unet_dp, or a job with algorithm dp")
    chosen = dict(built.algorithm.settings)
    if (epsilon is None) == ("noise_multiplier" not in chosen):
        raise JobError("choose either --set noise_multiplier=... or --epsilon, which finds it")
    steps = _steps(built, profile)
    if epsilon is not None:
        _check_others(built, chosen)
        chosen["noise_multiplier"] = noise_for(epsilon, chosen["delta"], chosen["sampling_rate"], steps)
    else:
        check_chosen(built.algorithm, str(built.meta["name"]))
    noise = NoisedSteps(chosen["noise_multiplier"], chosen["sampling_rate"], steps)
    parameters = list(build_network(built.bundle, profile, seed=0).parameters())
    trained = [one for one in parameters if is_scale(one) or not chosen["scales_only"]]
    return Plan(
        noise=noise,
        delta=chosen["delta"],
        clipping_norm=chosen["clipping_norm"],
        rounds=int(built.variables["num_rounds"]),
        trained=sum(one.numel() for one in trained),
        values=sum(one.numel() for one in parameters),
        patients=patients,
        starts_from=starts_from,
        epsilon=epsilon_of([noise], chosen["delta"]),
    )


def _steps(built: Configuration, profile: str) -> int:
    """Steps of all rounds of the job."""
    assert built.bundle is not None
    variables: Mapping[str, Any] = built.variables
    default = bundle_settings(built.bundle, profile)["steps_per_epoch"].default
    of_round = int(variables.get("steps_per_epoch", default)) * int(variables["local_epochs"])
    return of_round * int(variables["num_rounds"])


def _check_others(built: Configuration, chosen: Mapping[str, float]) -> None:
    unset = [name for name in ("clipping_norm", "sampling_rate", "delta") if name not in chosen]
    if unset:
        raise JobError(f"{built.meta['name']}: choose {', '.join(unset)}: {' '.join(f'--set {n}=...' for n in unset)}")
