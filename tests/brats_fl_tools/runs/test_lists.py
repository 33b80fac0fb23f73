"""What a simulated run keeps of the lists it was trained on, and what an evaluation finds out from it."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from brats_fl.cases.datalists import DATALIST_FILE, Case, DataList, read_datalist, write_datalist
from brats_fl.errors import DataListError
from brats_fl_tools.data.synthetic import is_synthetic
from brats_fl_tools.partition.manifest import hash_list
from brats_fl_tools.runs.lists import describe_lists, find_seen, take_seen, write_seen
from brats_fl_tools.sample import write_sample


@pytest.fixture
def sites(tmp_path: Path) -> Path:
    """hospital-1 with training case a, validation case b and testing case c; files of a few bytes each."""
    folder = tmp_path / "sites"
    write_list(folder, "hospital-1", training="a", validation="b", testing="c")
    return folder


def write_list(sites: Path, site: str, **splits: str) -> None:
    """A data list with one case a split, whose scans hold the case's name."""
    cases = {}
    for split, name in splits.items():
        paths = [sites / site / f"{name}_{modality}.nii" for modality in ("t1c", "t1n", "t2w", "t2f", "seg")]
        paths[0].parent.mkdir(parents=True, exist_ok=True)
        for path in paths:
            path.write_text(path.name)
        cases[split] = (Case(name, f"patient-{name}", tuple(map(str, paths[:4])), str(paths[4])),)
    write_datalist(sites / site / DATALIST_FILE, DataList(site=site, **cases))


def trained(run: Path, sites: Path, *names: str) -> Path:
    """Best model of a run that trained at these sites."""
    run.mkdir()
    write_seen(run, sites, names)
    (run / "global_model.pt").write_text("weights")
    return run / "global_model.pt"


def test_cases_of_training_and_validation_were_seen_and_test_cases_were_not(sites: Path, tmp_path: Path) -> None:
    model = trained(tmp_path / "run", sites, "hospital-1")

    assert find_seen(model, sites, ["hospital-1"], "training") == ["hospital-1/a"]
    assert find_seen(model, sites, ["hospital-1"], "validation") == ["hospital-1/b"]
    assert find_seen(model, sites, ["hospital-1"], "testing") == []


def test_scans_that_were_trained_on_are_known_under_another_name_at_another_hospital(
    sites: Path, tmp_path: Path
) -> None:
    model = trained(tmp_path / "run", sites, "hospital-1")
    write_list(sites, "hospital-2", testing="z")
    for modality in ("t1c", "t1n", "t2w", "t2f"):
        shutil.copyfile(sites / "hospital-1" / f"a_{modality}.nii", sites / "hospital-2" / f"z_{modality}.nii")

    assert find_seen(model, sites, ["hospital-2"], "testing") == ["hospital-2/z"]


def test_patient_that_was_trained_on_is_known_by_other_scans(sites: Path, tmp_path: Path) -> None:
    model = trained(tmp_path / "run", sites, "hospital-1")
    path = sites / "hospital-1" / DATALIST_FILE
    later = replace(read_datalist(path).testing[0], patient="patient-a")
    write_datalist(path, DataList(site="hospital-1", testing=(later,)))

    assert find_seen(model, sites, ["hospital-1"], "testing") == ["hospital-1/c"]


def test_same_names_at_another_hospital_are_other_cases(sites: Path, tmp_path: Path) -> None:
    model = trained(tmp_path / "run", sites, "hospital-1")
    write_list(sites, "hospital-2", testing="a")
    (sites / "hospital-2" / "a_t1c.nii").write_text("another scan")

    assert find_seen(model, sites, ["hospital-2"], "testing") == []


def test_model_that_no_run_tells_of_is_not_checked(sites: Path, tmp_path: Path) -> None:
    model = trained(tmp_path / "run", sites, "hospital-1")
    for other in (tmp_path / "global_model.pt", model.with_name("of_another_run.pt")):
        shutil.copyfile(model, other)
        assert find_seen(other, sites, ["hospital-1"], "testing") is None


def test_run_that_goes_on_with_other_lists_has_seen_the_cases_of_both(sites: Path, tmp_path: Path) -> None:
    model = trained(tmp_path / "run", sites, "hospital-1")
    write_list(sites, "hospital-1", training="c", testing="a")

    write_seen(model.parent, sites, ["hospital-1"])

    assert find_seen(model, sites, ["hospital-1"], "training") == ["hospital-1/c"]
    assert find_seen(model, sites, ["hospital-1"], "testing") == ["hospital-1/a"]


def test_neither_names_nor_hashes_that_could_be_looked_up_are_kept(sites: Path, tmp_path: Path) -> None:
    first, second = (
        json.loads((trained(tmp_path / name, sites, "hospital-1").parent / "seen_cases.json").read_text())
        for name in ("one", "two")
    )

    assert len(first["cases"]) == len(second["cases"]) == 4  # scans and patient of two cases
    assert not set(first["cases"]) & set(second["cases"])  # each run has a key of its own
    assert "patient" not in json.dumps(first)


def test_run_that_starts_from_another_s_model_has_seen_the_cases_of_both(sites: Path, tmp_path: Path) -> None:
    write_list(sites, "hospital-2", training="d")
    start = trained(tmp_path / "first", sites, "hospital-1")
    (tmp_path / "second").mkdir()

    assert take_seen(start, tmp_path / "second")
    write_seen(tmp_path / "second", sites, ["hospital-2"])

    model = tmp_path / "second" / "final_model.pt"
    assert find_seen(model, sites, ["hospital-1", "hospital-2"], "training") == ["hospital-1/a", "hospital-2/d"]
    assert not take_seen(start.with_name("model-of-somebody.pt"), tmp_path / "second")


def test_damaged_record_of_what_was_seen_is_named(sites: Path, tmp_path: Path) -> None:
    model = trained(tmp_path / "run", sites, "hospital-1")
    model.with_name("seen_cases.json").write_text("{")

    with pytest.raises(DataListError, match=r"seen_cases.json: cannot be read as JSON .*; remove it"):
        find_seen(model, sites, ["hospital-1"], "testing")


def test_run_knows_its_lists_by_their_hashes_and_who_was_left_out(sites: Path) -> None:
    write_list(sites, "hospital-2", training="d")
    before = describe_lists(sites, ["hospital-1"])
    write_list(sites, "hospital-1", training="a", validation="b", testing="e")

    after = describe_lists(sites, ["hospital-1"])

    assert (before["left_out"], before["synthetic"]) == (["hospital-2"], [])
    same = {
        split: before["lists"]["hospital-1"][split] == after["lists"]["hospital-1"][split]
        for split in ("training", "validation", "testing")
    }
    assert same == {"training": True, "validation": True, "testing": False}


def test_study_is_that_of_the_partition_as_long_as_nobody_edits_a_list(sites: Path) -> None:
    digest = hash_list(read_datalist(sites / "hospital-1" / DATALIST_FILE))
    record = {
        "study_sha256": "5717",
        "sites": {"hospital-1": {"shift": 0.0, "sha256": digest}, "hospital-9": {"left_out": True}},
    }
    (sites / "partition.json").write_text(json.dumps(record))

    dealt = describe_lists(sites, ["hospital-1"])
    write_list(sites, "hospital-1", training="a", testing="c")
    edited = describe_lists(sites, ["hospital-1"])

    assert (dealt["study_sha256"], dealt["left_out"]) == ("5717", ["hospital-9"])
    assert "study_sha256" not in edited


def test_sample_is_known_as_synthetic_wherever_its_files_are_put(tmp_path: Path) -> None:
    write_sample(tmp_path / "sample", 3, seed=0, full_size=False, progress=lambda line: None)
    case = read_datalist(tmp_path / "sample" / "hospital-1" / DATALIST_FILE).training[0]
    moved = shutil.copyfile(case.image[0], tmp_path / "scan.nii.gz")

    assert describe_lists(tmp_path / "sample", ["hospital-1"])["synthetic"] == ["hospital-1"]
    assert is_synthetic(replace(case, image=(str(moved),) * 4))
    assert not is_synthetic(replace(case, image=(str(tmp_path / "none.nii"),) * 4))
