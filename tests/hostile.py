"""Hostile files: a good one with something wrong at any depth, and whatever bytes."""

from __future__ import annotations

import copy
import csv
import io
import json
from collections.abc import Callable, Iterator
from typing import Any, Final

import yaml
from hypothesis import strategies as st

TEXTS: Final = (
    *(
        "",
        " ",
        "a\nb",
        "a\tb",
        "\x00",
        "\x1b[2J",
        "\u2028",
        "\ud800",
        "../../x",
        "/",
        "..",
        "*",
        "[",
        "#1",
        "$x",
        "@x",
        "%x",
    ),
    *("nan", "inf", "-1", "1e999", "1" * 400, "²", "١٢", "true", "x" * 5000, '"', "a,b", "hospital-1", "ok", "train"),
)
NUMBERS: Final = (0, -1, 1, 2**31, 2**63, 10**400, 0.5, -0.0, 1e-320, 1e308, float("inf"), float("-inf"), float("nan"))
NESTED: Final = "[" * 60 + "]" * 60
SNIPPETS: Final = (
    *(b"\xef\xbb\xbf", b"\xff", b"\x00", b"\r", b"\n\n", b'"', b",", b"{", b"}", b"[", b"NaN", b"-Infinity", b"1e999"),
    *(
        b"9" * 5000,
        b"[" * 2000,
        b'{"a":' * 2000,
        b"\\ud800",
        b"\xed\xa0\x80",
        b"&a [*a]",
        b"!!python/none",
        b"x" * 200_000,
    ),
)

odd_values = (
    st.sampled_from((None, True, False, [], {}, [[]], {"": {}}, {"x": 1}, json.loads(NESTED), *TEXTS, *NUMBERS))
    | st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
        max_leaves=5,
    )
)  # fmt: skip


def places(content: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Keys and numbers that lead to every value within another, the whole first."""
    yield path
    parts = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    for key, value in parts:
        yield from places(value, (*path, key))


def changed(content: Any, path: tuple[Any, ...], change: Callable[[Any, Any], None]) -> Any:
    """A copy in which something was done to the part at ``path``: ``change(parent, key)``."""
    holder = {"": copy.deepcopy(content)}
    parent: Any = holder
    for key in ("", *path)[:-1]:
        parent = parent[key]
    change(parent, ("", *path)[-1])
    return holder.get("")


@st.composite
def odd_content(draw: st.DrawFn, content: Any, odd_parts: st.SearchStrategy[Any] = odd_values) -> Any:
    """A value like a good one, but for a part that was replaced, left out or doubled, or a key that was added."""
    where, odd = draw(st.sampled_from(list(places(content)))), draw(odd_parts)
    kind = draw(st.sampled_from(("replace", "replace", "replace", "remove", "add", "rename")))

    def change(parent: Any, key: Any) -> None:
        if kind == "remove" and key != "":
            del parent[key]
        elif kind == "rename" and isinstance(parent, dict) and key != "":
            parent[draw(st.sampled_from(TEXTS))] = parent.pop(key)
        elif kind == "add" and isinstance(parent[key], dict):
            parent[key][draw(st.sampled_from(TEXTS))] = odd
        elif kind == "add" and isinstance(parent[key], list):
            parent[key].append(odd)
        else:
            parent[key] = odd

    return changed(content, where, change)


@st.composite
def odd_bytes(draw: st.DrawFn, content: bytes) -> bytes:
    """A good file that was cut, or into which, or in place of a part of which, something was put."""
    begin, end = sorted(draw(st.lists(st.integers(0, len(content)), min_size=2, max_size=2)))
    put = draw(st.sampled_from(SNIPPETS) | st.binary(max_size=8))
    return draw(
        st.sampled_from(
            (
                content[:begin],
                content[:begin] + put + content[begin:],
                content[:begin] + put + content[end:],
                content * 2,
            )
        )
        | st.binary(max_size=60)
    )


def as_json(content: Any) -> bytes:
    return json.dumps(content).encode()


def odd_json(content: Any) -> st.SearchStrategy[bytes]:
    """JSON files."""
    repeated = as_json(content)[:-1] + b", " + as_json(content)[1:]  # every key twice, where it is an object
    return odd_content(content).map(as_json) | odd_bytes(as_json(content)) | st.just(repeated)


def odd_lines(record: Any) -> st.SearchStrategy[bytes]:
    """Files with a JSON value a line, an odd one between two good ones."""
    good = as_json(record) + b"\n"
    return odd_json(record).map(lambda odd: good + odd + b"\n" + good)


def odd_yaml(content: Any) -> st.SearchStrategy[bytes]:
    """YAML files."""

    def as_yaml(value: Any) -> bytes:
        try:
            return yaml.safe_dump(value, allow_unicode=True).encode("utf-8", "surrogatepass")
        except (yaml.YAMLError, ValueError):  # a number that Python does not write, a character that YAML does not
            return as_json(value) if value != 10**400 else b"9" * 5000

    return odd_content(content).map(as_yaml) | odd_bytes(as_yaml(content)) | odd_json(content)


def odd_csv(rows: list[dict[str, str]]) -> st.SearchStrategy[bytes]:
    """CSV files."""
    cells = [list(rows[0]), *([row[column] for column in rows[0]] for row in rows)]

    def as_csv(table: Any) -> bytes:
        text = io.StringIO()
        for row in table if isinstance(table, list) else [table]:
            csv.writer(text, lineterminator="\n").writerow(row if isinstance(row, list) else [str(row)[:500]])
        return text.getvalue().encode("utf-8", "surrogatepass")

    def without_huge(table: Any) -> Any:
        return json.loads(json.dumps(table, default=str), parse_int=lambda digits: digits)

    return odd_content(cells).map(without_huge).map(as_csv) | odd_bytes(as_csv(cells))
