"""The source code behind transforms: when it changes, what they made of a case before is of no use any more."""

from __future__ import annotations

import ast
import importlib.util
import sys
import threading
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import FunctionType
from typing import Any, Final

from monai.transforms import Transform

from brats_fl.cases.cache_folder import hash_file

VERSIONED: Final = frozenset({"monai", *sys.stdlib_module_names})
"""Packages of which the version says enough."""

LIBRARY: Final = "brats_fl"
_PARSING: Final = threading.Lock()
"""Python 3.11 parses in one thread at a time: with two, one may end with a SystemError on its recursion depth."""

INSTALLED: Final = frozenset({"site-packages", "dist-packages"})
"""Folders of what pip installs."""


def hash_sources(steps: Iterable[Any]) -> dict[str, str]:
    """Module -> SHA-256 of its source, of the modules that define these transforms, and of those that they import.

    MONAI is left out; its version stands for it. Of imports those are followed that lead to the same package, to this
    library, or to anything that is not installed, such as a bundle's own scripts.

    Args:
        steps: Transforms; the transforms and functions among their settings count, too.
    """
    found: dict[str, str] = {}
    waiting = {module for step in steps for module in _defining(step)}
    while waiting:
        module = waiting.pop()
        source = None if module in found or top(module) in VERSIONED else _source_of(module)
        if source is not None:
            found[module] = hash_file(str(source))
            waiting |= {other for other in _imports(module, source) if _is_followed(other, top(module))}
    return dict(sorted(found.items()))


def top(module: str) -> str:
    """The package that a module lies in."""
    return module.partition(".")[0]


def _defining(value: Any) -> Iterator[str]:
    """Modules of a transform's class and its bases, and of the functions and transforms among its settings."""
    if isinstance(value, FunctionType):
        yield value.__module__
    elif isinstance(value, Transform):
        yield from (base.__module__ for base in type(value).__mro__)
        yield from _defining(vars(value))
    elif isinstance(value, (Mapping, list, tuple)):
        for inner in value.values() if isinstance(value, Mapping) else value:
            yield from _defining(inner)


def _source_of(module: str) -> Path | None:
    """File of a module; None where there is none, as for what is built in or not a module."""
    try:
        spec = importlib.util.find_spec(module)
    except (ImportError, ValueError):  # a name in a module, or the program that runs
        return None
    origin = spec.origin if spec else None
    return Path(origin) if origin and Path(origin).is_file() else None


def _imports(module: str, source: Path) -> Iterator[str]:
    """Names that a module imports, each a module or something in one."""
    if source.suffix != ".py":
        return
    package = module if source.name == "__init__.py" else module.rpartition(".")[0]
    with _PARSING:
        tree = ast.parse(source.read_bytes())
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            relative = f"{'.' * node.level}{node.module or ''}"
            origin = importlib.util.resolve_name(relative, package) if node.level else relative
            yield origin
            yield from (f"{origin}.{alias.name}" for alias in node.names)


def _is_followed(module: str, package: str) -> bool:
    if top(module) in (package, LIBRARY):
        return True
    source = _source_of(top(module))  # its package alone is looked for: to look further would import it
    return source is not None and not INSTALLED & set(source.parts)
