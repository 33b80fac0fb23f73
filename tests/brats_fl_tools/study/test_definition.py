"""What is wrong with a study file is said with the file, the key, the rule and the mend."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import pytest
from tests.study_files import ONE_JOB, TWO_JOBS, write_study

from brats_fl.errors import RunError
from brats_fl_tools.repository import ROOT
from brats_fl_tools.study.definition import Study, read_study
from brats_fl_tools.study.record import RunRecord
from brats_fl_tools.study.thresholds import Thresholds


def test_study_file_is_read_with_its_paths_seen_from_its_folder(tmp_path: Path):
    study = read_study(write_study(tmp_path))

    assert study.folders == {"sites": tmp_path / "sites"}
    assert study.values("scaffold") == {"steps_per_epoch": 10, "learning_rate": 0.05}
    assert study.values("fedavg") == {"steps_per_epoch": 10}
    assert (study.seeds, study.folds, study.thresholds) == ((0, 7), None, None)


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        ("rounds = 3", "round = 3", "unknown key 'round'; there are name, profile, rounds"),
        ("rounds = 3", "", "has no 'rounds'"),
        ("rounds = 3", 'rounds = "3"', "rounds must be a whole number (got '3')"),
        ("rounds = 3", f"rounds = {'9' * 26}", "a whole number must have at most 19 digits"),
        ("rounds = 3", "rounds = 0", "rounds must be 1 or more (got 0)"),
        ("rounds = 3", "rounds = 2026-01-01", "holds a date or a time; write it as text"),
        ("rounds = 3", "rounds = 3\nrounds = 4", "cannot be read as TOML"),
        ("seeds = [0, 7]", "seeds = []", "seeds must not be empty"),
        ("seeds = [0, 7]", "seeds = [0, 0]", "seeds must have each entry once"),
        ("seeds = [0, 7]", "seeds = [-1]", "seeds must be 0 or more (got -1)"),
        ("seeds = [0, 7]", "folds = 1", "folds must be 2 or more (got 1)"),
        ('sites = "sites"', "", "sites or partitions must be given, and not both"),
        ('sites = "sites"', 'sites = "sites"\npartitions = { a = "a" }', "sites or partitions must be given"),
        ('"leave-one-out"', '"alone"', "baselines[2] must be one of local, central, leave-one-out (got 'alone')"),
        ("steps_per_epoch = 10", "seed = 3", "set: seed is not set here but said once, as seeds"),
        ("learning_rate = 0.05", "num_rounds = 3", "jobs.scaffold.set: num_rounds is not set here but said once"),
        ("steps_per_epoch = 10", "steps_per_epoch = { a = 1 }", "set.steps_per_epoch must be a number"),
        ("[jobs.scaffold]", "[jobs.FedAvg]", "jobs: FedAvg and fedavg differ in capitals only"),
        ("[jobs.scaffold]", '[jobs."a b"]', "jobs: a name must be 1 to 40 letters"),
        ("[jobs.scaffold]", "[jobs.fedavg.own]", "unknown key 'jobs.fedavg.own'; there are job, set"),
    ],
)
def test_file_that_is_wrong_is_refused_in_words(before: str, after: str, words: str, tmp_path: Path):
    path = write_study(tmp_path, TWO_JOBS.replace(before, after))

    with pytest.raises(RunError) as caught:
        read_study(path)

    assert str(caught.value).startswith(f"{path}: ")
    assert words in str(caught.value)
    assert "docs/study.md has a table of its keys" in str(caught.value)


def test_study_without_a_job_and_one_that_is_not_there_are_refused(tmp_path: Path):
    path = write_study(tmp_path, ONE_JOB.replace("[jobs.brats_unet_fedavg]", "[jobs]"))

    with pytest.raises(RunError, match="jobs must name at least one job"):
        read_study(path)
    with pytest.raises(RunError, match=r"other\.toml: no such study file"):
        read_study(tmp_path / "other.toml")


def test_page_has_a_row_for_every_key_and_names_every_fact_of_a_run():
    page = (ROOT / "docs" / "study.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE)
    record = next(line for line in page.splitlines() if line.startswith("| `study.json`"))

    assert sorted(rows) == sorted(field.name for kind in (Study, Thresholds) for field in fields(kind))
    assert {field.name for field in fields(RunRecord)} <= set(re.findall(r"`(\w+)`", record))
