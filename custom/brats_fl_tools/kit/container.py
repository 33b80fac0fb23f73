"""A kit in one container: an image of the software without a secret in it, and a compose file that mounts the kit.

FLARE's own way into Docker (``nvflare deploy prepare``) starts a container for each job through Docker's socket, and
who holds that socket is root on the machine. Here the kit's processes stay in one container without rights.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import yaml

from brats_fl.errors import KitError
from brats_fl_tools.kit.kits import Kit
from brats_fl_tools.kit.results import CheckResult, fail, passed
from brats_fl_tools.kit.service import Places, guarded_paths

DOCKERFILE, COMPOSE, IGNORED = "Dockerfile", "compose.yaml", ".dockerignore"

WHEELHOUSE = "wheelhouse"
"""Build context that ``make wheelhouse`` has filled; ``BRATS_FL_WHEELHOUSE``, else the folder beside the Dockerfile."""

SHARED_MEMORY = "2gb"
"""Docker's 64 MB do not do for the processes that read cases for the full profile; as ``docs/resources.md`` says."""

TEMPORARY = "/tmp:size=1g,mode=1777"

BASE = "docker.io/library/python:{version}-slim-bookworm"
"""Named by its tag: a digest goes out of date with each security update of Debian, and none was known here."""


def render_dockerfile() -> str:
    """An image for the Python of this environment, from a wheelhouse for it, by hash and without an index."""
    base = BASE.format(version=f"{sys.version_info.major}.{sys.version_info.minor}")
    return f"""# Written by `brats-fl kit deploy docker`.
# The base is named by its tag; to hold it to the bit, add the @sha256:... that `docker pull` prints.
FROM {base}
RUN --mount=type=bind,from={WHEELHOUSE},target=/{WHEELHOUSE} \\
    pip install --no-cache-dir --no-index --find-links /{WHEELHOUSE} --require-hashes \\
        -r /{WHEELHOUSE}/requirements.txt
ENV HOME=/tmp PYTHONDONTWRITEBYTECODE=1
USER 65534:65534
"""


def render_ignored() -> str:
    """What the engine may take from the folder itself: nothing, and so never a kit that somebody put there."""
    return "*\n"


def render_compose(kit: Kit, places: Places, gpus: int = 0) -> str:
    """The service of a kit, under the user who owns its private key.

    Args:
        kit: Of the server or of a hospital.
        places: What it sees beyond the kit, at the same paths as on the host.
        gpus: That the kit offers to jobs.

    Raises:
        KitError: The kit belongs to root.
    """
    owner, folder = kit.private_key.stat(), kit.folder.resolve()
    if owner.st_uid == 0:
        mend = f"chown -R USER '{kit.folder}' to one who may read the scans and no more"
        raise KitError(f"{kit.private_key}: belongs to root, under whom no container should run; {mend}")
    service: dict[str, Any] = {
        "image": "brats-fl",
        "build": {
            "context": ".",
            "additional_contexts": {WHEELHOUSE: f"${{BRATS_FL_WHEELHOUSE:-./{WHEELHOUSE}}}"},
        },
        "entrypoint": [escape(str(folder / "startup" / "sub_start.sh")), "--once"],
        "user": f"{owner.st_uid}:{owner.st_gid}",
        "init": True,
        "restart": "on-failure:5",
        "stop_grace_period": "60s",
        "read_only": True,
        "tmpfs": [TEMPORARY],
        "shm_size": SHARED_MEMORY,
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges:true"],
        "working_dir": escape(str(folder)),
        "volumes": [*mounts(folder, *places.write), *mounts(*places.read, *guarded_paths(kit), read_only=True)],
    }
    if places.write:
        service["environment"] = {"BRATS_FL_CACHE": escape(str(places.write[-1]))}
    if kit.kind == "server":
        service["ports"] = [f"{kit.port}:{kit.port}"]
    if gpus:
        device = {"driver": "nvidia", "count": gpus, "capabilities": ["gpu"]}
        service["deploy"] = {"resources": {"reservations": {"devices": [device]}}}
    content = {"services": {kit.name: service}}
    head = f"# Written by `brats-fl kit deploy docker` for {kit.name}. It names no secret: the kit is mounted.\n"
    return head + str(yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=1000))


def mounts(*paths: Path, read_only: bool = False) -> list[dict[str, Any]]:
    """Binds in compose's long form, in which a path may hold colons; a path that is not there is an error, not made."""
    return [
        {
            "type": "bind",
            "source": escape(str(path)),
            "target": escape(str(path)),
            **({"read_only": True} if read_only else {}),
            "bind": {"create_host_path": False},
        }
        for path in paths
    ]


def escape(text: str) -> str:
    """A text in which compose finds no variable."""
    return text.replace("$", "$$")


def offered_gpus(resources: dict[str, Any]) -> int:
    """How many GPUs a kit's ``resources.json`` offers to jobs."""
    managers = [part for part in resources.get("components", []) if part.get("id") == "resource_manager"]
    number = managers[0].get("args", {}).get("num_of_gpus", 0) if managers else 0
    return number if isinstance(number, int) else 0


def check_container(kit: Kit, folder: Path, wanted: str, places: Places) -> CheckResult:
    """The folder of a deployment fits the kit as it is now, and all that it mounts is there.

    Args:
        kit: Of the server or of a hospital.
        folder: What ``kit deploy docker`` wrote.
        wanted: What it would write now as ``compose.yaml``.
        places: What the kit sees.
    """
    name, again = "container", f"brats-fl kit deploy docker '{kit.folder}' --out '{folder}' --force"
    file = folder / COMPOSE
    if not file.is_file() or file.read_bytes() != wanted.encode():
        return fail(name, f"{file} is not what the kit needs now", again)
    missing = [path for path in (*places.read, *places.write, *guarded_paths(kit)) if not path.exists()]
    if missing:
        return fail(name, f"{', '.join(map(str, missing))} is not there, and is to be mounted", f"make it, or {again}")
    return passed(name, str(file))
