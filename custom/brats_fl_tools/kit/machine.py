"""Whether a machine is fit for a kit: the environment its scripts will use, versions, disk, memory, GPU."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from importlib.metadata import requires
from pathlib import Path
from typing import Any

import psutil

from brats_fl.errors import JobError, KitError
from brats_fl.machine import MORE_SHARED_MEMORY, shared_memory_fault
from brats_fl.provenance import installed_bundle, library_digest
from brats_fl.reading import Reader
from brats_fl.settings import bundle_settings, check_settings
from brats_fl.typed import NotTypedError, shorten, typed
from brats_fl_tools.jobs.assembly import JobOptions, build_job
from brats_fl_tools.jobs.built import BuiltJob, describe_job
from brats_fl_tools.jobs.description import describe_built, hash_at_site
from brats_fl_tools.jobs.source import CLIENT_CONFIG, READER, SERVER_CONFIG, job_names, read_object
from brats_fl_tools.jobs.tracking import EXTRA, TRACKERS, trackers_of
from brats_fl_tools.kit import environment_probe
from brats_fl_tools.kit.kits import Kit
from brats_fl_tools.kit.results import CheckResult, fail, passed, warn

PROBE_SECONDS = 120.0
"""Importing torch takes seconds, from a network disk that nobody has read yet up to a minute."""

INSTALL = "install the wheel that the lead sent, and activate its environment before start.sh"


@dataclass(frozen=True)
class Needs:
    """What a profile needs of a machine; where the figures come from is said in ``docs/resources.md``."""

    memory_gb: float
    cache_mb_per_case: float
    gpu: bool


NEEDS: Mapping[str, Needs] = {"small": Needs(2, 4, False), "full": Needs(8, 40, True)}
LIGHT_NEEDS = Needs(1, 0, False)
"""Of the server, and of a hospital in a job that trains nothing: one case in memory at a time."""

READERS = 4
"""Processes that read cases, ``num_workers`` of the bundles' training."""

SPARE_GB = 1.0
"""Disk for the models and logs of a few jobs, 240 MB each in the full profile."""


@dataclass(frozen=True)
class StatedJob:
    """A job folder and what it says about the code that it needs."""

    job: BuiltJob
    required: Mapping[str, str]
    """Empty for a job that brings its code."""
    trackers: tuple[str, ...] = ()
    """What its server writes curves to."""
    approval: str = ""
    """The hash by which a hospital approves it; empty of one that was built here by its name."""
    words: tuple[str, ...] = ()
    """What a hospital is asked to run, a line each."""

    @property
    def brought(self) -> Path:
        """The library that a job brings to the sites."""
        return self.job.folder / "app_client" / "custom" / "brats_fl"


@dataclass(frozen=True)
class Facts:
    """What ``environment_probe`` prints."""

    executable: str
    python: str
    failed: Mapping[str, str]
    optional: list[str]
    versions: Mapping[str, str | None]
    code: Mapping[str, Mapping[str, str]]
    gpus_gib: list[float]


def stated_job(name: Path, kit: Kit) -> StatedJob:
    """What the folder of a built job says, or what this installation's job of that name says, built without code.

    Raises:
        JobError: There is neither.
    """
    if name.is_dir() or str(name) not in job_names():
        stated = read_stated_job(name)
        if kit.kind != "client":
            return stated
        words = tuple(describe_built(stated.job, kit.name))
        return replace(stated, approval=hash_at_site(stated.job, kit.name), words=words)
    sites = (kit.name,) if kit.kind == "client" else None
    with tempfile.TemporaryDirectory() as scratch:
        return read_stated_job(build_job(str(name), Path(scratch), JobOptions(preinstalled=True, sites=sites)).folder)


def read_stated_job(folder: Path) -> StatedJob:
    """What a job folder says.

    Raises:
        JobError: It is no job folder that ``brats-fl job build`` wrote.
    """
    job = describe_job(folder)
    client = read_object(folder / CLIENT_CONFIG)
    profile = job.variables.get("profile") if job.bundle else None
    if job.bundle and profile not in NEEDS:
        place = f"{folder}: {CLIENT_CONFIG} and {SERVER_CONFIG}"
        raise JobError(f"{place}: profile must be one of {', '.join(NEEDS)} (got {shorten(profile)})")
    if job.bundle:
        refuse_more_than_data(folder, job.bundle, str(profile), client.get("overrides") or {})
    required = READER.at(dict[str, str], {"required_code": {}, **client}, ["required_code"], folder / CLIENT_CONFIG)
    server = read_object(folder / SERVER_CONFIG)
    READER.at(list[dict[str, Any]], {"components": [], **server}, ["components"], folder / SERVER_CONFIG)
    return StatedJob(job, required, trackers_of(server))


def refuse_more_than_data(job: Path, name: str, profile: str, overrides: Mapping[str, Any]) -> None:
    """Raise ``JobError`` where a job sets what its site would refuse to set; see ``brats_fl.settings``."""
    brought = job / "app_client" / "bundles" / Path(name).name
    bundle = brought if brought.is_dir() else installed_bundle(name)
    if bundle is not None:  # what is not installed is told by the check of the code
        check_settings(str(job / CLIENT_CONFIG), bundle_settings(bundle, profile), overrides)


def needs_of(kit: Kit, job: StatedJob | None) -> Needs:
    """What the kit's machine must have; of a hospital without a known job, what the full profile needs."""
    if kit.kind == "server" or (job and not job.job.bundle):
        return LIGHT_NEEDS
    return NEEDS[str(job.job.variables["profile"]) if job else "full"]


def probe_environment(kit: Kit) -> dict[str, Any] | None:
    """What the ``python3`` holds that the kit's scripts would call; None where there is none that answers.

    Source: ``environment_probe``, run by that interpreter.
    """
    source = Path(environment_probe.__file__).read_text(encoding="utf-8")
    try:
        done = subprocess.run(
            ["python3", "-"], input=source, capture_output=True, text=True, cwd=kit.folder, timeout=PROBE_SECONDS
        )
    except (OSError, UnicodeDecodeError, subprocess.TimeoutExpired):
        return None
    return read_facts(done.stdout)


def read_facts(said: str) -> dict[str, Any] | None:
    """What the probe printed last; None where that is something else."""
    try:
        return asdict(typed(Facts, Reader(KitError, "").parse("", said.splitlines()[-1])))
    except (IndexError, KitError, NotTypedError):
        return None


def check_environment(facts: Mapping[str, Any] | None) -> CheckResult:
    """The ``python3`` on PATH imports what a job needs, in versions that brats-fl was made for."""
    name = "environment"
    if facts is None:
        return fail(name, "python3 is not on PATH, or does not answer", INSTALL)
    place = f"{facts['executable']} (Python {facts['python']})"
    if facts["failed"]:
        why = "; ".join(f"{module}: {text}" for module, text in facts["failed"].items())
        return fail(name, f"{place} cannot import {why}", INSTALL)
    wrong = wrong_versions(facts["versions"])
    if wrong:
        return fail(name, f"{place} has {'; '.join(wrong)}", INSTALL)
    return passed(name, f"{place}: {', '.join(f'{k} {v}' for k, v in facts['versions'].items())}")


def wrong_versions(versions: Mapping[str, str | None]) -> list[str]:
    """Installed distributions outside the range that this brats-fl asks for."""
    from packaging.requirements import Requirement

    wanted = {line.name: line.specifier for line in map(Requirement, requires("brats-fl") or ()) if not line.marker}
    return [
        f"{name} {version}, wanted {wanted[name]}"
        for name, version in versions.items()
        if version and name in wanted and not wanted[name].contains(version, prereleases=True)
    ]


def check_code(job: StatedJob, facts: Mapping[str, Any] | None, may_bring_code: bool) -> CheckResult:
    """The installed code is what a job states, or the job may bring its own."""
    name, codes = "job's code", (facts or {}).get("code", {})
    code = codes.get(job.job.bundle) if job.job.bundle else next(iter(codes.values()), None)
    if job.required:
        if code is None:
            what = f"bundle {job.job.bundle}" if job.job.bundle else "brats-fl"
            return fail(name, f"{what} is not installed, and the job brings no code", INSTALL)
        stated = [key for key in code if job.job.bundle or key != "bundle_sha256"]
        differing = [key for key in stated if code[key] != job.required.get(key)]
        text = "; ".join(f"{key}: job {str(job.required.get(key))[:12]}, here {code[key][:12]}" for key in differing)
        return (
            fail(name, text, INSTALL) if differing else passed(name, f"brats-fl {code['version']}, as installed here")
        )
    if not may_bring_code:
        return fail(
            name,
            f"{job.job.name} brings its code, and this site's policy refuses that",
            "ask for a job built with --preinstalled; or, on a machine of your own, choose --policy open",
        )
    if code and code["library_sha256"] != library_digest(job.brought):
        return fail(
            name,
            "the job brings a brats-fl that differs from the installed one, which would hide it",
            "ask for a job built with --preinstalled, or install the wheel of the same version",
        )
    return passed(name, "brought by the job")


def check_member(kit: Kit, job: StatedJob) -> list[CheckResult]:
    """A warning where the job is not meant for this hospital."""
    sites = job.job.sites
    if kit.kind == "server" or kit.name in sites:
        return []
    return [warn("job's sites", f"{job.job.name} is for {', '.join(sites)}, not for {kit.name}", "ask the lead")]


def check_trackers(kit: Kit, job: StatedJob, facts: Mapping[str, Any] | None) -> list[CheckResult]:
    """What the job's server writes curves with is installed there; of the others, and without curves, nothing."""
    if kit.kind != "server" or not job.trackers:
        return []
    there, packages = (facts or {}).get("optional", []), [TRACKERS[name].package for name in job.trackers]
    if missing := [package for package in packages if package not in there]:
        found = f"{', '.join(missing)} is not installed, and the job's server writes curves with it"
        return [fail("job's curves", found, f"pip install '{EXTRA}', or ask for a job without --tracking")]
    return [passed("job's curves", ", ".join(packages))]


def check_memory(needs: Needs) -> CheckResult:
    """Enough memory, and enough of it unused."""
    memory = psutil.virtual_memory()
    total, free = memory.total / 1e9, memory.available / 1e9
    found = f"{free:.1f} of {total:.1f} GB are free, {needs.memory_gb:.0f} GB are needed"
    if total < needs.memory_gb:
        return fail("memory", found, "take a larger machine, or ask for a job with --profile small")
    if free < needs.memory_gb:
        return warn("memory", found, "end other programs before the job begins")
    return passed("memory", found)


def check_shared_memory(needs: Needs) -> list[CheckResult]:
    """A warning where the processes that read cases for the full profile cannot pass them on; else nothing."""
    fault = shared_memory_fault(READERS) if needs.gpu else ""
    found = f"{fault}: cases would be read in the process that trains, which is slower"
    return [warn("shared memory", found, MORE_SHARED_MEMORY)] if fault else []


def check_disk(name: str, folder: Path, gigabytes: float) -> CheckResult:
    """Enough free disk where a folder lies, or would lie."""
    place = next(parent for parent in (folder, *folder.parents) if parent.exists())
    free = shutil.disk_usage(place).free / 1e9
    found = f"{free:.1f} GB are free for {folder}, {gigabytes:.1f} GB are needed"
    return (
        passed(name, found)
        if free >= gigabytes
        else fail(name, found, "free some, or set BRATS_FL_CACHE to a folder on a larger disk")
    )


def size_gb(folder: Path) -> float:
    """What the files beneath a folder take, in GB."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e9


def check_gpu(declared: int, needs: Needs, facts: Mapping[str, Any] | None, asked: int = 0) -> CheckResult:
    """The GPUs that torch sees are those that the site offers to jobs, and enough for the profile and the job.

    Args:
        declared: Number that ``resources.json`` offers.
        needs: Of the profile.
        facts: Of the environment.
        asked: Number that the job asks the site to set aside.
    """
    if asked > declared:
        found = f"the job asks for {asked} GPUs, resources.json offers {declared}: the job would wait for ever"
        return fail("GPU", found, "run kit setup with --gpus as many, or ask for a job built with fewer")
    if facts is None or "torch" in facts["failed"]:
        return warn("GPU", "unknown: torch cannot be imported", INSTALL)
    memory = facts["gpus_gib"]
    found = f"torch sees {len(memory)} GPUs" + (f" ({', '.join(map(str, memory))} GiB)" if memory else "")
    if declared > len(memory):
        return fail(
            "GPU",
            f"{found}, resources.json offers {declared}",
            "run kit setup with --gpus as many as there are, or install the driver and torch's CUDA build",
        )
    if needs.gpu and not memory:
        return warn("GPU", f"{found}, the full profile wants one", "a round takes hours on a CPU: --profile small")
    return passed("GPU", found)
