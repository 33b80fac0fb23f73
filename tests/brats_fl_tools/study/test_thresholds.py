"""Thresholds are few, named and in their ranges: one that is misspelt would never be asked."""

from __future__ import annotations

from pathlib import Path

import pytest

from brats_fl.errors import RunError
from brats_fl_tools.study.thresholds import Thresholds, read_thresholds


def test_thresholds_that_are_not_named_are_not_asked(tmp_path: Path):
    (tmp_path / "t.toml").write_text("least_mean_dice = 0.6\nabove_local = true\n", encoding="utf-8")

    assert read_thresholds(tmp_path / "t.toml") == Thresholds(least_mean_dice=0.6, above_local=True)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("least_dice = 0.6", "unknown key 'least_dice'; there are least_mean_dice"),
        ("least_mean_dice = 60", "least_mean_dice must be from 0 to 1 (got 60.0)"),
        ("most_hd95_mm = -1", "most_hd95_mm must be 0 or more (got -1.0)"),
        ("above_local = 1", "above_local must be true or false (got 1)"),
        ("", "it asks for nothing; set at least one of"),
    ],
)
def test_thresholds_that_nobody_could_ask_are_refused(text: str, words: str, tmp_path: Path):
    (tmp_path / "t.toml").write_text(text, encoding="utf-8")

    with pytest.raises(RunError) as caught:
        read_thresholds(tmp_path / "t.toml")

    assert words in str(caught.value)
    assert str(tmp_path / "t.toml") in str(caught.value)
