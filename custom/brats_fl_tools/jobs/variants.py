"""A job as a difference: what ``job.json`` changes in the shared apps, by id, with nothing copied.

```
"workflows": [...]                                  in place of the server's
"executors": [...]                                  in place of the client's
"components": {"aggregator": {"path": ..., "args": {...}}}   a component or workflow of the server, by its id
"client_components": {...}                          a component of the client, by its id
"client_filters": [{"id": ..., "path": ..., "args": {...}}]  what the client's results go through, in this order
"server_filters": [...]                             what the client's results go through at the server
"add": {"variables": {...}, "components": {...}, "client_components": {...}}   what the shared apps do not have
```

A change with a ``path`` takes the component's place; one with ``args`` alone changes these; null takes it out. An id or
an argument that does not exist is an error, and a variable that nothing uses any more goes.
"""

from __future__ import annotations

import importlib
import inspect
import json
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from brats_fl.errors import JobError
from brats_fl.typed import shorten

STRUCTURE = frozenset(
    {"workflows", "executors", "components", "client_components", "client_filters", "server_filters", "add"}
)
"""Keys of a job.json that change what runs; the others are variables."""

FILTERED_TASKS = ("train",)
"""Tasks whose results a filter sees where it does not say."""

Config = dict[str, Any]


@dataclass
class Variant:
    """The two apps of a job; changed in place by its differences."""

    place: str
    """File that the differences stand in, for messages."""
    server: Config
    client: Config


def apply_differences(variant: Variant, differences: Mapping[str, Any], code: Path | None = None) -> None:
    """Change the apps as a ``job.json`` says.

    Args:
        variant: Fresh copies of the shared apps.
        differences: The whole content of ``job.json``; its variables are left to the caller.
        code: Folder of the modules that the job brings of its own.

    Raises:
        JobError: An id, argument or class does not exist, an added one exists already, or a value has the wrong form.
    """
    server, client, place = variant.server, variant.client, variant.place
    for key, config in (("workflows", server), ("executors", client)):
        if key in differences:
            config[key] = _typed(place, key, differences[key], list)
    added = _typed(place, "add", differences.get("add", {}), dict)
    if unknown := set(added) - {"variables", "components", "client_components"}:
        raise JobError(
            f"{place}: add: unknown key {shorten(min(unknown))}; it has variables, components, client_components"
        )
    for key, config in (("components", server), ("client_components", client)):
        _change(place, key, config, _typed(place, key, differences.get(key, {}), dict))
        _add(place, key, config, _typed(place, f"add: {key}", added.get(key, {}), dict))
    for key, config in (("client_filters", client), ("server_filters", server)):
        config["task_result_filters"] += _filters(place, key, _typed(place, key, differences.get(key, []), list))
    for name, value in _typed(place, "add: variables", added.get("variables", {}), dict).items():
        if name in server or name in client:
            raise JobError(f"{place}: add: variable {shorten(name)} exists already; set it without add")
        server[name] = client[name] = value
    for config in (server, client):
        _drop_unused(config)
    with _importable(code):
        for part in _own_parts(variant, differences):
            _check_class(place, part)
    for config in (server, client):
        _check_variables(place, config)


def parts_of(config: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Every ``{"path", "args"}`` of an app, with its id where it has one."""
    filters = [part for key in ("task_data_filters", "task_result_filters") for part in config.get(key, [])]
    return [
        *config.get("workflows", []),
        *config.get("components", []),
        *(entry["executor"] for entry in config.get("executors", [])),
        *(part for entry in filters for part in entry["filters"]),
    ]


def _typed(place: str, key: str, value: Any, kind: type) -> Any:
    if not isinstance(value, kind):
        raise JobError(f"{place}: {key} must be {'a list' if kind is list else 'an object'} (got {shorten(value)})")
    return value


def _change(place: str, key: str, config: Config, changes: Mapping[str, Any]) -> None:
    homes = {part["id"]: home for home in ("workflows", "components") for part in config.get(home, [])}
    for name, change in changes.items():
        if name not in homes:
            raise JobError(f"{place}: {key}: no component {shorten(name)}; there are {', '.join(sorted(homes))}")
        parts = config[homes[name]]
        index = next(i for i, part in enumerate(parts) if part["id"] == name)
        if change is None:
            del parts[index]
        elif "path" in _typed(place, f"{key}: {name}", change, dict):
            parts[index] = _part(place, f"{key}: {name}", name, change)
        else:
            args = _part(place, f"{key}: {name}", name, {"path": parts[index]["path"], **change})["args"]
            parts[index] = {**parts[index], "args": {**parts[index].get("args", {}), **args}}


def _add(place: str, key: str, config: Config, parts: Mapping[str, Any]) -> None:
    there = {part["id"] for home in ("workflows", "components") for part in config.get(home, [])}
    for name, part in parts.items():
        if name in there:
            raise JobError(f"{place}: add: {key}: {shorten(name)} exists already; change it under {key}")
        config["components"].append(_part(place, f"add: {key}: {name}", name, _typed(place, name, part, dict)))


def _part(place: str, where: str, name: str, part: Mapping[str, Any]) -> dict[str, Any]:
    unknown = sorted(set(part) - {"id", "path", "args", "tasks"})
    if unknown or "path" not in part:
        wrong = f"unknown key {shorten(unknown[0])}" if unknown else "no path"
        raise JobError(f"{place}: {where} has {wrong}; a component has path and args")
    return {"id": name, "path": str(part["path"]), "args": dict(_typed(place, where, part.get("args", {}), dict))}


def _filters(place: str, key: str, filters: list[Any]) -> list[dict[str, Any]]:
    entries = []
    for index, entry in enumerate(filters):
        where = f"{key}[{index}]"
        part = _part(place, where, str(_typed(place, where, entry, dict).get("id", where)), entry)
        entries.append({"tasks": list(entry.get("tasks", FILTERED_TASKS)), "filters": [part]})
    return entries


def _drop_unused(config: Config) -> None:
    """Take out variables that nothing in the app refers to, so that setting one of them is an error."""
    text = json.dumps([value for value in config.values() if isinstance(value, (list, dict))])
    for key in [key for key, value in config.items() if not isinstance(value, list) and key not in READ_BY_FLARE]:
        if f"{{{key}}}" not in text:
            del config[key]


READ_BY_FLARE = frozenset({"format_version", "default_task_fetch_interval", "server"})
"""Root values that no component is given."""


def _own_parts(variant: Variant, differences: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The parts that the job states itself; those of the shared apps are known to be right."""
    added = differences.get("add", {})
    ids = {*differences.get("components", {}), *added.get("components", {})}
    client_ids = {*differences.get("client_components", {}), *added.get("client_components", {})}
    for config, names, whole in (
        (variant.server, ids, ("workflows", "server_filters")),
        (variant.client, client_ids, ("executors", "client_filters")),
    ):
        everything = any(key in differences for key in whole)
        yield from (part for part in parts_of(config) if everything or part.get("id") in names)


@contextmanager
def _importable(code: Path | None) -> Iterator[None]:
    if code is not None:
        sys.path.insert(0, str(code))
    try:
        yield
    finally:
        if code is not None:
            sys.path.remove(str(code))


def _check_class(place: str, part: Mapping[str, Any]) -> None:
    path = str(part["path"])
    module, _, name = path.rpartition(".")
    if not module or not all(word.isidentifier() for word in path.split(".")):
        raise JobError(f"{place}: no class {shorten(path)}: it must be package.module.Class")
    try:
        found = getattr(importlib.import_module(module), name)
        takes = inspect.signature(found)
    except (ImportError, AttributeError, ValueError, TypeError) as error:
        raise JobError(f"{place}: no class {shorten(path)} ({error})") from error
    try:
        takes.bind(**part.get("args", {}))
    except TypeError as error:
        raise JobError(f"{place}: {path}: {error}; it takes {takes}") from error


def _check_variables(place: str, config: Config) -> None:
    for name in re.findall(r'"\{(\w+)\}"', json.dumps(config)):
        if name not in config:
            raise JobError(f"{place}: {{{name}}} is no variable; state it under add: variables")
