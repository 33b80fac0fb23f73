"""A job in words, for whoever is asked to run it: what runs at the site, by which code, with which settings.

Nothing of the job is run for it: classes are told by what the installed source says of them, and text of the job is
shown without the characters that would change how a terminal shows it.
"""

from __future__ import annotations

import ast
import importlib.util
import json
import re
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from brats_fl.algorithms import algorithm_names, algorithm_settings
from brats_fl.approval import approval_hash, terms_of
from brats_fl.errors import JobError
from brats_fl.provenance import hash_file, installed_bundle
from brats_fl.settings import Setting, bundle_settings
from brats_fl.typed import printable, shorten
from brats_fl_tools.jobs.assembly import CHECKPOINT_FILE
from brats_fl_tools.jobs.built import BuiltJob
from brats_fl_tools.jobs.settings import app_settings
from brats_fl_tools.jobs.source import CLIENT_CONFIG, CLIENT_SIDE, READER, SERVER_CONFIG, read_object
from brats_fl_tools.jobs.variants import STRUCTURE, parts_of
from brats_fl_tools.repository import APP_CLIENT, APP_SERVER

WIDTH = 100
"""Columns of a line of text."""

EVERY_SITE = "@ALL"
"""FLARE's word for all sites, and the server."""

KNOWN_PACKAGES = ("brats_fl.", "nvflare.")
"""Of other classes nothing is looked up: even to find a module Python may run what is around it."""

SAID_OTHERWISE = STRUCTURE | {"task_data_filters", "task_result_filters", "overrides", "algorithm_settings"}
"""Root entries of an app that are no variables, and that have lines of their own."""

_LINK = re.compile(r"\[([^\]]*)\]\((?:\.\./)*([^)]*)\)")
"""A link of Markdown, as the words of the pages have; a terminal shows its text and the page's name."""


def describe_settings(settings: Mapping[str, Setting], values: Mapping[str, Any]) -> list[str]:
    """Two lines for each: its value with the unit, and what it means and may be."""
    lines: list[str] = []
    for name, setting in sorted(settings.items()):
        value = json.dumps(values.get(name, setting.default))
        lines.append(f"  {name} = {value} {setting.unit}".rstrip())
        meaning = _LINK.sub(r"\1, \2", setting.meaning)
        lines += _indented("; ".join(part for part in (meaning, setting.rule) if part))
    return lines


def _indented(text: str) -> list[str]:
    return textwrap.wrap(text, WIDTH, initial_indent=" " * 6, subsequent_indent=" " * 6)


def hash_at_site(job: BuiltJob, site: str) -> str:
    """What a site computes of a built job when it arrives there.

    Raises:
        JobError: The job gives the site another app than the one that is shown.
    """
    meta = read_object(job.folder / "meta.json")
    refuse_other_app(job, meta, site)
    return approval_hash(job.folder / CLIENT_SIDE, meta, site)


def refuse_other_app(job: BuiltJob, meta: Mapping[str, Any], site: str) -> None:
    """Raise ``JobError`` where a job deploys to a site what is not its ``app_client``: nobody would have read that."""
    place = job.folder / "meta.json"
    deployed = READER.at(dict[str, list[str]], meta, ["deploy_map"], place)
    apps = [app for app, sites in deployed.items() if {site, EVERY_SITE} & set(sites)]
    if apps not in ([], [CLIENT_SIDE]):
        READER.refuse(place, f"deploys {', '.join(map(shorten, apps))} to {site}, which must get {CLIENT_SIDE} alone")


def describe_built(job: BuiltJob, site: str) -> list[str]:
    """What a built job makes a site run, and what the server does meanwhile, a line each.

    Raises:
        JobError: It is not laid out as ``build_job`` does it.
    """
    try:
        lines = list(_lines(job, site))
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise JobError(f"{job.folder}: is not laid out as `brats-fl job build` does it ({error!r})") from error
    return [printable(line) for line in lines]


def _lines(job: BuiltJob, site: str) -> Iterator[str]:
    meta, client, server = (
        read_object(job.folder / path) for path in (Path("meta.json"), CLIENT_CONFIG, SERVER_CONFIG)
    )
    study = client.get("study") or job.study  # of the app: by this one the site's own state of a study is found
    yield f"{job.name}: for {', '.join(job.sites)}" + (f"; study {study}" if study else "")
    yield from ("", f"what runs at {site}", *_code_lines(job, client))
    yield from _part_lines(client)
    yield from ("", "with these settings", *_client_settings(job, client))
    for name, value in terms_of(meta, site).items():
        yield f"  {name} = {json.dumps(value)}"
    yield from ("", "what the server does meanwhile: for your information, an approval does not hold it to this")
    yield from _part_lines(server)
    yield from describe_settings(app_settings(APP_SERVER, SERVER_CONFIG, server), server)
    yield from _start_lines(job, server)


def _start_lines(job: BuiltJob, server: Mapping[str, Any]) -> Iterator[str]:
    """The model that the server begins with, where it is not random, by the digest of the file in the job.

    Raises:
        JobError: The file is not there, or another one than the job says.
    """
    if not server.get("start_from"):
        return
    file = job.folder / SERVER_CONFIG.parts[0] / CHECKPOINT_FILE
    if server["start_from"] != CHECKPOINT_FILE:
        raise JobError(f"{job.folder / SERVER_CONFIG}: start_from must be {CHECKPOINT_FILE}, which lies in the job")
    if not file.is_file():
        raise JobError(f"{file}: not there, and the job starts from it; ask the lead for the whole folder")
    digest, goes_on = hash_file(file), bool(server.get("start_round"))
    if job.start_sha256 and digest != job.start_sha256 and not goes_on:
        raise JobError(f"{file}: has SHA-256 {digest}, and the job says {job.start_sha256}; ask the lead for it again")
    how = "goes on with the model" if goes_on else "starts from the weights, and not from random ones,"
    yield f"  the global model {how} in {file.relative_to(job.folder)}, SHA-256 {digest}"
    if goes_on and job.start_sha256:
        yield f"  round 0 started from weights with SHA-256 {job.start_sha256}, and not from random ones"


def _code_lines(job: BuiltJob, client: Mapping[str, Any]) -> Iterator[str]:
    """Which code: the installed one, by version and digests, or what the job brings."""
    app = job.folder / "app_client"
    if required := client.get("required_code"):
        yield "  the installed brats-fl: " + ", ".join(f"{name} {value}" for name, value in required.items())
    files = [path.relative_to(app).as_posix() for path in sorted(app.rglob("*")) if path.is_file()]
    for folder in ("custom", "bundles"):
        brought = [name for name in files if name.startswith(f"{folder}/")]
        if brought:
            yield f"  CODE THAT THE JOB BRINGS: {len(brought)} files in {app / folder}"
    yield from (
        f"  a file beside its configuration: {name}"
        for name in files
        if not name.startswith(("custom/", "bundles/")) and app / name != job.folder / CLIENT_CONFIG
    )


def _part_lines(config: Mapping[str, Any]) -> Iterator[str]:
    """Each component: what it is there for, its class, what the installed source says of that, its own arguments."""
    tasks = {id(entry["executor"]): entry["tasks"] for entry in config.get("executors", [])}
    for part in parts_of(config):
        label = f"does {', '.join(tasks[id(part)])}" if id(part) in tasks else str(part.get("id", "filter"))
        yield f"  {label}: {part.get('path')}"
        yield from _indented(_first_words(str(part.get("path"))))
        others = {key: value for key, value in part.items() if key not in ("id", "path", "args")}
        for name, value in {**others, **part.get("args", {})}.items():
            if value != f"{{{name}}}":
                yield f"      {name} = {json.dumps(value)}"


def _first_words(path: str) -> str:
    """The first line of a class's docstring, from the installed source; nothing is imported but its package."""
    module, _, name = path.rpartition(".")
    try:
        spec = importlib.util.find_spec(module) if path.startswith(KNOWN_PACKAGES) else None
        source = Path(spec.origin).read_text(encoding="utf-8") if spec and spec.origin else ""
    except (ImportError, OSError, ValueError):
        source = ""
    found: list[ast.ClassDef | ast.FunctionDef] = [
        node for node in ast.parse(source).body if isinstance(node, ast.ClassDef) and node.name == name
    ]
    # FLARE says of some classes what they are in the docstring of the method that makes them.
    made = [node for cls in found for node in cls.body if isinstance(node, ast.FunctionDef) and node.name == "__init__"]
    docstrings = [ast.get_docstring(node) for node in (*found, *made)]
    said = next(filter(None, docstrings), "nothing is known here of this class")
    return " ".join(said.split("\n\n")[0].split())


def _client_settings(job: BuiltJob, client: Mapping[str, Any]) -> Iterator[str]:
    """Every setting of the site's app, the algorithm and the bundle; those that no table knows, as they are."""
    own = app_settings(APP_CLIENT, CLIENT_CONFIG, client)
    yield from describe_settings(own, client)
    algorithm, stated = str(client.get("algorithm")), client.get("algorithm_settings") or {}
    declared = algorithm_settings(algorithm) if algorithm in algorithm_names() else {}
    yield from describe_settings({**{name: Setting(value) for name, value in stated.items()}, **declared}, stated)
    overrides = client.get("overrides") or {}
    known = {**{name: Setting(value) for name, value in overrides.items()}, **_bundle_settings(job)}
    yield from describe_settings(known, overrides)
    for name, value in client.items():
        if name not in own and name not in SAID_OTHERWISE | {"required_code", "study", "format_version"}:
            yield f"  {name} = {json.dumps(value)}"


def _bundle_settings(job: BuiltJob) -> Mapping[str, Setting]:
    """Of the bundle that the job brings, else of the installed one; none where there is neither."""
    if not job.bundle:
        return {}
    brought = job.folder / "app_client" / "bundles" / Path(job.bundle).name
    bundle = brought if brought.is_dir() else installed_bundle(Path(job.bundle).name)
    return bundle_settings(bundle, str(job.variables.get("profile"))) if bundle else {}
