"""A job folder that was built: what it holds, told from the folder itself, whoever brings it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from brats_fl.approval import ADDED_BY_FLARE
from brats_fl.errors import JobError
from brats_fl.provenance import hash_files
from brats_fl.typed import shorten
from brats_fl_tools.jobs.settings import variables_of
from brats_fl_tools.jobs.source import CLIENT_CONFIG, READER, SERVER_CONFIG, read_object, sites_of

GPUS, GPU_MEMORY = "num_of_gpus", "mem_per_gpu_in_GiB"
"""What FLARE's resource manager of a site calls the GPUs that a job asks for, and its memory on each."""


@dataclass(frozen=True)
class BuiltJob:
    """A self-contained FLARE job folder."""

    folder: Path
    name: str
    bundle: str | None
    """None of a job that trains nothing."""
    sites: tuple[str, ...]
    variables: Mapping[str, Any]
    content_hash: str
    result: str | None = None
    """File that the server of a job that trains nothing writes last."""
    study: str = ""
    """Hash of what makes runs comparable; empty of a job that trains nothing."""
    gpus: int = 0
    """GPUs that each site is to give it."""
    start_sha256: str = ""
    """Of the checkpoint that round 0 started from; empty for random weights."""

    @property
    def total_rounds(self) -> int:
        """Rounds of the whole study, with those that were done before this job; 0 of one that trains nothing."""
        return int(self.variables.get("start_round", 0)) + int(self.variables.get("num_rounds", 0))


def content_hash_of(folder: Path) -> str:
    """Hash of all files of a built job but ``meta.json``, which states it, and what FLARE adds when it is submitted."""
    return hash_files(folder, ("*",), but=ADDED_BY_FLARE | {"meta.json"})


@dataclass(frozen=True)
class StatedMeta:
    """What ``meta.json`` of a built job says, beside who takes part."""

    name: str
    content_hash: str
    result: str | None = None
    study: str = ""
    resource_spec: Mapping[str, Mapping[str, int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check what becomes part of a path.

        Raises:
            ValueError: A name is none of a file.
        """
        for name in (self.name, self.result or self.name):
            if Path(name).name != name:
                raise ValueError(f"name and result must be names, and no paths (got {shorten(name)})")


STATED = tuple(one.name for one in fields(StatedMeta))


def describe_job(folder: Path) -> BuiltJob:
    """What a job folder that ``build_job`` wrote holds.

    Raises:
        JobError: It is no such folder.
    """
    if not (folder / "meta.json").is_file():
        found = "holds no built job, whose meta.json would lie there" if folder.is_dir() else "no such folder"
        raise JobError(f"{folder}: {found}; give the job's folder, as the lead sent or `brats-fl job build` wrote it")
    meta, server, client = (read_object(folder / path) for path in (Path("meta.json"), SERVER_CONFIG, CLIENT_CONFIG))
    stated = READER.typed(StatedMeta, {key: meta[key] for key in STATED if key in meta}, folder / "meta.json")
    parts = {"algorithm_settings": {}, "overrides": {}, **client}
    settings, overrides = (
        READER.at(dict, parts, [key], folder / CLIENT_CONFIG) for key in ("algorithm_settings", "overrides")
    )
    variables = {**variables_of(client), **variables_of(server), **overrides, **settings}
    for name in ("start_round", "num_rounds"):
        READER.typed(int, variables.get(name, 0), f"{folder / SERVER_CONFIG}: {name}")
    bundle = server.get("bundle")
    return BuiltJob(
        folder,
        stated.name,
        READER.typed(str, bundle, f"{folder / SERVER_CONFIG}: bundle") if bundle else None,
        sites_of(meta, folder / "meta.json"),
        variables,
        stated.content_hash,
        stated.result,
        stated.study,
        max((spec.get(GPUS, 0) for spec in stated.resource_spec.values()), default=0),
        READER.typed(str, server.get("start_sha256", ""), f"{folder / SERVER_CONFIG}: start_sha256"),
    )
