"""Reading what others wrote, in one place: JSON, TOML, CSV are plain and typed, or an error of ours says why not.

Whoever reads a file says once what is wrong with one that cannot be used, and what to do then:

    READER = Reader(KitError, "ask for the kit again")
    kit = READER.json_object(path)
"""

from __future__ import annotations

import csv
import io
import json
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple, NoReturn, TypeVar

from brats_fl.errors import BratsFLError
from brats_fl.numbers import is_finite
from brats_fl.typed import NotTypedError, shorten, typed

T = TypeVar("T")

MOST_BYTES: Final = 64 * 2**20
"""Of a file; the data list of all of BraTS 2023 has 1 MB, records of 1,000 rounds at 20 sites have 15."""

DEEPEST: Final = 50
"""Levels of a file within each other; a bundle's configuration has 12."""

MOST_DIGITS: Final = 19
"""Of a whole number: one that 64 bits hold has no more."""

_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
"""Characters that are no text: a terminal acts on them, a path cannot hold them, or UTF-8 cannot write them."""

_SEPARATOR_LINE: Final = re.compile(r'\A"?sep=.?"?(?P<end>\r?\n)', re.IGNORECASE)
"""Before the names of a table's columns, for Excel; the names themselves tell what stands between them."""


class Table(NamedTuple):
    """A CSV file: its columns, and its records with the lines that they end at; all fields are stripped."""

    columns: list[str]
    records: list[tuple[int, dict[str, str]]]


@dataclass(frozen=True)
class Reader:
    """Reads files of one kind.

    Args:
        error: Raised for one that cannot be used: with the place, the rule, what was found, and ``mend``.
        mend: What to do then.
        missing: What is said where there is no file; by default that there is none, and ``mend``.
    """

    error: type[BratsFLError]
    mend: str
    missing: str = ""

    def refuse(self, place: Path | str, why: str) -> NoReturn:
        """Raise the error of this kind of file."""
        raise self.error(f"{place}: {why}; {self.mend}")

    def content(self, path: Path) -> bytes:
        """Bytes of a file, of which there may be ``MOST_BYTES``."""
        try:
            with path.open("rb") as file:
                content = file.read(MOST_BYTES + 1)
        except FileNotFoundError:
            raise self.error(f"{path}: {self.missing or f'no such file; {self.mend}'}") from None
        except IsADirectoryError:
            raise self.error(f"{path}: is a folder; give the file itself") from None
        except (OSError, ValueError) as error:  # ValueError: a path with a NUL in it
            reason = error.strerror if isinstance(error, OSError) else error
            self.refuse(path, f"cannot be read ({reason})")
        if len(content) > MOST_BYTES:
            self.refuse(path, f"has more than {MOST_BYTES // 2**20} MiB")
        return content

    def text(self, path: Path) -> str:
        """Text of a file in UTF-8, with a byte order mark or without."""
        content = self.content(path)
        try:
            return content.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            line, byte = content.count(b"\n", 0, error.start) + 1, content[error.start]
            self.refuse(f"{path}, line {line}", f"is no text in UTF-8 (holds the byte {byte:#04x})")

    def json(self, path: Path) -> Any:
        """Content of a JSON file, as ``parse``."""
        return self.parse(path, self.text(path))

    def json_object(self, path: Path) -> dict[str, Any]:
        """Content of a file that holds a JSON object."""
        content = self.json(path)
        if not isinstance(content, dict):
            self.refuse(path, f"must hold a JSON object (got {shorten(content)})")
        return content

    def parse(self, place: Path | str, text: str | bytes) -> Any:
        """Value of a JSON text: finite numbers, no key twice, texts without control characters, no endless nesting.

        Args:
            place: File, or file and line, for the message.
            text: Not trusted.
        """
        try:
            content = json.loads(
                text, parse_constant=_refuse_constant, parse_int=_whole_number, object_pairs_hook=_without_repeats
            )
            check_plain(content)
        except RecursionError:
            self.refuse(place, f"is nested deeper than {DEEPEST} levels")
        except ValueError as error:  # json's own and ours
            self.refuse(place, f"cannot be read as JSON ({error})")
        return content

    def toml(self, path: Path) -> dict[str, Any]:
        """Content of a TOML file, held to what ``parse`` asks of JSON, which has no dates and times."""
        if sys.version_info >= (3, 11):
            import tomllib
        else:
            import tomli as tomllib
        text = self.text(path)
        try:
            content = tomllib.loads(text)
            check_plain(content)
            json.dumps(content, allow_nan=False)
        except RecursionError:
            self.refuse(path, f"is nested deeper than {DEEPEST} levels")
        except TypeError:
            self.refuse(path, "holds a date or a time; write it as text, in quotes")
        except ValueError as error:  # the parser's own and ours
            self.refuse(path, f"cannot be read as TOML ({error})")
        return content

    def table(self, path: Path) -> Table:
        """Columns and records of a CSV file; a record that is too short ends in empty fields."""
        text = _SEPARATOR_LINE.sub(r"\g<end>", self.text(path))
        rows = csv.reader(io.StringIO(text, newline=""), delimiter=_separator(text), skipinitialspace=True, strict=True)
        columns: list[str] = []
        records: list[tuple[int, dict[str, str]]] = []
        for fields in self._rows(path, rows):
            if not columns:
                columns = fields
            elif any(fields):
                if any(fields[len(columns) :]):
                    self.refuse(f"{path}, line {rows.line_num}", f"has more fields than the {len(columns)} columns")
                padded = [*fields, *[""] * (len(columns) - len(fields))]
                records.append((rows.line_num, dict(zip(columns, padded, strict=False))))
        if not columns or len(set(columns)) != len(columns):
            self.refuse(path, f"must begin with a line of column names, each once (got {shorten(columns)})")
        return Table(columns, records)

    def _rows(self, path: Path, rows: Any) -> Iterator[list[str]]:
        """Stripped fields of each line."""
        while True:
            try:
                fields = [field.strip() for field in next(rows)]
            except StopIteration:
                return
            except csv.Error as error:
                self.refuse(f"{path}, line {rows.line_num}", f"cannot be read as CSV ({error})")
            if odd := next((field for field in fields if _CONTROL.search(field) or "\n" in field), None):
                self.refuse(f"{path}, line {rows.line_num}", f"a field must be one line of text (got {shorten(odd)})")
            yield fields

    def typed(self, kind: type[T], value: object, place: Path | str, name: str = "") -> T:
        """A value as a type says it, see ``brats_fl.typed``."""
        try:
            return typed(kind, value, name)
        except NotTypedError as error:
            self.refuse(place, str(error))

    def at(self, kind: type[T], content: object, keys: Sequence[str | int], place: Path | str) -> T:
        """What lies under keys and numbers within a file's content, as ``typed``."""
        found: Any = content
        for key in keys:
            there = isinstance(found, Mapping) if isinstance(key, str) else isinstance(found, list)
            if not there or (key not in found if isinstance(key, str) else key >= len(found)):
                self.refuse(place, f"has no {'.'.join(map(str, keys))}")
            found = found[key]
        return self.typed(kind, found, place, ".".join(map(str, keys)))


def read_if_sound(path: Path) -> dict[str, Any]:
    """The JSON object of a file that may be missing or damaged: empty then."""
    try:
        return Reader(BratsFLError, "").json_object(path)
    except BratsFLError:
        return {}


def check_plain(content: object) -> None:
    """Raise ``ValueError`` where a value holds a number that is not finite, odd characters, or levels without end."""
    waiting, seen = [(content, 0)], set()
    while waiting:
        value, depth = waiting.pop()
        if isinstance(value, (dict, list)):
            if id(value) in seen:
                continue  # YAML may name one value in many places
            seen.add(id(value))
            if depth >= DEEPEST:
                raise ValueError(f"it is nested deeper than {DEEPEST} levels")
            parts = [*value, *value.values()] if isinstance(value, dict) else value
            waiting += [(part, depth + 1) for part in parts]
        elif isinstance(value, str) and (odd := _CONTROL.search(value)):
            raise ValueError(f"a text holds the character {odd[0]!a}: {shorten(value)}")
        elif isinstance(value, (int, float)) and not isinstance(value, bool) and not is_finite(value):
            raise ValueError(f"a number must be finite (got {shorten(value)})")
        elif isinstance(value, int) and abs(value) >= 10**MOST_DIGITS:
            raise ValueError(f"a whole number must have at most {MOST_DIGITS} digits (got {shorten(value)})")


def _separator(text: str) -> str:
    """What stands between a table's fields: where its line of names has no comma, a semicolon or a tab will do.

    Excel writes these in place of commas where numbers have decimal commas.
    """
    names = text.lstrip().partition("\n")[0]
    return next((mark for mark in ";\t" if mark in names and "," not in names), ",")


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"a number must be finite (got {name})")


def _whole_number(digits: str) -> int:
    if len(digits.lstrip("-")) > MOST_DIGITS:
        raise ValueError(f"a whole number must have at most {MOST_DIGITS} digits (got {len(digits)})")
    return int(digits)


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the key {shorten(twice)} stands twice")
    return content
