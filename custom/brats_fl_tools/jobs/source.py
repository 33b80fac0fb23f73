"""A job as its author wrote it: a folder with ``meta.json`` and ``job.json``, in this checkout or anywhere."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from brats_fl.bundle import is_bundle
from brats_fl.errors import JobError
from brats_fl.reading import Reader
from brats_fl.typed import shorten
from brats_fl_tools.repository import APP_CLIENT, APP_SERVER, BUNDLES, JOBS

_BUNDLE = re.compile(r"\w[\w.-]{0,99}")
READER = Reader(JobError, "mend it, or build the job again")

SERVER_SIDE, CLIENT_SIDE = "app_server", "app_client"
"""A job's folders. The shared apps that they are copied from have other names where the wheel brought them."""
SERVER_CONFIG = Path(SERVER_SIDE, "config", "config_fed_server.json")
CLIENT_CONFIG = Path(CLIENT_SIDE, "config", "config_fed_client.json")


@dataclass(frozen=True)
class JobSource:
    """A job folder."""

    folder: Path
    meta: Mapping[str, Any]
    """FLARE's ``meta.json``: who takes part."""
    differences: Mapping[str, Any]
    """``job.json``: what differs from the shared apps."""

    @property
    def name(self) -> str:
        """The folder's name, by which FLARE lists the job."""
        return self.folder.name

    @property
    def reference(self) -> str:
        """What ``read_source`` finds the job by, from whatever folder: its name in this checkout, else its own."""
        return self.name if self.folder.parent == JOBS.resolve() else str(self.folder)

    @property
    def sites(self) -> tuple[str, ...]:
        """Who takes part where nobody says otherwise."""
        return sites_of(self.meta, self.folder / "meta.json")

    @property
    def trains(self) -> bool:
        """Whether a model is trained; a job with a result of its own counts, compares or evaluates."""
        return bool(self.differences.get("bundle")) and "result" not in self.differences

    @property
    def code(self) -> Path | None:
        """Folder of modules that the job brings of its own; None where it brings none."""
        folder = self.folder / "custom"
        return folder if folder.is_dir() else None

    @property
    def bundle(self) -> Path | None:
        """Root of the job's bundle: of ``bundles/`` beside the folder of the job, else of this checkout.

        Raises:
            JobError: There is no such bundle in either.
        """
        name = self.differences.get("bundle")
        if not name:
            return None
        if not isinstance(name, str) or not _BUNDLE.fullmatch(name):
            READER.refuse(self.folder / "job.json", f"bundle must be the name of a folder (got {shorten(name)})")
        places = dict.fromkeys((self.folder.parent.parent / "bundles", BUNDLES))
        for place in places:
            if is_bundle(place / str(name)):
                return place / str(name)
        tried = " or ".join(str(place) for place in places)
        raise JobError(f"{self.folder / 'job.json'}: no bundle {name!r} in {tried}")


def job_names() -> list[str]:
    """Names of the jobs of this checkout."""
    return sorted(path.parent.name for path in JOBS.glob("*/job.json"))


def read_source(name: str | Path) -> JobSource:
    """A job by its name in this checkout, or by the path of its folder.

    Raises:
        JobError: There is no such job, or a file is no JSON object.
    """
    for folder in (JOBS / name, Path(name)):
        if (folder / "job.json").is_file():
            folder = folder.resolve()
            return JobSource(folder, read_object(folder / "meta.json"), read_object(folder / "job.json"))
    if (Path(name) / CLIENT_CONFIG).is_file():
        raise JobError(
            f"{name}: is what `brats-fl job build` made of a job; give the name or folder that it was built from, with "
            "the same options: that makes the same content again, which is what a hospital's approval goes by"
        )
    raise JobError(f"no job {str(name)!r}; there are {', '.join(job_names())}, or give a folder that holds job.json")


def sites_of(meta: Mapping[str, Any], place: Path) -> tuple[str, ...]:
    """The sites that a ``meta.json`` deploys to.

    Args:
        meta: Its content.
        place: The file.

    Raises:
        JobError: It does not say it.
    """
    apps = READER.at(dict[str, list[str]], meta, ["deploy_map"], place)
    return tuple(site for names in apps.values() for site in names if site != "server")


def shared_config(config: Path) -> dict[str, Any]:
    """The shared app of a side, ``SERVER_CONFIG`` or ``CLIENT_CONFIG``."""
    return read_object({SERVER_CONFIG: APP_SERVER, CLIENT_CONFIG: APP_CLIENT}[config] / "config" / config.name)


def read_object(path: Path) -> dict[str, Any]:
    """A JSON object of a file.

    Raises:
        JobError: It cannot be read, or holds something else.
    """
    return READER.json_object(path)
