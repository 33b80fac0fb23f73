"""What a job may set, and to which values: the builder asks here, and every site asks again before it believes a job.

A setting is data: a number, a truth value, a list of numbers, a word of a fixed list. A bundle's settings are the root
literals of its training configuration; its ``configs/settings.json`` says what each means and which values it may have.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from brats_fl.bundle import config_files, is_plain, read_config
from brats_fl.errors import JobError
from brats_fl.numbers import is_finite
from brats_fl.reading import Reader
from brats_fl.typed import shorten

SETTINGS_FILE = "settings.json"
TRUTH = "true or false"
READER = Reader(JobError, "it is a table of settings: mend it")
SET_BY_SITE = frozenset(
    {"bundle_root", "data_list_file_path", "dataset_dir", "cache_dir", "ckpt_dir", "output_dir", "device"}
    | {"rounds", "local_epochs", "epochs", "seed"}
)
"""Of a bundle: set by the executor, or the site's own. Where a site's files lie is never a job's to say."""


@dataclass(frozen=True)
class Setting:
    """A variable that may be set; its bounds hold for each number of a list."""

    default: Any
    meaning: str = ""
    unit: str = ""
    minimum: float | None = None
    above: float | None = None
    maximum: float | None = None
    multiple_of: int | None = None
    length: int | None = None
    is_set: bool = False
    """Of a list: each number at most once."""
    words: tuple[str, ...] = ()
    is_chosen: bool = False
    """It must be set where a job is built: ``default`` tells its type, and is never used."""

    def __post_init__(self) -> None:
        """Check the rule itself.

        Raises:
            ValueError: No number is a multiple of it.
        """
        if self.multiple_of is not None and self.multiple_of < 1:
            raise ValueError(f"multiple_of must be 1 or more (got {self.multiple_of})")

    @property
    def rule(self) -> str:
        """The values that it may have, in words: ``a list of 3 numbers, each above 0``; empty of any text."""
        if self.words:
            return f"one of {', '.join(self.words)}"
        if kind_of(self.default) == "text":
            return ""
        bounds = [
            text.format(bound)
            for text, bound in (
                ("above {:.12g}", self.above),
                ("{:.12g} or more", self.minimum),
                ("at most {:.12g}", self.maximum),
                ("a multiple of {:.12g}", self.multiple_of),
            )
            if bound is not None
        ]
        if not isinstance(self.default, list):
            kind = kind_of(self.default)
            return f"{kind if kind == TRUTH else 'a ' + kind} {' and '.join(bounds)}".strip()
        count = "" if self.length is None else f"{self.length} "
        each = " and ".join(["at most once"] * self.is_set + bounds)
        return f"a list of {count}{kind_of(*self.default)}s" + (f", each {each}" if each else "")

    def allows(self, value: Any) -> bool:
        """Whether it may have this value."""
        if isinstance(self.default, list):
            right_length = isinstance(value, list) and self.length in (None, len(value))
            allowed = right_length and all(self._allows_one(part, kind_of(*self.default)) for part in value)
            return allowed and not (self.is_set and len(set(value)) < len(value))
        return self._allows_one(value, kind_of(self.default))

    def _allows_one(self, value: Any, kind: str) -> bool:
        if kind == "text":
            return isinstance(value, str) and (not self.words or value in self.words)
        if kind == TRUTH or isinstance(value, bool):
            return isinstance(value, bool) and kind == TRUTH
        if not is_finite(value) or (kind != "number" and not isinstance(value, int)):
            return False
        return (
            (self.above is None or value > self.above)
            and (self.minimum is None or value >= self.minimum)
            and (self.maximum is None or value <= self.maximum)
            and (self.multiple_of is None or value % self.multiple_of == 0)
        )


def kind_of(*values: Any) -> str:
    """What values like these are called: ``whole number`` of none."""
    if any(isinstance(value, str) for value in values):
        return "text"
    if any(isinstance(value, bool) for value in values):
        return TRUTH
    return "number" if any(isinstance(value, float) for value in values) else "whole number"


def check_settings(place: str, settings: Mapping[str, Setting], values: Mapping[str, Any]) -> None:
    """Refuse a value that its setting does not allow, and whatever is no setting.

    Args:
        place: What sets them, for the message: a job's name or file.
        settings: Those that there are.
        values: Name -> value, not trusted.

    Raises:
        JobError: Names the setting, its rule and the value.
    """
    for name, value in values.items():
        if name not in settings:
            known = f"known are {', '.join(sorted(settings))}" if settings else "there are none"
            raise JobError(f"{place}: unknown key {shorten(name)}; {known}")
        if not settings[name].allows(value):
            raise JobError(f"{place}: {name} must be {settings[name].rule or 'text'} (got {shorten(value)})")


def read_settings(file: Path, defaults: Mapping[str, Any], has_others: bool = False) -> dict[str, Setting]:
    """A setting for each default that is data, with what a file says of it.

    Args:
        file: ``name -> {"meaning": ..., "unit": ..., "minimum": ...}``, the fields of ``Setting``; it may be missing,
            and then there is no rule but a value's type.
        defaults: Name -> default; text is a setting only where the file says something of it.
        has_others: The file may say something of other settings, too.

    Raises:
        JobError: The file cannot be read, or says something of a setting that there is not.
    """
    said = READER.json_object(file) if file.is_file() else {}
    if odd := [name for name, entry in said.items() if not isinstance(entry, dict) or "default" in entry]:
        READER.refuse(file, f"{odd[0]} must be an object with the fields of a setting, without its default")
    settings = {
        name: READER.typed(Setting, {"default": default, **said.get(name, {})}, f"{file}: {name}")
        for name, default in defaults.items()
        if is_plain(default) or (isinstance(default, str) and name in said)
    }
    if not has_others and (strange := sorted(set(said) - set(settings))):
        raise JobError(f"{file}: there is no setting {shorten(strange[0])}; there are {', '.join(sorted(settings))}")
    return settings


def bundle_settings(bundle: Path, profile: str) -> dict[str, Setting]:
    """What a job may set of a bundle, with the profile's values as defaults.

    Raises:
        ModelError: The bundle has no such profile.
        JobError: Its table of settings cannot be used.
    """
    merged: dict[str, Any] = {}
    for path in config_files(bundle, profile, ["federated"]):
        merged.update(read_config(Path(path)))
    defaults = {name: value for name, value in merged.items() if name not in SET_BY_SITE and "#" not in name}
    return read_settings(bundle / "configs" / SETTINGS_FILE, defaults)
