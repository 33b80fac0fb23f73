"""Who takes part: the job's own list, or those who are there; and nobody is left out without a word."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import pytest
import typer

from brats_fl.cases.datalists import DATALIST_FILE, Case, DataList, write_datalist
from brats_fl.constants import SITES
from brats_fl.errors import DataListError, JobError, SiteNameError
from brats_fl_tools.jobs import participants
from brats_fl_tools.jobs.participants import Asked, Present, check_sites, choose_sites, in_federation, in_folder
from brats_fl_tools.jobs.source import JobSource

EVERYBODY = Asked()


def job(*sites: str) -> JobSource:
    return JobSource(Path("/jobs/unet"), {"deploy_map": {"app_server": ["server"], "app_client": list(sites)}}, {})


DEFAULT, OWN = job(*SITES), job("north", "south")


def hospitals(count: int) -> tuple[str, ...]:
    return tuple(f"hospital-{number}" for number in range(1, count + 1))


@pytest.fixture(autouse=True)
def no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO())


def write_sites(root: Path, **training: int) -> Path:
    """Data lists of scans that are not there."""
    for site, count in training.items():
        cases = tuple(
            Case(f"{site}-{number}", f"{site}-{number}", ("a", "b", "c", "d"), "e") for number in range(count)
        )
        write_datalist(root / site.replace("_", "-") / DATALIST_FILE, DataList(site, training=cases))
    return root


@pytest.mark.parametrize("count", [1, 3, 7])
def test_hospitals_of_the_folder_take_the_place_of_the_jobs_five(count: int, capsys: pytest.CaptureFixture[str]):
    assert choose_sites(DEFAULT, EVERYBODY, Present("sites", hospitals(count))) == hospitals(count)

    said = capsys.readouterr().out
    take = "1 hospital of sites takes" if count == 1 else f"{count} hospitals of sites take"
    assert said.startswith(f"{take} part in place of the job's five: hospital-1")
    missing = ", ".join(SITES[count:])
    assert said.endswith(f"; not there: {missing}\n" if missing else "hospital-7\n")


def test_five_default_hospitals_need_no_line(capsys: pytest.CaptureFixture[str]):
    assert choose_sites(DEFAULT, EVERYBODY, Present("sites", SITES)) == SITES
    assert choose_sites(DEFAULT, Asked(leave_out=("hospital-2",)), Present("sites", SITES)) == (SITES[0], *SITES[2:])
    assert capsys.readouterr().out == ""


def test_hospitals_with_names_of_their_own_take_part_and_the_default_ones_are_not_missed(capsys):
    assert choose_sites(DEFAULT, EVERYBODY, Present("sites", ("north", "south"))) == ("north", "south")
    assert capsys.readouterr().out == "2 hospitals of sites take part in place of the job's five: north, south\n"


def test_job_with_a_list_of_its_own_keeps_it_and_does_not_leave_another_out_unasked():
    three = Present("sites", ("east", "north", "south"))

    assert choose_sites(OWN, EVERYBODY, Present("sites", ("north", "south"))) == ("north", "south")
    with pytest.raises(
        JobError, match=r"sites has east \(not in the list of unet\), which would not take part; add --leave-out east"
    ):
        choose_sites(OWN, EVERYBODY, three)
    assert choose_sites(OWN, Asked(leave_out=("east",)), three) == ("north", "south")


def test_hospital_that_cannot_train_is_not_left_out_unasked(tmp_path: Path):
    present = in_folder(write_sites(tmp_path, north=1, south=0), trains=True)

    assert (present.names, present.unfit) == (("north",), {"south": "no training case"})
    with pytest.raises(JobError, match=r"has south \(no training case\), which would not take part; add --leave-out"):
        choose_sites(DEFAULT, EVERYBODY, present)
    assert choose_sites(DEFAULT, Asked(leave_out=("south",)), present) == ("north",)
    assert in_folder(tmp_path, trains=False).names == ("north", "south")


@pytest.mark.parametrize("answer", [True, False])
def test_on_a_terminal_it_is_asked(answer: bool, monkeypatch: pytest.MonkeyPatch):
    asked: list[str] = []
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(typer, "confirm", lambda text: asked.append(text) or answer)
    present = Present("sites", ("north",), {"south": "no training case"})

    if answer:
        assert choose_sites(DEFAULT, EVERYBODY, present) == ("north",)
    else:
        with pytest.raises(JobError, match="nothing was started; add --leave-out south"):
            choose_sites(DEFAULT, EVERYBODY, present)
    assert asked == ["sites has south (no training case), which would not take part; go on without?"]


def test_sites_only_takes_the_place_of_every_list_in_the_order_given():
    present = Present("sites", hospitals(7))

    assert choose_sites(DEFAULT, Asked(only=("hospital-7", "hospital-2")), present) == ("hospital-7", "hospital-2")
    assert choose_sites(OWN, Asked(only=("hospital-7",)), present) == ("hospital-7",)
    with pytest.raises(JobError, match=r"--sites-only hospital-8: there is no such hospital; there are .*-7$"):
        choose_sites(DEFAULT, Asked(only=("hospital-8",)), present)


def test_without_a_folder_a_job_is_for_its_own_list_or_for_those_that_are_named():
    assert choose_sites(DEFAULT, EVERYBODY, None) == SITES
    assert choose_sites(DEFAULT, Asked(only=("north", "south")), None) == ("north", "south")
    with pytest.raises(SiteNameError, match=r"FLARE does not bear the name 'St\. Mary'"):
        choose_sites(DEFAULT, Asked(only=("St. Mary",)), None)


def test_hospital_that_is_nowhere_cannot_be_left_out_and_one_that_another_fold_left_out_can():
    four = Present("sites", hospitals(4))

    assert choose_sites(DEFAULT, Asked(leave_out=("hospital-5",)), four) == hospitals(4)
    with pytest.raises(JobError, match=r"--leave-out hospital-9: there is no such hospital; there are .*-5$"):
        choose_sites(DEFAULT, Asked(leave_out=("hospital-9",)), four)
    with pytest.raises(JobError, match="unet: no hospital is left to take part"):
        choose_sites(DEFAULT, Asked(leave_out=hospitals(4)), four)


def test_name_that_flare_does_not_bear_is_refused_where_it_stands():
    with pytest.raises(SiteNameError, match="sites: FLARE does not bear the name 'Klinikum-Köln'"):
        choose_sites(DEFAULT, EVERYBODY, Present("sites", ("Klinikum-Köln", "north")))


def test_subfolder_without_a_data_list_is_no_hospital(tmp_path: Path):
    (write_sites(tmp_path, north=1) / "left-out").mkdir()

    assert in_folder(tmp_path, trains=True).everybody == ("north",)


def test_folder_without_data_lists_and_no_folder_are_told_apart(tmp_path: Path):
    with pytest.raises(DataListError, match=r"no SITE/datalist.json there; make data lists with `brats-fl partition`"):
        in_folder(tmp_path, trains=True)
    with pytest.raises(DataListError, match="nothing: no such folder"):
        in_folder(tmp_path / "nothing", trains=True)


def test_data_lists_of_all_that_take_part_are_checked_and_every_wrong_one_is_named(tmp_path: Path):
    write_sites(tmp_path, north=2, south=0)

    assert check_sites(tmp_path, ["north"], trains=True) == {"north": {"training": 2, "validation": 0, "testing": 0}}
    with pytest.raises(DataListError) as error:
        check_sites(tmp_path, ["north", "south", "east"], trains=True)
    assert "south/datalist.json: training is empty; add a case, or --leave-out south" in str(error.value)
    assert "east/datalist.json: no such data list; make one with `brats-fl partition`, or --leave-out east" in str(
        error.value
    )


def test_hospital_that_is_away_for_the_moment_does_not_change_the_study(capsys: pytest.CaptureFixture[str]):
    present = in_federation(DEFAULT, EVERYBODY, hospitals(4), fewest=4)

    assert choose_sites(DEFAULT, EVERYBODY, present) == SITES
    assert capsys.readouterr().out == "not connected: hospital-5; unet needs 4 of 5 hospitals\n"


def test_fewer_hospitals_than_a_round_needs_are_asked_about():
    with pytest.raises(
        JobError,
        match=r"connected: hospital-1, hospital-2, hospital-3; unet needs 4 of .*; wait .*, or give --sites-only",
    ):
        in_federation(DEFAULT, EVERYBODY, hospitals(3), fewest=4)
    three = Asked(only=hospitals(3))
    assert choose_sites(DEFAULT, three, in_federation(DEFAULT, three, hospitals(3), fewest=4)) == hospitals(3)


@pytest.mark.parametrize("connected", [("north", "south"), hospitals(7)])
def test_federation_of_others_takes_the_place_of_the_jobs_five(connected: tuple[str, ...]):
    assert choose_sites(DEFAULT, EVERYBODY, in_federation(DEFAULT, EVERYBODY, connected, 4)) == connected


def test_long_list_of_names_is_cut():
    assert participants.listed(hospitals(13)) == ", ".join(hospitals(12)) + ", and 1 more"
