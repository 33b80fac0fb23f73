"""Paths against patterns: what fits, what the placeholders are, and how much is tried."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from brats_fl_tools.data.path_patterns import match_path, parts_of


@pytest.mark.parametrize(
    ("pattern", "path", "names"),
    [
        ("{patient}/t1.nii", "p1/t1.nii", {"patient": "p1"}),
        ("{patient}/{patient}_*.nii", "p1/p1_t1.nii", {"patient": "p1"}),
        ("{patient}/{patient}_*.nii", "p1/p2_t1.nii", None),
        ("{patient}_{time_point}.nii", "a_b_c.nii", {"patient": "a_b", "time_point": "c"}),  # the first takes most
        ("*{case}.nii", "abc.nii", {"case": "c"}),
        ("{case}.nii", ".nii", None),
        ("{case}/*.nii", "a/b/c.nii", None),
        ("**{case}***.nii", "a.nii", {"case": "a"}),
    ],
)
def test_placeholders_stand_for_one_name_and_stars_for_anything(pattern, path, names):
    assert match_path(parts_of(pattern), path) == names


letters = st.text(alphabet="ab/", max_size=8)
patterns = st.lists(st.sampled_from(("a", "b", "/", "*", "{case}", "{patient}")), min_size=1, max_size=7).map("".join)


def as_expression(pattern: str) -> str:
    """The same by a regular expression, which may take for ever."""
    text, seen = "", set()
    for part in parts_of(pattern):
        name = part[1:-1]
        if part == "*":
            text += "[^/]*"
        elif part[:1] != "{":
            text += re.escape(part)
        else:
            text += f"(?P={name})" if name in seen else f"(?P<{name}>[^/]+)"
            seen.add(name)
    return text


@settings(max_examples=500, deadline=None)
@given(pattern=patterns, path=letters)
def test_every_short_path_fits_as_by_a_regular_expression(pattern: str, path: str):
    expected = re.fullmatch(as_expression(pattern), path)

    assert match_path(parts_of(pattern), path) == (expected and expected.groupdict())


class Counted(str):
    """A path that counts how often something is looked for in it."""

    looks = 0

    def startswith(self, *arguments: object) -> bool:
        type(self).looks += 1
        return super().startswith(*arguments)  # type: ignore[arg-type]

    def find(self, *arguments: object) -> int:
        type(self).looks += 1
        return super().find(*arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize("stars", [7, 14, 28])
def test_pattern_with_many_stars_is_done_after_as_many_looks_as_it_is_long(stars: int):
    parts, path = parts_of("{case}" + "*a" * stars + "*b.nii"), Counted("a" * 60 + ".nii")
    Counted.looks = 0

    assert match_path(parts, path) is None
    # For each of 60 ends of the case at most one look a part and a character.
    assert Counted.looks <= 60 * len(parts) * len(path)
