"""What a run will ask of this machine, said before it starts: nobody should find out after a night."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from pathlib import Path

import typer

from brats_fl.bundle import build_network
from brats_fl.constants import MODALITIES
from brats_fl.errors import RunError
from brats_fl.settings import bundle_settings
from brats_fl_tools.jobs.assembly import JobOptions, configure
from brats_fl_tools.jobs.source import JobSource


def has_gpu() -> bool:
    """Whether torch sees a GPU here."""
    import torch

    return torch.cuda.is_available()


def profile_here(source: JobSource, asked: str | None) -> str:
    """The profile that was asked for; else ``full`` where there is a GPU, and ``small``, with a line, elsewhere."""
    if asked is not None or not source.trains:
        return asked or "full"
    if has_gpu():
        return "full"
    typer.echo("no GPU here: profile small (2 mm, for a CPU); --profile full is the 1 mm recipe")
    return "small"


@dataclass(frozen=True)
class Workload:
    """The training steps of a run."""

    rounds: int
    steps: int
    """Of a hospital in a round."""
    sites: int
    batch_size: int
    patch_size: tuple[int, int, int]

    @property
    def total(self) -> int:
        """Steps of all hospitals together."""
        return self.rounds * self.steps * self.sites

    def describe(self, step_seconds: float) -> str:
        """In words, with the time that it takes where all hospitals share one machine."""
        patch = " x ".join(map(str, self.patch_size))
        return (
            f"{self.rounds} rounds x {self.steps} steps x {self.sites} hospitals = {self.total:,} steps of "
            f"{self.batch_size} patches of {patch}; a step takes about {step_seconds:.1f} s on this processor, all of "
            f"them about {self.total * step_seconds / 3600:.1f} hours, validation not counted"
        )


def workload_of(source: JobSource, options: JobOptions) -> Workload:
    """What a job with these options trains."""
    built = configure(source, options)
    assert built.bundle is not None
    settings = bundle_settings(built.bundle, options.profile)
    values = {name: setting.default for name, setting in settings.items()} | dict(built.variables)
    return Workload(
        rounds=int(values["num_rounds"]),
        steps=int(values["local_epochs"]) * int(values["steps_per_epoch"]),
        sites=len(options.sites or source.sites),
        batch_size=int(values["batch_size"]),
        patch_size=tuple(values["patch_size"]),
    )


def measure_step(bundle: Path, profile: str, work: Workload) -> float:
    """Seconds of a training step on this processor, forward and backward: one patch is measured, and counts for all."""
    import torch

    network = build_network(bundle, profile, seed=0)
    image = torch.zeros(1, len(MODALITIES), *work.patch_size)
    begin = time.perf_counter()
    network(image).mean().backward()
    return work.batch_size * (time.perf_counter() - begin)


def warn_of_hours(source: JobSource, options: JobOptions) -> None:
    """Where a job for a GPU is to run without one, say what that takes, and ask on a terminal.

    Raises:
        RunError: The user does not want it.
    """
    if not source.trains or options.profile != "full" or has_gpu():
        return
    work = workload_of(source, options)
    assert source.bundle is not None
    typer.echo(f"no GPU here: {work.describe(measure_step(source.bundle, options.profile, work))}")
    if sys.stdin.isatty() and not typer.confirm("start it?"):
        raise RunError("nothing was started; --profile small is made for a CPU")
