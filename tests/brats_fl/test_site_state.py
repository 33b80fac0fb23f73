"""What a site keeps for itself in a study."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from brats_fl.errors import JobError, ModelError
from brats_fl.site_state import find_state_dir, read_own, write_own


def own(value: float) -> dict[str, Any]:
    return {"control": {"w": np.full(2, value, np.float32)}}


def value_of(folder: Path, round_index: int) -> float | None:
    kept = read_own(folder, round_index)
    return float(kept["control"]["w"][0]) if kept else None


def test_state_lies_in_the_kit_by_the_study_and_elsewhere_where_the_variable_says(tmp_path):
    study = "0123456789abcdef" * 4

    assert find_state_dir("a", study, tmp_path, {}) == tmp_path / "state" / "0123456789abcdef"
    assert find_state_dir("a", study, tmp_path, {"BRATS_FL_STATE": "/x"}) == Path("/x/a/0123456789abcdef")


@pytest.mark.parametrize("study", ["../../../other", "/etc", "study", "0123456789ABCDEF"])
def test_job_that_names_a_path_for_a_study_finds_no_folder(study: str, tmp_path):
    with pytest.raises(JobError, match="must be a hash"):
        find_state_dir("a", study, tmp_path, {})


def test_round_reads_what_the_last_round_before_it_left(tmp_path):
    write_own(tmp_path, 0, own(1.0))
    write_own(tmp_path, 1, own(2.0))

    assert value_of(tmp_path, 2) == 2.0
    assert value_of(tmp_path, 1) == 1.0, "a server that died may go on one round earlier"
    assert value_of(tmp_path, 9) == 2.0, "a site that was away goes on with what it had"


def test_first_round_of_a_study_begins_anew(tmp_path):
    write_own(tmp_path, 3, own(1.0))

    assert read_own(tmp_path, 0) == {}


def test_state_of_later_rounds_and_of_long_ago_goes_when_a_round_is_written(tmp_path):
    for round_index in (0, 1, 2, 3):
        write_own(tmp_path, round_index, own(float(round_index)))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["round-0002.pt", "round-0003.pt"]

    write_own(tmp_path, 1, own(9.0))

    assert sorted(path.name for path in tmp_path.iterdir()) == ["round-0001.pt"]


def test_damaged_state_is_named(tmp_path):
    (tmp_path / "round-0004.pt").write_bytes(b"nonsense")

    with pytest.raises(ModelError, match=r"round-0004\.pt: is damaged .*; remove it, and the site begins anew"):
        read_own(tmp_path, 5)
