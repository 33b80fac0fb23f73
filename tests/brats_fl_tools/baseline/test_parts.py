"""Who trains in each run of a baseline, on which lists, and whose cases it is tested on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from tests.conftest import TinySites

from brats_fl.cases.datalists import DataList, read_datalist, write_datalist
from brats_fl.constants import SPLITS
from brats_fl.errors import DataListError, JobError
from brats_fl_tools.baseline.parts import POOLED, parts_of, write_pooled

CHOSEN = ("hospital-1", "hospital-2")


def lists_of(sites: Path) -> dict[str, DataList]:
    return {site: read_datalist(sites / site / "datalist.json") for site in CHOSEN}


def test_each_hospital_alone_trains_and_is_tested_on_its_own_list(shared_sites: Path, tmp_path: Path):
    found = parts_of("local", shared_sites, CHOSEN, tmp_path)

    assert [(part.name, part.trained, part.tested, part.lists) for part in found] == [
        (site, (site,), (site,), shared_sites) for site in CHOSEN
    ]


def test_model_without_a_hospital_is_tested_on_all_and_made_for_the_one_left_out(shared_sites: Path, tmp_path: Path):
    found = parts_of("leave-one-out", shared_sites, CHOSEN, tmp_path)

    assert [(part.name, part.trained, part.tested, part.made_for) for part in found] == [
        ("without-hospital-1", ("hospital-2",), CHOSEN, ("hospital-1",)),
        ("without-hospital-2", ("hospital-1",), CHOSEN, ("hospital-2",)),
    ]


def test_one_hospital_alone_cannot_be_left_out(shared_sites: Path, tmp_path: Path):
    with pytest.raises(JobError, match="leaving it out leaves nobody"):
        parts_of("leave-one-out", shared_sites, CHOSEN[:1], tmp_path)


def test_pooled_list_has_every_case_once_in_its_own_split(shared_sites: Path, tmp_path: Path):
    (part,) = parts_of("central", shared_sites, CHOSEN, tmp_path)

    pooled, lists = read_datalist(write_pooled(shared_sites, CHOSEN, part.lists)), lists_of(shared_sites)
    assert (part.trained, part.tested) == ((POOLED,), CHOSEN)
    for split in SPLITS:
        images = [case.image for site in CHOSEN for case in lists[site].split(split)]
        assert [case.image for case in pooled.split(split)] == images


def test_cases_and_patients_of_one_name_at_two_hospitals_stay_two(tiny_sites: TinySites, tmp_path: Path):
    root = tiny_sites({"hospital-1": (3, 2, 1), "hospital-2": (1, 0, 1)})
    lists = lists_of(root)
    first = lists["hospital-1"].training[0]
    named = replace(lists["hospital-2"].training[0], case=first.case, patient=first.patient)
    write_datalist(root / "hospital-2" / "datalist.json", replace(lists["hospital-2"], training=(named,)))

    pooled = read_datalist(write_pooled(root, CHOSEN, tmp_path))

    assert {case.case for case in pooled.training} >= {f"{site}-{first.case}" for site in CHOSEN}
    assert {case.patient for case in pooled.training} >= {f"{site}-{first.patient}" for site in CHOSEN}


@pytest.mark.parametrize("kind", ["central", "leave-one-out"])
def test_test_case_that_another_hospital_trains_on_is_refused(tiny_sites: TinySites, tmp_path: Path, kind):
    root = tiny_sites({"hospital-1": (3, 2, 1), "hospital-2": (1, 0, 1)})
    lists = lists_of(root)
    stolen = replace(lists["hospital-1"].training[0], case="stolen", patient="stolen")
    write_datalist(root / "hospital-2" / "datalist.json", replace(lists["hospital-2"], testing=(stolen,)))

    with pytest.raises(DataListError, match="stolen is a test case, and hospital-1 trains on the same scans"):
        parts_of(kind, root, CHOSEN, tmp_path / "out")
    assert not (tmp_path / "out").exists()
