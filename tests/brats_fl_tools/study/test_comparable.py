"""Figures are put side by side where they stand on the same; what differs is named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.run_folders import ROWS, Row, write_rows, write_run

from brats_fl.errors import RunError
from brats_fl_tools.study.comparable import Basis, differences, read_basis, refuse_to_compare

LISTS = {
    "hospital-1": {"training": "1a", "validation": "1b", "testing": "1c"},
    "hospital-2": {"training": "2a", "validation": "2b", "testing": "2c"},
}


def a_basis(folder: Path, bundle: str = "brats_unet", lists: Any = LISTS, rows: tuple[Row, ...] = ROWS) -> Basis:
    run = write_run(folder, rows, lists=lists)
    (run / "evaluation.json").write_text(json.dumps({"bundle": bundle, "profile": "small"}), encoding="utf-8")
    return read_basis(run)


def test_runs_of_the_same_lists_labels_and_bundle_are_compared(tmp_path: Path):
    assert differences(a_basis(tmp_path / "one"), a_basis(tmp_path / "other")) == []
    refuse_to_compare(a_basis(tmp_path / "three"), a_basis(tmp_path / "four"))


def test_baseline_of_one_hospital_is_compared_on_that_hospitals_cases(tmp_path: Path):
    alone = a_basis(tmp_path / "hospital-2", lists={"hospital-2": LISTS["hospital-2"]}, rows=ROWS[3:])

    assert differences(a_basis(tmp_path / "all"), alone) == []


def test_pooled_run_is_compared_by_the_lists_that_were_pooled(tmp_path: Path):
    (tmp_path / "central").mkdir()
    (tmp_path / "central" / "baseline.json").write_text(json.dumps({"lists": LISTS}), encoding="utf-8")

    pooled = a_basis(tmp_path / "central" / "pooled", lists={"pooled": {"training": "ff"}})

    assert differences(a_basis(tmp_path / "all"), pooled) == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"bundle": "brats_attention_unet"}, "bundle: brats_unet and brats_attention_unet"),
        (
            {"lists": {**LISTS, "hospital-2": {**LISTS["hospital-2"], "training": "ff"}}},
            "splits: hospital-2 has other cases for training",
        ),
        ({"lists": {"north": {}}}, "splits: no hospital is in both (hospital-1, hospital-2 and north)"),
        ({"rows": ROWS[1:]}, "test cases: a1 of hospital-1 is in one only"),
        (
            {"rows": tuple((*row[:1], "north", *row[2:]) for row in ROWS)},
            "test cases: no hospital is in both (hospital-1, hospital-2 and north)",
        ),
    ],
)
def test_what_differs_is_named(change: dict[str, Any], words: str, tmp_path: Path):
    one, other = a_basis(tmp_path / "one"), a_basis(tmp_path / "other", **change)

    assert differences(one, other) == [words]
    with pytest.raises(RunError) as caught:
        refuse_to_compare(one, other)
    assert str(caught.value).startswith(f"one and other are not compared, for they differ in {words}; compare runs of")


def test_label_that_was_drawn_anew_is_told_by_its_volume(tmp_path: Path):
    one, other = a_basis(tmp_path / "one"), tmp_path / "other"
    a_basis(other)
    text = (other / "evaluation.csv").read_text(encoding="utf-8")
    (other / "evaluation.csv").write_text(text.replace("11.0", "9.5", 1), encoding="utf-8")

    assert differences(one, read_basis(other)) == ["labels: a1 of hospital-1 has 11.00 ml and 9.50 ml of TC"]


def test_run_that_was_not_evaluated_is_refused_by_its_name(tmp_path: Path):
    run = write_run(tmp_path / "run")
    write_rows(run, ROWS)

    with pytest.raises(RunError, match=r"run/evaluation\.json: .*that was evaluated"):
        read_basis(run)
