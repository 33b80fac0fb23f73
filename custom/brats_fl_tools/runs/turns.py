"""How many sites of a simulation work at once: all where memory holds them, else as many as it and the cores bear."""

from __future__ import annotations

import os
from types import MappingProxyType

import psutil

from brats_fl.errors import JobError
from brats_fl_tools.jobs.built import BuiltJob

NO_TRAINING = "none"
"""In the place of a profile: of a job that trains nothing."""

SITE_GB = MappingProxyType({"small": 1.4, NO_TRAINING: 0.4})
"""Memory of a site's processes by profile, FLARE's client and the trainer; measured, see ``docs/resources.md``."""

FULL_SITE_GB = 8.0
"""Of any other profile: four loader processes of 1 GB each, and the trainer; an estimate."""

SERVER_GB = 2.0
"""FLARE's server, and what the machine itself needs."""

USUAL_SITES = 5
"""So many always work at once unless it is asked for otherwise: the jobs' own number."""

WITH_MEMORY = ("SecureExecutor", "FingerprintExecutor")
"""Executors that keep in memory, from one message to the next, what a site must not write down."""


def sites_at_once(sites: int, profile: str, memory_gb: float, cores: int) -> int:
    """Sites that work at once.

    More than one a core makes nothing faster, but sites that need not take turns keep their processes: starting them
    for every task costs more than many of them on few cores. So it is all of them, or as few as there are cores. Of a
    job that trains nothing it is all.

    Args:
        sites: How many there are.
        profile: Of the bundle.
        memory_gb: Of the machine.
        cores: Of the machine.
    """
    fitting = int((memory_gb - SERVER_GB) // SITE_GB.get(profile, FULL_SITE_GB))
    return sites if sites <= max(fitting, USUAL_SITES) else max(1, min(fitting, cores))


def choose_at_once(asked: int | None, gpu_groups: int, sites: int, profile: str) -> int:
    """Sites that work at once on this machine.

    Args:
        asked: What the user wants, if anything.
        gpu_groups: Groups of GPUs that sites share; with several one site at a time works on each.
        sites: How many there are.
        profile: Of the bundle.

    Raises:
        JobError: More are asked for than there are, or than there are groups of GPUs.
    """
    if asked is not None and not 1 <= asked <= sites:
        raise JobError(f"--at-once must be from 1 to {sites}, the sites that take part (got {asked})")
    if gpu_groups > 1:
        if asked not in (None, gpu_groups):
            raise JobError(
                f"--at-once {asked}: with {gpu_groups} groups of GPUs so many sites work at once; leave it out"
            )
        return gpu_groups
    return asked or sites_at_once(sites, profile, psutil.virtual_memory().total / 1e9, os.cpu_count() or 1)


def describe_turns(at_once: int, sites: int, profile: str) -> str:
    """What is said before the start where sites take turns."""
    site, there = SITE_GB.get(profile, FULL_SITE_GB), psutil.virtual_memory().total / 1e9
    return (
        f"{at_once} of {sites} sites work at a time, and start anew for every task, which takes ten seconds or so; all "
        f"at once would need {sites * site + SERVER_GB:.0f} GB ({site} GB a site in profile {profile}, "
        f"{SERVER_GB:.0f} GB for the server), and there are {there:.0f}; --at-once N chooses"
    )


def refuse_turns(job: BuiltJob, at_once: int) -> None:
    """Raise ``JobError`` where sites are to take turns in a job whose sites must remember something in between."""
    text = (job.folder / "app_client" / "config" / "config_fed_client.json").read_text()
    if at_once < len(job.sites) and any(name in text for name in WITH_MEMORY):
        raise JobError(
            f"{job.name}: its sites keep secrets in memory from one message to the next, and cannot take turns "
            f"({at_once} of {len(job.sites)} at a time); take a machine with more memory, fewer sites, or --at-once "
            f"{len(job.sites)}"
        )
