"""A site's own files in its kit: policy, resources and data list. They never leave the house."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from brats_fl.approval import APPROVED_FILE
from brats_fl.cases.datalists import DATALIST_FILE, read_datalist
from brats_fl.errors import KitError
from brats_fl.files import appearing, write_whole
from brats_fl.provenance import installed_package
from brats_fl.reading import Reader
from brats_fl.sharing.egress import FILTER
from brats_fl.typed import shorten
from brats_fl_tools.kit.kits import READER, Kit

POLICIES = "brats_fl_policies"
"""Name under which the wheel installs ``poc_workspace/policies``."""


DOOR: Mapping[str, Any] = {"id": "site_door", "path": "brats_fl.components.door.SiteDoor", "args": {}}
"""Component of every hospital: it refuses what other hospitals ask of it, and commands and file reads from anyone."""

APPROVED_JOBS: Mapping[str, Any] = {
    "id": "app_deployer",
    "path": "brats_fl.components.approved_jobs.ApprovedJobs",
    "args": {},
}
"""Component of a hospital whose policy has ``approve_jobs``; FLARE has a component of this name put jobs in place."""


PRIVACY_FILE = "privacy.json"
"""FLARE builds its components into every job's process at the site, behind the job's own."""

PRIVACY: Mapping[str, Any] = {
    "scopes": [{"name": "site", "properties": {}, "task_data_filters": [], "task_result_filters": []}],
    "default_scope": "site",
    "components": [{"id": FILTER, "path": "brats_fl.components.egress.EgressContract", "args": {}}],
}
"""Of every hospital: what leaves is logged, and held to the hospital's contract where there is one.

FLARE builds the components of a privacy policy only where it has a scope.
"""


@dataclass(frozen=True)
class SiteFiles:
    """What a site's ``local`` folder should hold."""

    texts: Mapping[Path, str]
    """File -> content."""
    link: tuple[Path, Path] | None = None
    """Data list in the kit -> the site's own file, where it stays."""


def policy_names() -> list[str]:
    """The policies of this release."""
    return sorted(file.stem for file in installed_package(POLICIES).glob("*.json"))


def read_policy(name: str) -> dict[str, Any]:
    """A policy of this release: what may be loaded, who may do what, and whether each job must be approved.

    Raises:
        KitError: There is no such policy.
    """
    if name not in policy_names():
        raise KitError(f"no policy {name!r}; there are {', '.join(policy_names())}")
    return Reader(KitError, "install brats-fl again").json_object(installed_package(POLICIES) / f"{name}.json")


def site_files(
    kit: Kit, policy: str, datalist: Path | None = None, gpus: int = 0, gpu_memory_gib: int = 0
) -> SiteFiles:
    """The site's files as they should be.

    Args:
        kit: Of the server or of a hospital.
        policy: ``strict`` or ``open``.
        datalist: The hospital's data list; it is linked, not copied.
        gpus: How many GPUs jobs may use at this site.
        gpu_memory_gib: Memory of each.

    Raises:
        KitError: The kit is an admin's, or lacks FLARE's default files.
        DataListError: The data list cannot be used.
    """
    if kit.kind == "admin":
        raise KitError(f"{kit.folder}: this is an admin's kit; only the server and hospitals have site files")
    rules = read_policy(policy)
    local = kit.folder / "local"
    resources = {**read_rules_file(default_of(local / "resources.json")), **rules["resources"]}
    # FLARE's streamer sends a site's error log to the server: it may name cases.
    resources["components"] = [part for part in resources.get("components", []) if part["id"] != "site_log_streamer"]
    if kit.kind == "client":
        approval = [APPROVED_JOBS] if rules["approve_jobs"] else []
        resources["components"] = [*resources["components"], DOOR, *approval]
    for part in resources["components"]:
        if part["id"] == "resource_manager":
            part.setdefault("args", {}).update({"num_of_gpus": gpus, "mem_per_gpu_in_GiB": gpu_memory_gib})
        if part["id"] == "job_manager":
            # FLARE's defaults lie in /tmp/nvflare, shared by all federations of a host.
            part.setdefault("args", {})["uri_root"] = str(kit.folder.resolve() / "jobs-storage")
    if "snapshot_persistor" in resources:
        keys, place = ["snapshot_persistor", "args", "storage", "args"], default_of(local / "resources.json")
        READER.at(dict, resources, keys, place)["root_dir"] = str(kit.folder.resolve() / "snapshot-storage")
    texts = {
        local / "resources.json": json.dumps(resources, indent=2) + "\n",
        local / "authorization.json": json.dumps(rules["authorization"], indent=2) + "\n",
    }
    if kit.kind == "client":
        texts[local / PRIVACY_FILE] = json.dumps(PRIVACY, indent=2) + "\n"
    if datalist is None:
        return SiteFiles(texts)
    if kit.kind == "server":
        raise KitError(f"{kit.folder}: this is the server's kit; it has no data list")
    read_datalist(datalist)
    link = local / DATALIST_FILE
    if link.is_file() and not link.is_symlink():
        if datalist.resolve() == link.resolve():
            return SiteFiles(texts)
        raise KitError(f"{link}: is a data list of its own, which a link would replace; move it away first")
    return SiteFiles(texts, (link, datalist.resolve()))


def approvals_file(kit: Kit) -> Path:
    """The hospital's list of jobs that it has agreed to run."""
    return kit.folder / "local" / APPROVED_FILE


def default_of(path: Path) -> Path:
    """The file of FLARE that holds as long as a site has not written its own."""
    return path.with_name(f"{path.name}.default")


def rules_file(path: Path) -> Path:
    """The file that holds now: the site's own, else FLARE's default."""
    return path if path.is_file() else default_of(path)


def read_rules_file(path: Path) -> dict[str, Any]:
    """What a file of rules in ``local`` says.

    Raises:
        KitError: It is missing or damaged.
    """
    content = READER.json_object(path)
    for part in READER.at(list[dict[str, Any]], {"components": [], **content}, ["components"], path):
        READER.at(str, part, ["id"], path)
        READER.at(dict, {"args": {}, **part}, ["args"], path)
    for role, rights in READER.at(dict[str, Any], {"permissions": {}, **content}, ["permissions"], path).items():
        if not isinstance(rights, (str, dict)):
            READER.refuse(path, f"permissions of {shorten(role)} must be text or an object (got {shorten(rights)})")
    return content


def differences(files: SiteFiles) -> str:
    """Unified diff from what holds to what should; empty where nothing is to do.

    Where a site has no file of its own yet, FLARE's default holds.
    """
    parts: list[str] = []
    for path, text in files.texts.items():
        before, lines = _text_now(path), text.splitlines()
        if not path.is_file() or before != text:
            parts += difflib.unified_diff(
                before.splitlines(), lines, str(rules_file(path)), str(path), n=1, lineterm=""
            )
    if files.link and not _linked(*files.link):
        parts.append(f"{files.link[0]} -> {files.link[1]}")
    return "\n".join(parts)


def _text_now(path: Path) -> str:
    if path.is_file():
        return path.read_text(encoding="utf-8", errors="replace")
    if path.name == PRIVACY_FILE or path.parent.name != "local":
        return ""  # FLARE has no default of it
    # Laid out as our own files are, so that the difference shows what differs and not how it is indented.
    return json.dumps(read_rules_file(default_of(path)), indent=2) + "\n"


def _linked(link: Path, target: Path) -> bool:
    return link.is_symlink() and link.resolve() == target


def write_site_files(files: SiteFiles) -> None:
    """Write them; each appears whole or not at all."""
    for path, text in files.texts.items():
        path.parent.mkdir(exist_ok=True)
        write_whole(path, text)
    if files.link and not _linked(*files.link):
        link, target = files.link
        with appearing(link) as scratch:
            scratch.symlink_to(target)
