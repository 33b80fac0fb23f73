"""Assembles a FLARE job from a job folder, the shared apps, the library and a bundle."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import brats_fl
from brats_fl.bundle import config_files, is_bundle
from brats_fl.errors import JobError
from brats_fl.provenance import required_code
from brats_fl_tools.repository import APP_CLIENT, APP_SERVER, BUNDLES, CUSTOM, JOBS

SERVER_CONFIG = Path("app_server/config/config_fed_server.json")
CLIENT_CONFIG = Path("app_client/config/config_fed_client.json")
CHECKPOINT_FILE = "start_from.pt"
NOT_VARIABLES = frozenset({"description", "result"})
"""Keys of a job.json that are about the job, and not set in an app."""
SET_BY_EXECUTOR = frozenset({"bundle_root", "data_list_file_path", "rounds", "local_epochs", "epochs", "seed"})
"""Set by the executor for each site; a job that set them would lie."""


@dataclass(frozen=True)
class JobOptions:
    """What may be changed about a job when it is built."""

    profile: str = "full"
    rounds: int | None = None
    values: Mapping[str, Any] = field(default_factory=dict)
    """Variables of the apps or of the bundle, from ``--set``."""
    preinstalled: bool = False
    """The job holds configuration only, and states what must be installed at server and sites."""
    leave_out: str | None = None
    """A site that does not take part."""
    checkpoint: Path | None = None
    """Model to start from in place of random weights."""
    polling_seconds: float | None = None
    """How often clients and server look for news; None keeps the apps' value, made for a real network."""


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


def job_names() -> list[str]:
    """Names of the jobs of this checkout."""
    return sorted(path.parent.name for path in JOBS.glob("*/job.json"))


def read_job(name: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """A job's own ``meta.json`` and ``job.json``.

    Raises:
        JobError: There is no such job, or a file is no JSON object.
    """
    folder = JOBS / name
    if not (folder / "job.json").is_file():
        raise JobError(f"no job {name!r}; there are {', '.join(job_names())}")
    return _read(folder / "meta.json"), _read(folder / "job.json")


def read_config(name: str, config: Path) -> dict[str, Any]:
    """The app of a side: the shared one, or the job's own where it does something else than train."""
    own = JOBS / name / config.name
    shared = {SERVER_CONFIG: APP_SERVER, CLIENT_CONFIG: APP_CLIENT}[config]
    return _read(own if own.is_file() else shared / "config" / config.name)


def job_sites(name: str, leave_out: str | None = None) -> tuple[str, ...]:
    """Names of the sites that a job is deployed to.

    Raises:
        JobError: The site to leave out is none of them.
    """
    sites = _sites_of(read_job(name)[0])
    if leave_out is not None and leave_out not in sites:
        raise JobError(f"--leave-out {leave_out}: {name} goes to {', '.join(sites)}; leave out one of these")
    return tuple(site for site in sites if site != leave_out)


def _sites_of(meta: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(site for names in meta["deploy_map"].values() for site in names if site != "server")


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError) as error:
        raise JobError(f"{path}: cannot be read as JSON ({error})") from error
    if not isinstance(content, dict):
        raise JobError(f"{path}: must hold an object")
    return content


def variables_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """Root values of an app's configuration that are not structure: FLARE's variables."""
    return {
        key: value
        for key, value in config.items()
        if key not in ("format_version", "overrides", "start_from") and not isinstance(value, (dict, list))
    }


def bundle_variables(bundle: str, profile: str) -> dict[str, Any]:
    """Variables of a bundle that a job may set: root literals of its training configuration with the overlays."""
    merged: dict[str, Any] = {}
    for path in config_files(BUNDLES / bundle, profile, ["federated"]):
        merged.update(_read(Path(path)))
    return {
        key: value
        for key, value in merged.items()
        if not isinstance(value, dict)
        and key not in SET_BY_EXECUTOR
        and key not in ("imports", "initialize", "run", "finalize")
        and "#" not in key
        and not (isinstance(value, str) and value.startswith("$"))
    }


def build_job(name: str, out: Path, options: JobOptions, force: bool = False) -> BuiltJob:
    """Write the self-contained FLARE job folder ``out/NAME`` and return what it holds.

    The same checkout and options give the same bytes and the same content hash.

    Raises:
        JobError: Unknown job, bundle, profile or key; a value of the wrong type; the folder exists already.
    """
    meta, differences = read_job(name)
    sites = job_sites(name, options.leave_out)
    server, client = read_config(name, SERVER_CONFIG), read_config(name, CLIENT_CONFIG)
    wanted = {key: value for key, value in differences.items() if key not in NOT_VARIABLES}
    bundle: str | None = differences.get("bundle")
    if bundle:
        if not is_bundle(BUNDLES / bundle):
            raise JobError(f"{JOBS / name / 'job.json'}: no bundle {bundle!r} in {BUNDLES}")
        wanted["profile"] = options.profile
    if options.rounds:
        wanted["num_rounds"] = options.rounds
    if options.leave_out:
        wanted["min_clients"] = max(1, int(wanted.get("min_clients", server["min_clients"])) - 1)
        for app_name, names in meta["deploy_map"].items():
            meta["deploy_map"][app_name] = [site for site in names if site in ("server", *sites)]
    wanted.update(options.values)
    overrides = _apply(name, wanted, server, client, bundle_variables(bundle, options.profile) if bundle else {})
    if bundle:
        client["overrides"] = overrides
    if options.polling_seconds:
        server["server"]["task_request_interval"] = options.polling_seconds
        client["default_task_fetch_interval"] = options.polling_seconds
        if "task_check_period" in server:
            server["task_check_period"] = options.polling_seconds
    folder = out / name
    if folder.exists():
        if not force:
            raise JobError(f"{folder} exists; choose another --out or add --force")
        shutil.rmtree(folder)
    if options.checkpoint:
        server["start_from"] = CHECKPOINT_FILE
    if options.preinstalled:
        server["required_code"] = client["required_code"] = required_code(BUNDLES / bundle if bundle else None)
    _write_apps(folder, server, client)
    if not options.preinstalled:
        _bring_code(folder, bundle)
    if options.checkpoint:
        shutil.copyfile(options.checkpoint, folder / "app_server" / CHECKPOINT_FILE)
    meta["min_clients"] = server["min_clients"]
    content_hash = hash_folder(folder)
    result = differences.get("result")
    meta |= {"brats_fl_version": brats_fl.__version__, "content_hash": content_hash, "result": result}
    _write_json(folder / "meta.json", meta)
    variables = {**variables_of(client), **variables_of(server), **overrides}
    return BuiltJob(folder, name, bundle, sites, variables, content_hash, result)


def describe_job(folder: Path) -> BuiltJob:
    """What a job folder that ``build_job`` wrote holds.

    Raises:
        JobError: It is no such folder.
    """
    meta, server, client = (_read(folder / path) for path in (Path("meta.json"), SERVER_CONFIG, CLIENT_CONFIG))
    sites = _sites_of(meta)
    variables = {**variables_of(client), **variables_of(server), **client.get("overrides", {})}
    bundle, content_hash = server.get("bundle"), meta["content_hash"]
    return BuiltJob(folder, meta["name"], bundle, sites, variables, content_hash, meta.get("result"))


def _apply(
    name: str,
    wanted: Mapping[str, Any],
    server: dict[str, Any],
    client: dict[str, Any],
    of_bundle: Mapping[str, Any],
) -> dict[str, Any]:
    overrides: dict[str, Any] = {}
    for key, value in wanted.items():
        places = [config for config in (server, client) if key in variables_of(config)]
        if not places and key not in of_bundle:
            known = sorted({*variables_of(server), *variables_of(client), *of_bundle})
            raise JobError(f"{name}: unknown key {key!r}; known are {', '.join(known)}")
        default = places[0][key] if places else of_bundle[key]
        if not _same_type(value, default):
            raise JobError(f"{name}: {key} must be like {default!r} (got {value!r})")
        for config in places:
            config[key] = value
        if not places:
            overrides[key] = value
    return overrides


def _same_type(value: Any, default: Any) -> bool:
    if default is None:
        return True
    if isinstance(default, bool) or isinstance(value, bool):
        return isinstance(value, bool) and isinstance(default, bool)
    if isinstance(default, int):
        return isinstance(value, int)
    if isinstance(default, float):
        return isinstance(value, (int, float))
    return isinstance(value, type(default))


def _write_apps(folder: Path, server: Mapping[str, Any], client: Mapping[str, Any]) -> None:
    for config_path, config, app in (
        (SERVER_CONFIG, server, APP_SERVER),
        (CLIENT_CONFIG, client, APP_CLIENT),
    ):
        target = folder / config_path.parts[0]
        shutil.copytree(app, target, ignore=shutil.ignore_patterns("README.md", "__pycache__"))
        _write_json(folder / config_path, config)


def _bring_code(folder: Path, bundle: str | None) -> None:
    """Copy library and bundle into both apps."""
    for app in (APP_SERVER, APP_CLIENT):
        custom = folder / app.name / "custom"
        shutil.copytree(CUSTOM / "brats_fl", custom / "brats_fl", ignore=shutil.ignore_patterns("__pycache__"))
        if bundle:
            shutil.copytree(
                BUNDLES / bundle,
                custom / "bundles" / bundle,
                ignore=shutil.ignore_patterns("models", "eval", "__pycache__"),
            )


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=4) + "\n", encoding="utf-8")


def hash_folder(folder: Path) -> str:
    """SHA-256 over the relative path and the bytes of every file, in the order of the paths."""
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        digest.update(path.relative_to(folder).as_posix().encode() + b"\0")
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()
