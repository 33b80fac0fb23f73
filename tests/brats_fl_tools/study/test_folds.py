"""Each labelled case is tested in one fold, by a model that saw nothing of its patient."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from tests.study_files import a_case, write_sites

from brats_fl.cases.datalists import DATALIST_FILE, DataList, read_datalist
from brats_fl.constants import SPLITS
from brats_fl.errors import DataListError
from brats_fl.gate.acceptance import accepted_file
from brats_fl_tools.study.folds import deal_folds, fold_lists, read_lists, write_lists

PLACE = Path("/data/datalist.json")
# Six patients, of whom p0 has two time points; a third of those that are not tested validates.
LIST = DataList(
    "hospital-1",
    training=(a_case("a", "p0"), a_case("b", "p0"), a_case("c", "p1")),
    validation=(a_case("d", "p2"),),
    testing=(a_case("e", "p3"), a_case("f", "p4"), a_case("g", "p5")),
)


def test_every_case_is_tested_once_and_patients_stay_whole():
    folds = deal_folds(LIST, 3, PLACE)

    assert Counter(case.case for fold in folds for case in fold.testing) == Counter("abcdefg")
    for fold in folds:
        patients = [{case.patient for case in fold.split(split)} for split in SPLITS]
        assert set().union(*patients) == {f"p{number}" for number in range(6)}
        assert sum(map(len, patients)) == 6  # nobody in two splits
        assert [len(found) for found in patients] == [3, 1, 2]  # 6 / 3 tested; a third of 4 validates, rounded


def test_folds_do_not_depend_on_the_split_that_a_case_was_in():
    moved = replace(LIST, training=LIST.training[:2], testing=(*LIST.testing, LIST.training[2]))

    tested = [[{case.case for case in fold.testing} for fold in deal_folds(one, 3, PLACE)] for one in (LIST, moved)]

    assert tested[0] == tested[1]


def test_case_without_a_label_is_left_out_and_too_few_patients_are_refused():
    unlabelled = replace(a_case("h"), label=None)
    folds = deal_folds(replace(LIST, testing=(*LIST.testing, unlabelled)), 2, PLACE)

    assert all(case.case != "h" for fold in folds for split in SPLITS for case in fold.split(split))
    with pytest.raises(DataListError, match=r"datalist.json: has 6 patients with a label, too few for 7 folds"):
        deal_folds(LIST, 7, PLACE)


def test_hospital_that_trains_on_nothing_keeps_its_list():
    only_tests = DataList("hospital-2", testing=(a_case("x"),))

    assert deal_folds(only_tests, 3, PLACE) == [only_tests] * 3


def test_lists_of_a_fold_are_written_with_what_was_accepted_of_them(tmp_path: Path):
    sites = write_sites(tmp_path / "sites")
    accepted_file(sites / "hospital-1" / DATALIST_FILE).write_text("{}", encoding="utf-8")

    first, _ = fold_lists(sites, read_lists(sites), 2)
    write_lists(tmp_path / "fold-1", first, sites)

    assert read_datalist(tmp_path / "fold-1" / "hospital-2" / DATALIST_FILE) == first["hospital-2"]
    assert accepted_file(tmp_path / "fold-1" / "hospital-1" / DATALIST_FILE).read_text(encoding="utf-8") == "{}"
