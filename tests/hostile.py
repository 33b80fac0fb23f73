"""Hostile files and messages: good ones with something wrong at any depth, and whatever bytes.

Each is made of one number, which hypothesis chooses: that is fast enough for thousands for each reader, and a number
that found something finds it again.
"""

from __future__ import annotations

import copy
import csv
import io
import json
import random
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

import yaml
from hypothesis import strategies as st

TEXTS: Final = (
    *("", " ", "a\nb", "a\tb", "\x00", "\x1b[2J", "\u2028", "\ud800", "../../x", "/", "..", "*", "[", "#1", "$x", "@x"),
    *("nan", "inf", "-1", "1e999", "1" * 400, "²", "١٢", "true", "x" * 5000, '"', "a,b", "hospital-1", "ok", "train"),
)
NUMBERS: Final = (0, -1, 1, 2**31, 2**63, 10**400, 0.5, -0.0, 1e-320, 1e308, float("inf"), float("-inf"), float("nan"))
NESTED: Final = json.loads("[" * 60 + "]" * 60)
ODD_VALUES: Final = (None, True, False, [], {}, [[]], {"": {}}, {"x": 1}, NESTED, *TEXTS, *NUMBERS)
SNIPPETS: Final = (
    *(b"\xef\xbb\xbf", b"\xff", b"\x00", b"\r", b"\n\n", b'"', b",", b"{", b"}", b"[", b"NaN", b"-Infinity", b"1e999"),
    *(b"9" * 5000, b"[" * 2000, b'{"a":' * 2000, b"\\ud800", b"\xed\xa0\x80", b"&a [*a]", b"!!float _", b"x" * 200_000),
)

Make = Callable[[random.Random], Any]
"""Makes something of random numbers."""


def made_by(make: Make) -> st.SearchStrategy[Any]:
    """What a function makes, for hypothesis."""
    return st.integers(0, 2**63).map(lambda number: make(random.Random(number)))


def odd_value(rng: random.Random, odd: Sequence[Any] = ODD_VALUES, depth: int = 0) -> Any:
    """Something that belongs nowhere, perhaps in a list or an object."""
    kind = rng.random()
    if depth > 3 or kind < 0.7:
        return rng.choice(odd)
    if kind < 0.8:
        return "".join(chr(rng.choice((rng.randrange(128), rng.randrange(0x11000)))) for _ in range(rng.randrange(9)))
    parts = [odd_value(rng, odd, depth + 1) for _ in range(rng.randrange(4))]
    return parts if kind < 0.9 else {rng.choice(TEXTS): part for part in parts}


def places(content: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Keys and numbers that lead to every value within another, the whole first."""
    yield path
    parts = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    for key, value in parts:
        yield from places(value, (*path, key))


def odd_content(content: Any, odd: Sequence[Any] = ODD_VALUES) -> Make:
    """A value like a good one, but for a part that was replaced, left out or renamed, or something that was added."""
    where = list(places(content))

    def make(rng: random.Random) -> Any:
        holder: Any = {"": copy.deepcopy(content)}
        *outer, key = ("", *rng.choice(where))
        parent = holder
        for step in outer:
            parent = parent[step]
        kind, value = rng.choice(("replace", "replace", "replace", "remove", "add", "rename")), odd_value(rng, odd)
        if kind == "remove" and key != "":
            del parent[key]
        elif kind == "rename" and isinstance(parent, dict) and key != "":
            parent[rng.choice(TEXTS)] = parent.pop(key)
        elif kind == "add" and isinstance(parent[key], dict):
            parent[key][rng.choice(TEXTS)] = value
        elif kind == "add" and isinstance(parent[key], list):
            parent[key].append(value)
        else:
            parent[key] = value
        return holder.get("")

    return make


def odd_bytes(content: bytes) -> Make:
    """A good file that was cut, or into which, or in place of a part of which, something was put."""

    def make(rng: random.Random) -> bytes:
        begin, end = sorted((rng.randrange(len(content) + 1), rng.randrange(len(content) + 1)))
        head, tail = content[:begin], content[end:]
        put = rng.choice((rng.choice(SNIPPETS), rng.randbytes(rng.randrange(9))))
        return rng.choice((head, head + put + content[begin:], head + put + tail, content * 2, rng.randbytes(40)))

    return make


def one_of(*makes: Make) -> Make:
    """One of several, each as often."""
    return lambda rng: rng.choice(makes)(rng)


def as_json(content: Any) -> bytes:
    return json.dumps(content).encode()


def odd_json(content: Any) -> Make:
    """JSON files."""
    repeated = as_json(content)[:-1] + b", " + as_json(content)[1:]  # every key twice, where it is an object
    odd, damaged = odd_content(content), odd_bytes(as_json(content))
    written: Make = lambda rng: as_json(odd(rng))  # noqa: E731
    return one_of(written, written, written, damaged, damaged, lambda rng: repeated)


def odd_lines(record: Any) -> Make:
    """Files with a JSON value a line, an odd one between two good ones."""
    good, odd = as_json(record) + b"\n", odd_json(record)
    return lambda rng: good + odd(rng) + b"\n" + good


NO_COUNTS: Final = (1.7e308, float("nan"), float("inf"), 10**30, -1, True, "3", [3], 2.5)
"""What a site may state as its number of cases, and is none."""


def odd_yaml(content: Any) -> Make:
    """YAML files."""

    def as_yaml(value: Any) -> bytes:
        try:
            return yaml.safe_dump(value, allow_unicode=True).encode("utf-8", "surrogatepass")
        except (yaml.YAMLError, ValueError):  # a number or a character that YAML does not write
            return as_json(value)

    odd = odd_content(content)
    return one_of(lambda rng: as_yaml(odd(rng)), odd_bytes(as_yaml(content)), odd_json(content))


def as_toml(value: Any) -> str:
    """A value as TOML writes it; a date in place of null, which TOML has not."""
    if value is None:
        return "2026-02-01"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(str(key))} = {as_toml(part)}" for key, part in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(as_toml, value)) + "]"
    return repr(value) if isinstance(value, float) else json.dumps(value)


def toml_file(content: Any) -> bytes:
    """A TOML file with these keys; of what has no keys the value alone, which is none."""
    pairs = content.items() if isinstance(content, dict) else [("", content)]
    lines = [f"{json.dumps(str(key))} = {as_toml(value)}\n" for key, value in pairs]
    return "".join(lines).encode("utf-8", "surrogatepass")


def odd_toml(content: Any) -> Make:
    """TOML files."""
    odd = odd_content(content)
    written: Make = lambda rng: toml_file(odd(rng))  # noqa: E731
    return one_of(written, written, odd_bytes(toml_file(content)))


def odd_csv(rows: list[dict[str, str]]) -> Make:
    """CSV files."""

    def as_csv(table: Any) -> bytes:
        text = io.StringIO()
        for row in table if isinstance(table, list) else [table]:
            csv.writer(text, lineterminator="\n").writerow(row if isinstance(row, list) else [row])
        return text.getvalue().encode("utf-8", "surrogatepass")

    cells = [list(rows[0]), *([row[column] for column in rows[0]] for row in rows)]
    odd = odd_content(cells)
    return one_of(lambda rng: as_csv(odd(rng)), odd_bytes(as_csv(cells)))
