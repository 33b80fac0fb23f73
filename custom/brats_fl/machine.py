"""What a machine is, as a reader of a run's figures wants to know it: nothing that names it or its owner."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

MACHINE_FILE: Final = "machine.json"
"""In what a server keeps of a job: ``describe_machine`` of the server."""

CPU_FILE: Final = Path("/proc/cpuinfo")
GPU_QUERY: Final = ("nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader,nounits")
GPU_SECONDS: Final = 10.0
"""An idle driver needs one or two seconds; one that hangs must not hold up a job."""


SHARED_MEMORY: Final = Path("/dev/shm")
"""Memory through which processes that read cases pass them on."""

MORE_SHARED_MEMORY: Final = "give it more memory (docker run --shm-size=2g, or --ipc=host)"

BATCHES_OF_A_WORKER: Final = 2
"""That torch lets each have ready."""

LARGEST_BATCH_BYTES: Final = 2 * (4 + 1) * 128**3 * 4
"""Of the full profile: 2 patches of 128³ voxels, four scans and a label, float32."""


def shared_memory_fault(workers: int, place: Path = SHARED_MEMORY) -> str:
    """Why so many processes cannot read cases on this machine; empty where they can."""
    if workers == 0 or not sys.platform.startswith("linux"):
        return ""
    if not place.is_dir():
        return f"{place} is not there"
    if os.statvfs(place).f_flag & os.ST_RDONLY or not os.access(place, os.W_OK):
        return f"{place} may not be written"
    free, needed = shutil.disk_usage(place).free, workers * BATCHES_OF_A_WORKER * LARGEST_BATCH_BYTES
    if free >= needed:
        return ""
    return f"{place} has {free / 1e6:.0f} MB free and {workers} processes that read cases need {needed / 1e6:.0f} MB"


def describe_machine() -> dict[str, Any]:
    """System, processor, cores, memory in GiB and GPUs; no name of the machine, a user or a folder.

    Returns:
        ``system``, ``processor``, ``cores`` (that this process may use), ``memory_gib`` where the system tells it, and
        ``gpus``, such as ``["NVIDIA A100, 40 GiB"]``; an empty list where NVIDIA's driver finds none.
    """
    facts: dict[str, Any] = {
        "system": platform.system(),
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
    }
    if "SC_PHYS_PAGES" in os.sysconf_names:
        facts["memory_gib"] = round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    return {**facts, "gpus": find_gpus()}


def _processor() -> str:
    """The model's name where Linux tells it, else the architecture."""
    try:
        lines = CPU_FILE.read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())


def find_gpus() -> list[str]:
    """Name and memory of each NVIDIA GPU, by its driver's own command: asking torch would take memory on each."""
    try:
        done = subprocess.run(GPU_QUERY, capture_output=True, text=True, timeout=GPU_SECONDS, check=True)
    except (OSError, subprocess.SubprocessError):
        return []
    return [as_gpu(line) for line in done.stdout.splitlines() if "," in line]


def as_gpu(line: str) -> str:
    """A line of the driver's answer, name and MiB, in words."""
    name, mebibytes = (part.strip() for part in line.rsplit(",", 1))
    return f"{name}, {int(mebibytes) / 1024:.0f} GiB" if mebibytes.isdigit() else name
