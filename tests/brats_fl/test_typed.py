"""What comes from a file, a job or a site becomes what it is said to be, or is refused by name."""

from __future__ import annotations

from typing import Any

import pytest

from brats_fl.typed import NotTypedError, typed


def test_list_of_a_fixed_length_has_that_length():
    assert typed(tuple[float, float], [0.25, 1]) == (0.25, 1.0)
    assert typed(tuple[int, str], [1, "a"]) == (1, "a")
    assert typed(tuple[float, ...], [0.25]) == (0.25,)


@pytest.mark.parametrize("value", [[], [0.25], [0.25, 1, 2], [0.25, "1"], {"0": 0.25}, None])
def test_list_of_another_length_or_kind_is_refused(value: Any):
    with pytest.raises(NotTypedError):
        typed(tuple[float, float], value)


def test_refusal_says_how_many_there_must_be():
    with pytest.raises(NotTypedError, match="it must be a list of 2, each entry a number"):
        typed(tuple[float, float], [0.25])
