"""Findings: what a rule says of a place, and when a list is refused."""

from __future__ import annotations

import re

import pytest

from brats_fl.errors import DataListError
from brats_fl.gate import RULES, Finding, as_record, errors_of, refuse_errors

MISSING = Finding("G01-file-missing", "/d/a.nii is not there", "case-1", "t2w", "hospital-1")
SPACING = Finding("G08-spacing-not-1mm", "4 of 4 cases have voxels of 2 x 2 x 2 mm", site="hospital-1")


def test_every_rule_has_an_id_of_its_own_and_says_what_must_hold_and_how_to_mend_it():
    for name, rule in RULES.items():
        assert name == rule.id
        assert re.fullmatch(r"G\d\d-[a-z0-9-]+", name)
        assert rule.says
        assert rule.mend
    assert len({name[:3] for name in RULES}) == len(RULES) == 29


def test_finding_reads_as_place_rule_what_was_found_and_mend():
    assert str(MISSING) == (
        "hospital-1 case-1 t2w: G01-file-missing: /d/a.nii is not there; "
        "restore the file, or take the case off the list"
    )
    assert as_record(MISSING) == {
        "rule": "G01-file-missing",
        "severity": "error",
        "site": "hospital-1",
        "case": "case-1",
        "scan": "t2w",
        "found": "/d/a.nii is not there",
        "says": "every file of a case is there",
        "mend": "restore the file, or take the case off the list",
        "doubtful": False,
        "accepted": "",
    }


def test_doubtful_or_accepted_finding_is_a_warning_and_says_who_accepted_it():
    doubtful = Finding("G33-brains-differ", "its brain shares 66%", "case-1", "t2f", doubtful=True)
    accepted = Finding("G33-brains-differ", "its brain shares 66%", "case-1", "t2f", accepted="accepted by A on D")

    assert (doubtful.severity, accepted.severity) == ("warning", "warning")
    assert "its brain shares 66% (accepted by A on D); register" in str(accepted)


def test_warnings_do_not_refuse_a_list():
    assert errors_of([SPACING, MISSING]) == [MISSING]
    refuse_errors([SPACING])


def test_errors_refuse_a_list_with_a_line_each():
    with pytest.raises(DataListError) as caught:
        refuse_errors([SPACING, MISSING, MISSING])

    assert str(caught.value).splitlines() == [
        "the data gate found 2 errors, nothing is trained:",
        str(MISSING),
        str(MISSING),
    ]


def test_many_errors_are_cut_to_twenty_lines():
    with pytest.raises(DataListError, match=r"and 5 more; `brats-fl check` lists them all$"):
        refuse_errors([MISSING] * 25)
