"""Assembles a FLARE job from a job folder, the shared apps, the library and a bundle."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import brats_fl
from brats_fl.algorithms import Algorithm, check_chosen, load_algorithm
from brats_fl.errors import FolderError, JobError
from brats_fl.names import check_site_names
from brats_fl.provenance import DOCUMENTS, bundle_digest, hash_text, required_code
from brats_fl.settings import SETTINGS_FILE
from brats_fl.typed import shorten
from brats_fl_tools.jobs.built import GPU_MEMORY, GPUS, BuiltJob, content_hash_of, describe_job
from brats_fl_tools.jobs.compression import COMPRESSION, check_compressed
from brats_fl_tools.jobs.evaluated import MODELS, of_bundle, read_trained
from brats_fl_tools.jobs.quorum import updates_needed
from brats_fl_tools.jobs.secure import OF_SERVER_TOO, SECURE, check_secure, is_secure, secure_difference
from brats_fl_tools.jobs.settings import JobSettings, set_values, settings_of, variables_of
from brats_fl_tools.jobs.source import (
    CLIENT_CONFIG,
    CLIENT_SIDE,
    SERVER_CONFIG,
    SERVER_SIDE,
    JobSource,
    read_source,
    shared_config,
)
from brats_fl_tools.jobs.tracking import tracking_difference
from brats_fl_tools.jobs.variants import STRUCTURE, Variant, apply_differences
from brats_fl_tools.one_writer import only_writer
from brats_fl_tools.own_folders import appearing_folder
from brats_fl_tools.repository import APP_CLIENT, APP_SERVER, CUSTOM

CHECKPOINT_FILE = "start_from.pt"
NOT_VARIABLES = frozenset({"description", "result", "algorithm_settings", SECURE}) | STRUCTURE
"""Keys of a job.json that are no variables of an app."""

CHOSEN_ELSEWHERE: Mapping[str, str] = {
    "profile": "give --profile",
    "bundle": "it is that of the job: see `brats-fl job list` for those with another, or write a job.json of your own",
}
"""Variables that say which files a job is made of -> where they are chosen."""

IN_PASSING = frozenset(
    {
        "start_round",
        "keep_updates",
        "task_check_period",
        "default_task_fetch_interval",
        "wait_time_after_min_received",
        "tracking_uri",
    }
    | {"train_timeout", "validation_timeout", "answer_timeout"}
)
"""Variables that change when a job goes on where another ended, or that do not change what is learnt."""


@dataclass(frozen=True)
class JobOptions:
    """What may be changed about a job when it is built."""

    profile: str = "full"
    rounds: int | None = None
    values: Mapping[str, Any] = field(default_factory=dict)
    """Variables of the apps, of the algorithm or of the bundle, from ``--set``."""
    preinstalled: bool = False
    """The job holds configuration only, and states what must be installed at server and sites."""
    sites: tuple[str, ...] | None = None
    """Who takes part; None for the job's own list."""
    checkpoint: Path | None = None
    """Model to start from in place of random weights; in a job that goes on with another, that other's last."""
    start_sha256: str = ""
    """Of the checkpoint that round 0 started from, also in a job that goes on; empty for random weights."""
    ledger_head: str = ""
    """Of a job that goes on: hash of the last line that the run's ledger has of what was done before."""
    polling_seconds: float | None = None
    """How often clients and server look for news; None keeps the apps' value, made for a real network."""
    gpus: int = 0
    """GPUs that each site gives the job; 0 leaves it to the site what the job sees."""
    gpu_memory_gib: int = 0
    """Memory that the job wants of each: FLARE gives what is left of a GPU to other jobs."""
    of_run: Path | None = None
    """Run folder of the training whose models the job evaluates."""
    tracking: str | None = None
    """Tracker that the server writes curves to, see ``brats_fl_tools.jobs.tracking``; None for none."""


def refuse_within(folder: Path, options: JobOptions) -> None:
    """Raise ``FolderError`` where what a job is made of lies in a folder that is about to be replaced."""
    for option, path in (("--start-from", options.checkpoint), ("--of", options.of_run)):
        if path is not None and path.resolve().is_relative_to(folder.resolve()):
            raise FolderError(f"{option} {path} lies in {folder}, which is replaced; choose another --out, or copy it")


@dataclass(frozen=True)
class Configuration:
    """What server and sites of a job are to run, before it is written."""

    meta: Mapping[str, Any]
    server: Mapping[str, Any]
    client: Mapping[str, Any]
    bundle: Path | None
    variables: Mapping[str, Any]
    study: str
    algorithm: Algorithm | None = None
    """None of a job that trains nothing."""


def configure(source: JobSource, options: JobOptions) -> Configuration:
    """Meta data and both apps of a job, with its differences and the options.

    Raises:
        JobError: Unknown bundle, profile, algorithm, component or key; a value of the wrong type; too few sites.
        SiteNameError: FLARE does not bear the name of a site.
    """
    place = str(source.folder / "job.json")
    apps = Variant(place, shared_config(SERVER_CONFIG), shared_config(CLIENT_CONFIG))
    apps.client[COMPRESSION] = apps.server[COMPRESSION]
    if secure := is_secure(source):
        _make_secure(apps, source)
    apply_differences(apps, source.differences, source.code)
    if options.tracking:
        apply_differences(apps, tracking_difference(source, options.tracking))
    server, client, bundle = apps.server, apps.client, source.bundle
    refuse_chosen_elsewhere(source.name, options.values)
    own = {key: value for key, value in source.differences.items() if key not in NOT_VARIABLES}
    asked: dict[str, Any] = {"num_rounds": options.rounds} if options.rounds else {}
    asked |= {"profile": options.profile} if bundle else {}
    wanted = {**own, **asked, **options.values}
    algorithm = str(wanted.get("algorithm", shared_config(SERVER_CONFIG)["algorithm"]))
    known = settings_of(source, server, client, options.profile, algorithm)
    overrides = set_values(source.name, wanted, known, server, client)
    loaded = _algorithm_of(source, algorithm, known, wanted)
    settings = dict(loaded.settings) if loaded else {}
    check_compressed(source, server, client, secure)
    sites = options.sites or source.sites
    check_site_names(sites, str(source.folder / "meta.json") if options.sites is None else source.name)
    server["min_clients"] = updates_needed(source, options.values, int(server["min_clients"]), sites, loaded)
    if secure:
        check_secure(source, server, loaded, server["min_clients"], sites)
        client["min_clients"] = server["min_clients"]
    meta = {
        **source.meta,
        "name": source.name,
        "min_clients": server["min_clients"],
        "deploy_map": {"app_server": ["server"], "app_client": list(sites)},
    }
    if options.gpus:
        meta["resource_spec"] = {site: {GPUS: options.gpus, GPU_MEMORY: options.gpu_memory_gib} for site in sites}
    variables = {**variables_of(client), **variables_of(server), **overrides, **settings}
    study = ""
    if source.trains and bundle:
        whole = {**variables, "num_rounds": server["start_round"] + server["num_rounds"]}
        whole |= {"start_sha256": options.start_sha256} if options.start_sha256 else {}
        whole |= {SECURE: True} if secure else {}
        study = study_of(bundle, whole, sites)
        client |= {"overrides": overrides, "algorithm_settings": settings, "study": study}
        server |= {"algorithm_settings": settings}
    elif overrides:
        raise JobError(f"{source.name}: {min(overrides)} was decided when the models were trained; leave it out")
    if options.polling_seconds:
        server["server"]["task_request_interval"] = options.polling_seconds
        client["default_task_fetch_interval"] = options.polling_seconds
        if "task_check_period" in server:
            server["task_check_period"] = options.polling_seconds
    return Configuration(meta, server, client, bundle, variables, study, loaded)


def refuse_chosen_elsewhere(place: str, values: Mapping[str, Any]) -> None:
    """Raise ``JobError`` where ``--set`` says of what files the job is made: they are read before."""
    for name, mend in CHOSEN_ELSEWHERE.items():
        if name in values:
            raise JobError(f"{place}: {name} is not set by --set (got {shorten(values[name])}); {mend}")


def _make_secure(apps: Variant, source: JobSource) -> None:
    """Change the shared apps, before the job's own differences, to those of secure aggregation."""
    apps.client |= {name: apps.server[name] for name in OF_SERVER_TOO}
    apply_differences(apps, secure_difference(source, apps.server, apps.client))


def _algorithm_of(source: JobSource, algorithm: str, known: JobSettings, wanted: Mapping[str, Any]) -> Algorithm | None:
    """The job's algorithm with its settings: its own, the job's, then those of the options; None of no training."""
    if not source.trains:
        return None
    given = {**source.differences.get("algorithm_settings", {})}
    given |= {name: value for name, value in wanted.items() if name in known.algorithm}
    return load_algorithm(algorithm, given, source.code)


def study_of(bundle: Path, variables: Mapping[str, Any], sites: tuple[str, ...]) -> str:
    """Hash of what makes runs comparable, the same when a run is interrupted and resumed; sites keep their state by it.

    Args:
        bundle: Root of the bundle; its configurations count.
        variables: Of both apps, the algorithm and the bundle, with ``num_rounds`` those of the whole study.
        sites: Who takes part.
    """
    facts = {key: value for key, value in variables.items() if key not in IN_PASSING}
    return hash_text(json.dumps([bundle_digest(bundle), facts, sorted(sites)], sort_keys=True))


def build_job(name: str | Path, out: Path, options: JobOptions, force: bool = False) -> BuiltJob:
    """Write the self-contained FLARE job folder ``out/NAME`` and return what it holds.

    The same checkout and options give the same bytes and the same content hash.

    Raises:
        JobError: As ``configure``; a setting without a default was not set; a job that brings code is to be
            preinstalled.
        FolderError: The folder is there already, and ``force`` is not given or no build wrote it.
    """
    source, trained = read_source(name), None
    if options.of_run:
        trained = read_trained(options.of_run)
        source, options = of_bundle(source, trained, options.values), replace(options, profile=trained.profile)
    built = configure(source, options)
    if trained:
        built = replace(
            built,
            study=trained.study,
            server={**built.server, MODELS: {model: f"{model}.pt" for model in trained.models}},
            client={**built.client, **trained.told},
        )
    if built.algorithm:
        check_chosen(built.algorithm, source.name)
    if options.preinstalled and source.code:
        raise JobError(f"{source.name} brings code of its own ({source.code}), which --preinstalled leaves out")
    target = out / source.name
    with only_writer(target), appearing_folder(target, "job", force) as folder:
        _write_job(source, built, folder, options, trained.models if trained else {})
    return describe_job(target)


def _write_job(
    source: JobSource, built: Configuration, folder: Path, options: JobOptions, models: Mapping[str, Path]
) -> None:
    server, client = dict(built.server), dict(built.client)
    if options.checkpoint:
        server |= {"start_from": CHECKPOINT_FILE, "start_sha256": options.start_sha256}
    if options.ledger_head:
        server["ledger_head"] = options.ledger_head
    if options.preinstalled:
        server["required_code"] = client["required_code"] = required_code(built.bundle)
    _write_apps(folder, server, client)
    if not options.preinstalled:
        _bring_code(folder, source, built.bundle)
    if options.checkpoint:
        shutil.copyfile(options.checkpoint, folder / "app_server" / CHECKPOINT_FILE)
    for name, file in built.server.get(MODELS, {}).items():
        shutil.copyfile(models[name], folder / "app_server" / file)
    content_hash = content_hash_of(folder)
    result = source.differences.get("result")
    facts = {"brats_fl_version": brats_fl.__version__, "content_hash": content_hash, "result": result}
    _write_json(folder / "meta.json", {**built.meta, **facts, "study": built.study})


def _write_apps(folder: Path, server: Mapping[str, Any], client: Mapping[str, Any]) -> None:
    for config_path, config, app in (
        (SERVER_CONFIG, server, APP_SERVER),
        (CLIENT_CONFIG, client, APP_CLIENT),
    ):
        target = folder / config_path.parts[0]
        shutil.copytree(app, target, ignore=shutil.ignore_patterns("README.md", SETTINGS_FILE, "__pycache__"))
        _write_json(folder / config_path, config)


def _bring_code(folder: Path, source: JobSource, bundle: Path | None) -> None:
    """Copy library, bundle and the job's own modules into both apps."""
    compiled = shutil.ignore_patterns("__pycache__")
    for side in (SERVER_SIDE, CLIENT_SIDE):
        custom = folder / side / "custom"
        shutil.copytree(CUSTOM / "brats_fl", custom / "brats_fl", ignore=compiled)
        if source.code:
            shutil.copytree(source.code, custom, dirs_exist_ok=True, ignore=compiled)
        if bundle:
            shutil.copytree(
                bundle,
                folder / side / "bundles" / bundle.name,
                ignore=shutil.ignore_patterns("models", "eval", "docs", *DOCUMENTS, "__pycache__"),
            )


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=4) + "\n", encoding="utf-8")
