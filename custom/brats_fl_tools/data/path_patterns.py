"""Whether a file's path is one that a mapping's pattern describes, and what its placeholders stand for.

As a regular expression, a pattern with many ``*`` may take for ever on a name that it nearly fits. Here no place in
pattern and path is tried twice: the work grows with their lengths and not with the ways to fit one to the other.
"""

from __future__ import annotations

import re
from typing import Final

ANY: Final = "*"
_PARTS: Final = re.compile(r"(\{[^}]*\}|\*)")

Names = tuple[tuple[str, str], ...]
"""Placeholder with its braces -> what it stands for."""


def parts_of(pattern: str) -> tuple[str, ...]:
    """Text, ``{placeholder}`` and ``*`` of a pattern, in order; of several ``*`` in a row one is kept."""
    parts = [part for part in _PARTS.split(pattern) if part]
    return tuple(part for i, part in enumerate(parts) if part != ANY or i == 0 or parts[i - 1] != ANY)


def placeholders_in(pattern: str) -> set[str]:
    """Names of the placeholders, without their braces."""
    return {part[1:-1] for part in parts_of(pattern) if part[:1] == "{"}


def match_path(parts: tuple[str, ...], path: str) -> dict[str, str] | None:
    """Placeholder -> what it stands for, as long as it can be from left to right; None where the path does not fit.

    Args:
        parts: Of the pattern. A placeholder stands for at least one character and ``*`` for any, neither for a ``/``;
            one that comes again stands for the same again.
        path: With ``/`` between folders.
    """
    waiting: list[tuple[int, int, Names]] = [(0, 0, ())]
    tried: set[tuple[int, int, Names]] = set()
    while waiting:
        state = waiting.pop()
        if state in tried:
            continue
        tried.add(state)
        number, begin, names = state
        if number == len(parts):
            if begin == len(path):
                return {name[1:-1]: text for name, text in names}
            continue
        part = parts[number]
        is_open = part == ANY or (part[:1] == "{" and part not in dict(names))
        if not is_open:
            text = dict(names).get(part, part)
            waiting += [(number + 1, begin + len(text), names)] if path.startswith(text, begin) else []
            continue
        slash = path.find("/", begin)
        last = len(path) if slash < 0 else slash
        for end in range(begin + (part != ANY), last + 1):  # the longest is tried first: it is put there last
            waiting.append((number + 1, end, names if part == ANY else (*names, (part, path[begin:end]))))
    return None
