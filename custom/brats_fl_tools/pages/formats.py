"""Numbers as a reader wants them, a dash where there is none, and names in the order that a reader expects."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

NONE = "\N{EN DASH}"
MINUS = "\N{MINUS SIGN}"

REGION_NAMES = {
    "tc": "tumour core",
    "wt": "whole tumour",
    "et": "enhancing tumour",
    "mean": "mean of the regions",
}


def format_dice(value: float | None) -> str:
    """Dice with three decimals."""
    return NONE if value is None else f"{value:.3f}"


def format_mm(value: float | None) -> str:
    """Distance in mm with one decimal."""
    return NONE if value is None else f"{value:.1f}"


def format_metric(value: float | None, metric: str) -> str:
    """Dice or HD95, each with its own number of decimals."""
    return format_dice(value) if metric == "dice" else format_mm(value)


def format_difference(value: float, metric: str) -> str:
    """Signed difference; one that rounds to nothing has no sign."""
    text = format_metric(abs(value), metric)
    if not float(text):
        return text
    return f"{'+' if value > 0 else MINUS}{text}"


def format_ml(value: float | None) -> str:
    """Volume in ml with one decimal."""
    return NONE if value is None else f"{value:.1f}"


def format_duration(seconds: float | None) -> str:
    """Duration in its two largest units."""
    if seconds is None:
        return NONE
    if seconds < 60:
        return f"{seconds:.3g} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes} min"
    return f"{hours // 24} d {hours % 24} h"


def format_bytes(value: float) -> str:
    """Bytes in MB with one decimal, in kB below one, in GB from a thousand on; powers of ten."""
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if value >= size:
            return f"{value / size:.1f} {unit}"
    return f"{value:.0f} B"


def format_count(value: int, word: str, plural: str = "") -> str:
    """Number with its noun: 1 case, 2 cases; ``plural`` where that is more than an s."""
    return f"{value:,} {word if value == 1 else plural or word + 's'}"


def list_words(words: Sequence[str]) -> str:
    """Words as a sentence has them: a, b and c."""
    return " and ".join([", ".join(words[:-1])] * (len(words) > 1) + list(words[-1:]))


def format_ranges(numbers: Iterable[int]) -> str:
    """Whole numbers with runs drawn together: 1, 3 to 5."""
    runs: list[list[int]] = []
    for number in sorted(set(numbers)):
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ", ".join(
        str(first) if first == last else f"{first}, {last}" if last == first + 1 else f"{first} to {last}"
        for first, last in runs
    )


def natural_key(name: str) -> tuple[tuple[int, int, str], ...]:
    """Key that sorts ``hospital-10`` after ``hospital-9``."""
    parts: list[tuple[int, int, str]] = []
    word = ""
    for character in name + "\0":
        if word and character.isdecimal() != word[-1].isdecimal():
            digits = word.lstrip("0")  # the longer number is the larger: Python makes none of thousands of digits
            parts.append((0, len(digits), digits) if word.isdecimal() else (1, 0, word))
            word = ""
        word += character
    return tuple(parts)
