"""Cases accepted by name: kept beside the list, shown, and valid for the kind of finding that was accepted."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from brats_fl.errors import DataListError
from brats_fl.gate import RULES, Finding, mark_accepted, read_acceptances, refuse_errors
from brats_fl.gate.acceptance import accept, accepted_file, write_acceptances

SHIFTED = Finding("G33-brains-differ", "moved by [0, -8, 0] mm it shares 97%", "case-1", "t2f", "hospital-1")
UNREADABLE = Finding("G02-file-unreadable", "no NIfTI", "case-1", "t2f", "hospital-1")


def accept_shifted(datalist: Path) -> None:
    write_acceptances(datalist, accept([SHIFTED, UNREADABLE], "G33", "case-1", "Dr. A", "2026-02-01"))


def test_accepted_finding_lets_the_site_train_and_is_still_shown(tmp_path: Path):
    accept_shifted(tmp_path / "datalist.json")

    (finding,) = mark_accepted([SHIFTED], read_acceptances(tmp_path / "datalist.json"))

    refuse_errors([finding])
    assert finding.said == "moved by [0, -8, 0] mm it shares 97% (accepted by Dr. A on 2026-02-01)"
    with pytest.raises(DataListError, match="G33-brains-differ"):
        refuse_errors([SHIFTED])


@pytest.mark.parametrize(
    ("change", "is_accepted"),
    [
        ({"found": "moved by [0, -12, 2] mm it shares 99%"}, True),
        ({"found": "mirrored along axis 0 it shares 97%"}, False),
        ({"scan": "t1c"}, False),
        ({"case": "case-2"}, False),
        ({"rule": "G47-label-not-on-image"}, False),
    ],
    ids=["other numbers", "other kind", "other scan", "other case", "other rule"],
)
def test_acceptance_is_of_one_kind_of_finding(tmp_path: Path, change: dict[str, str], is_accepted: bool):
    accept_shifted(tmp_path / "datalist.json")

    (finding,) = mark_accepted([replace(SHIFTED, **change)], read_acceptances(tmp_path / "datalist.json"))

    assert bool(finding.accepted) is is_accepted


def test_what_can_never_be_sound_is_not_accepted_not_even_by_hand(tmp_path: Path):
    with pytest.raises(DataListError, match="G02-file-unreadable cannot be accepted, as no sound case breaks it"):
        accept([UNREADABLE], "G02", "case-1", "Dr. A", "2026-02-01")
    accept_shifted(tmp_path / "datalist.json")
    file = accepted_file(tmp_path / "datalist.json")
    file.write_text(file.read_text().replace("G33-brains-differ", "G02-file-unreadable"))

    with pytest.raises(DataListError, match=r"accepted\.json: G02-file-unreadable cannot be accepted"):
        read_acceptances(tmp_path / "datalist.json")


def test_rules_by_looks_alone_can_be_accepted():
    assert [name[:3] for name, rule in RULES.items() if rule.acceptable] == [
        *("G08", "G09", "G23", "G24", "G26", "G32", "G33", "G43", "G45", "G46", "G47")
    ]


@pytest.mark.parametrize(
    ("rule", "case", "by", "message"),
    [
        ("G99", "case-1", "A", "there is no such rule"),
        ("G33", "case-7", "A", "the gate found nothing by this rule"),
        ("G33", "case-1", " ", "say who accepts it"),
    ],
)
def test_acceptance_names_a_rule_a_case_and_a_person(rule: str, case: str, by: str, message: str):
    with pytest.raises(DataListError, match=message):
        accept([SHIFTED], rule, case, by, "2026-02-01")


def test_damaged_file_is_named(tmp_path: Path):
    (tmp_path / "accepted.json").write_text("[")

    with pytest.raises(DataListError, match=r"accepted\.json: cannot be read"):
        read_acceptances(tmp_path / "datalist.json")
