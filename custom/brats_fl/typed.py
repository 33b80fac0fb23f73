"""Values of a file as Python's types say them: what is not of its type is refused in words, key by key."""

from __future__ import annotations

import types
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from enum import Enum
from functools import cache
from pathlib import Path
from typing import Any, Final, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from brats_fl.numbers import is_finite

T = TypeVar("T")

PLAIN: Final[Mapping[Any, str]] = types.MappingProxyType(
    {str: "text", bool: "true or false", int: "a whole number", float: "a number", Path: "a path"}
)
"""Types of one value -> what a message calls them."""

LONGEST_NAME: Final = 255
"""Of a file or folder, on the disks that there are."""

SHOWN: Final = 80
"""Characters of a value in a message."""


class NotTypedError(ValueError):
    """A value is not of its type; the text says which, by its keys, the rule and what was found."""


def typed(kind: type[T], value: object, name: str = "") -> T:
    """A value as its type wants it; a dataclass comes of an object with its fields, a tuple of a list.

    Args:
        kind: ``str``, ``bool``, ``int``, ``float``, ``Path``, ``Any``, a dataclass, an ``Enum``, or ``X | None``,
            ``Literal``, ``list``, ``tuple[X, ...]``, ``dict`` and ``Mapping`` of such.
        value: As JSON gives it.
        name: Of the value, for the message; empty for the whole.

    Raises:
        NotTypedError: It is not of the type, lacks a field that has no default, or has one that there is not.
    """
    found: T = _convert(kind, value, name)
    return found


def _convert(kind: Any, value: Any, name: str) -> Any:
    origin, arguments = get_origin(kind), get_args(kind)
    if kind is Any or kind is object:
        return value
    if origin in (Union, types.UnionType):
        if value is None and type(None) in arguments:
            return None
        return _convert(next(one for one in arguments if one is not type(None)), value, name)
    if origin is Literal:
        return value if value in [one for one in arguments if type(one) is type(value)] else _refuse(kind, value, name)
    if origin is tuple and Ellipsis not in arguments:
        if len(_a(list, kind, value, name)) != len(arguments):
            _refuse(kind, value, name)
        return tuple(_convert(one, value[i], f"{name}[{i}]") for i, one in enumerate(arguments))
    if origin in (list, tuple, frozenset):
        return origin(_convert(arguments[0], one, f"{name}[{i}]") for i, one in enumerate(_a(list, kind, value, name)))
    if origin in (dict, Mapping):
        items = _a(dict, kind, value, name).items()
        return {_convert(arguments[0], key, name): _convert(arguments[1], one, _join(name, key)) for key, one in items}
    if is_dataclass(kind):
        return _make(kind, _a(dict, kind, value, name), name)
    if issubclass(kind, Enum):
        return next((one for one in kind if one.value == value), None) or _refuse(kind, value, name)
    return _convert_plain(kind, value, name)


def _convert_plain(kind: Any, value: Any, name: str) -> Any:
    if kind is float and is_finite(value):
        return float(value)
    if kind is int and isinstance(value, int) and is_finite(value):
        return value
    if kind is Path and isinstance(value, str) and all(len(part) <= LONGEST_NAME for part in value.split("/")):
        return Path(value)
    return value if kind in (str, bool, dict, list) and isinstance(value, kind) else _refuse(kind, value, name)


def _a(container: type[T], kind: Any, value: Any, name: str) -> T:
    return value if isinstance(value, container) else _refuse(kind, value, name)


def _make(kind: Any, content: Mapping[str, Any], name: str) -> Any:
    """A dataclass from its fields."""
    wanted, hints = {field.name: field for field in fields(kind) if field.init}, _hints(kind)
    if unknown := [key for key in content if key not in wanted]:
        raise NotTypedError(f"unknown key {shorten(_join(name, unknown[0]))}; there are {', '.join(wanted)}")
    for key, field in wanted.items():
        if key not in content and field.default is MISSING and field.default_factory is MISSING:
            raise NotTypedError(f"has no {_join(name, key)!r}")
    values = {key: _convert(hints[key], one, _join(name, key)) for key, one in content.items()}
    try:
        return kind(**values)
    except NotTypedError:
        raise
    except ValueError as error:  # a rule of its own
        raise NotTypedError(str(error)) from None


@cache
def _hints(kind: Any) -> dict[str, Any]:
    return get_type_hints(kind)


def _refuse(kind: Any, value: object, name: str) -> Any:
    raise NotTypedError(f"{shorten(name)[1:-1] or 'it'} must be {describe(kind)} (got {shorten(value)})")


def describe(kind: Any) -> str:
    """A type in words: ``a list of numbers``, ``text or null``."""
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        return " or ".join("null" if one is type(None) else describe(one) for one in arguments)
    if origin is Literal:
        return f"one of {', '.join(map(str, arguments))}"
    if origin is tuple and Ellipsis not in arguments:
        return f"a list of {len(arguments)}, each entry {describe(arguments[0])}"
    if origin in (list, tuple, frozenset):
        return f"a list, each entry {describe(arguments[0])}"
    if origin in (dict, Mapping) and arguments[1] is not Any:
        return f"an object, each value {describe(arguments[1])}"
    if isinstance(kind, type) and issubclass(kind, Enum):
        return f"one of {', '.join(str(one.value) for one in kind)}"
    return PLAIN.get(kind, "a list" if kind is list else "an object")


def _join(name: str, key: object) -> str:
    return f"{name}.{key}" if name else str(key)


def printable(text: str) -> str:
    """Text of others with every character escaped that a terminal would act on, a new line included."""
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text)


def shorten(value: object) -> str:
    """A value for a message: on one line, with what is no text escaped, and not longer than ``SHOWN`` characters."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # a number of thousands of digits, lists in lists without end
        text = f"a huge {type(value).__name__}"
    return text if len(text) <= SHOWN else f"{text[: SHOWN - 3]}..."
