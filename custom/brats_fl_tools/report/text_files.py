"""Files of a run folder as text and as JSON; what is wrong with one is said with the command that makes it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from brats_fl.errors import RunError


def read_object(path: Path, mend: str = "remove it or write it again") -> Mapping[str, Any]:
    """Content of a file that holds a JSON object; ``mend`` says what to do where it does not.

    Raises:
        RunError: It is missing, unreadable, or holds something else.
    """
    content = parse_json(path, read_text(path, mend), mend)
    if not isinstance(content, dict):
        raise RunError(f"{path}: must hold a JSON object (got {type(content).__name__}); {mend}")
    return MappingProxyType(content)


def read_text(path: Path, mend: str) -> str:
    """Content of a text file; raises ``RunError`` with the mend where it cannot be read."""
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise RunError(f"{path}: no such file; {mend}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise RunError(f"{path}: cannot be read as text ({error}); {mend}") from error


def parse_json(place: Path | str, text: str, mend: str) -> Any:
    """Content of JSON text; raises ``RunError`` with its place and the mend where it is none."""
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise RunError(f"{place}: is not JSON ({error}); {mend}") from error
