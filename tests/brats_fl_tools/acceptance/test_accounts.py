"""What a study cost: added up from what the hospitals said of each round."""

from __future__ import annotations

import json
from pathlib import Path

from tests.study_folders import write_study_folder

from brats_fl_tools.acceptance.accounts import Cost, costs, read_folders
from brats_fl_tools.study.record import read_record


def federated_cost(out: Path) -> Cost:
    runs = [run for run in read_record(out).runs if run.kind == "federated"]
    return costs(runs, {run.name: read_folders(out, run) for run in runs})[0]


def test_processor_time_of_all_hospitals_and_rounds_is_added_up_or_unknown(tmp_path: Path):
    out = write_study_folder(tmp_path / "study")
    assert federated_cost(out).cpu_seconds is None  # as of a version that did not tell

    told = 0
    for file in sorted((out / "runs").rglob("rounds.jsonl")):
        lines = [json.loads(line) for line in file.read_text().splitlines()]
        told += sum(line["phase"] == "train" for line in lines)
        file.write_text("".join(json.dumps(line | {"cpu_seconds": 2.5}) + "\n" for line in lines))

    assert told > 1
    assert federated_cost(out).cpu_seconds == 2.5 * told
