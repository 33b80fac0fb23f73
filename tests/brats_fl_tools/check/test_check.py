"""``brats-fl check``: what is printed and written, and with which exit code."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import typer
from tests.conftest import TinySites
from tests.tiny_sites import AFFINE, save, write_tiny_case
from typer.testing import CliRunner

from brats_fl.cases.datalists import Case, DataList, write_datalist
from brats_fl.errors import DataListError, RunError
from brats_fl.gate import Finding
from brats_fl.gate.lists import entries_of
from brats_fl_tools.check import check, verdict
from brats_fl_tools.check.page import render_page
from brats_fl_tools.check.table import print_findings
from brats_fl_tools.check.thumbnails import draw_thumbnails
from brats_fl_tools.check.verdict import check_entries, entries_in, read_sources
from brats_fl_tools.data.case_table import CaseRow, write_case_table

app = typer.Typer()
app.command()(check)


def run(*arguments: str | Path) -> tuple[int, str]:
    """Exit code and standard output; an error of ours is raised as it is."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)
    return result.exit_code, result.stdout


@pytest.fixture
def sites(tiny_sites: TinySites) -> Path:
    return tiny_sites({"hospital-1": (1, 0, 1), "hospital-2": (1, 0, 0)})


def lose_a_scan(sites: Path) -> Path:
    lost = next(sites.glob("hospital-2/*/*_t2.nii.gz"))
    lost.unlink()
    return lost


def test_sites_without_an_error_exit_with_0(sites: Path):
    code, text = run(sites, "--headers")

    assert code == 0
    assert "warning G08-spacing-not-1mm (voxels are near 1 mm)" in text
    assert "cases=3 with_errors=0 errors=0 warnings=5 seconds=" in text  # a spacing a site, a space a case


def test_error_exits_with_1_and_names_place_rule_and_mend(sites: Path):
    lost = lose_a_scan(sites)

    code, text = run(sites, "--headers")

    assert code == 1
    assert text.startswith("error G01-file-missing (every file of a case is there)")
    assert "hospital-2  hospital-2-case-001  t2w" in text
    assert lost.name in "".join(text.split())
    assert "mend: restore the file, or take the case off the list" in text
    assert "with_errors=1 errors=1" in text


def test_one_data_list_is_checked_by_itself(sites: Path):
    lose_a_scan(sites)

    assert run(sites / "hospital-1" / "datalist.json", "--headers")[0] == 0
    assert run(sites / "hospital-1", "--headers")[0] == 0
    assert run(sites / "hospital-2" / "datalist.json", "--headers")[0] == 1


def test_case_twice_is_a_finding_and_does_not_stop_the_check(sites: Path):
    path = sites / "hospital-1" / "datalist.json"
    content = json.loads(path.read_text())
    content["training"] *= 2
    path.write_text(json.dumps(content))

    code, text = run(sites, "--headers")

    assert code == 1
    assert "error G11-case-twice" in text
    assert "cases=4 with_errors=1 errors=1" in text


def test_json_holds_every_finding_with_its_rule(sites: Path, tmp_path: Path):
    lose_a_scan(sites)

    run(sites, "--headers", "--json", tmp_path / "new" / "findings.json")
    content = json.loads((tmp_path / "new" / "findings.json").read_text())

    assert content["cases"] == 3
    assert content["sites"] == ["hospital-1", "hospital-2"]
    assert content["voxels_read"] is False
    assert content["errors"] == 1
    assert content["warnings"] == len(content["findings"]) - 1
    missing = next(finding for finding in content["findings"] if finding["severity"] == "error")
    assert {key: missing[key] for key in ("rule", "site", "case", "scan", "mend")} == {
        "rule": "G01-file-missing",
        "site": "hospital-2",
        "case": "hospital-2-case-001",
        "scan": "t2w",
        "mend": "restore the file, or take the case off the list",
    }


def test_accepted_finding_is_kept_beside_the_list_and_shown_ever_after(sites: Path):
    case = "hospital-2-case-001"

    run(sites, "--headers", "--accept", f"G09:{case}", "--by", "Dr. A")

    (entry,) = json.loads((sites / "hospital-2" / "accepted.json").read_text())["accepted"]
    assert (entry["rule"], entry["case"], entry["by"]) == ("G09-not-template-space", case, "Dr. A")
    assert not (sites / "hospital-1" / "accepted.json").exists()
    _, text = run(sites / "hospital-2", "--headers")
    assert f"accepted by Dr. A on {entry['on']}" in " ".join(text.split())


@pytest.mark.parametrize(
    ("what", "by", "message"),
    [
        ("G01:hospital-2-case-001", "A", "G01-file-missing cannot be accepted"),
        ("G33", "A", "write RULE:CASE"),
        ("G09:hospital-2-case-001", "A\x1b[2J", "say who accepts it, with --by NAME"),
        ("G09:hospital-2-case-001", "", "say who accepts it, with --by NAME"),
        ("G09:another", "A", "found nothing by this rule"),
    ],
)
def test_what_cannot_be_accepted_is_told_and_nothing_written(sites: Path, what: str, by: str, message: str):
    lose_a_scan(sites)

    with pytest.raises(DataListError, match=message):
        run(sites, "--headers", "--accept", what, "--by", by)
    assert list(sites.rglob("accepted.json")) == []


@pytest.mark.parametrize("option", ["--json", "--html"])
def test_file_that_is_there_is_replaced_with_force_only(sites: Path, tmp_path: Path, option: str):
    file = tmp_path / "old"
    file.write_text("old")

    with pytest.raises(RunError, match="old: is there already; give --force to replace it"):
        run(sites, "--headers", option, file)
    assert file.read_text() == "old"

    run(sites, "--headers", option, file, "--force")
    assert file.read_text() != "old"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda folder: folder / "absent.json", "no such file or folder"),
        (lambda folder: folder, "holds no SITE/datalist.json and no case"),
        (lambda folder: write_datalist(folder / "datalist.json", DataList("a")) or folder, "lists no case"),
    ],
    ids=["no file", "no list", "empty list"],
)
def test_nothing_to_check_is_an_error(tmp_path: Path, make, message: str):
    with pytest.raises(DataListError, match=message):
        read_sources(make(tmp_path))


def test_folder_of_scans_without_labels_is_checked(tmp_path: Path):
    case = write_tiny_case(tmp_path / "data", "P_001")
    Path(str(case.label)).unlink()

    code, text = run(tmp_path / "data")

    assert code == 0
    assert "cases=1 with_errors=0 errors=0" in text


def test_case_whose_files_cannot_be_told_is_named_after_the_others_were_checked(tmp_path: Path):
    for name in ("P_001", "P_002"):
        write_tiny_case(tmp_path / "data", name)
    (tmp_path / "data" / "P_002" / "P_002_t2.nii.gz").unlink()

    with pytest.raises(RunError, match=r"1 cases were not checked whole: their files cannot be told\nP_002: t2w"):
        run(tmp_path / "data")


def test_case_table_is_checked_and_what_is_accepted_is_kept_beside_it(tmp_path: Path):
    case = write_tiny_case(tmp_path / "data", "P_001")
    image = tuple(map(Path, case.image))
    row = CaseRow("P_001", "P_001", image, None, "brats2018-2021", (40, 48, 40), (2.0, 2.0, 2.0))
    write_case_table(tmp_path / "cases.csv", [row])

    code, _ = run(tmp_path / "cases.csv", "--accept", "G32:P_001", "--by", "Dr A")
    again, text = run(tmp_path / "cases.csv")

    assert (code, again) == (0, 0)
    assert "accepted by Dr A" in text
    assert (tmp_path / "accepted.json").is_file()


def test_two_lists_of_one_site_are_an_error(tmp_path: Path):
    for folder in ("a", "b"):
        write_datalist(
            tmp_path / folder / "datalist.json", DataList("one", training=(Case("1", "1", ("x",) * 4, "y"),))
        )

    with pytest.raises(DataListError, match="site one has another list"):
        read_sources(tmp_path)


def test_case_that_makes_a_rule_fail_is_a_finding(sites: Path, monkeypatch: pytest.MonkeyPatch):
    def fail(case: Case) -> None:
        raise IndexError("odd")

    monkeypatch.setattr(verdict, "check_case", fail)
    findings = check_entries(entries_in(read_sources(sites)), 1, False)

    assert {(f.rule, f.found) for f in findings} == {("G02-file-unreadable", "could not be checked (IndexError: odd)")}
    assert len(findings) == 3


def test_cases_are_checked_on_two_cores_as_on_one(sites: Path):
    entries = entries_in(read_sources(sites))

    assert check_entries(entries, 2, False) == check_entries(entries, 1, False)


def test_text_in_square_brackets_is_printed(capsys: pytest.CaptureFixture[str]):
    print_findings([Finding("G22-constant", "every voxel is [red]0[/]", "case[1]", "t1c", "a")], 1, 0.5)

    assert "case[1]  t1c   every voxel is [red]0[/]" in capsys.readouterr().out


def test_finding_that_many_cases_share_does_not_fill_the_screen(capsys: pytest.CaptureFixture[str]):
    print_findings([Finding("G22-constant", "every voxel is 0", f"case-{k}", "t1c", "a") for k in range(50)], 50, 1.0)

    text = capsys.readouterr().out
    assert "case-19" in text
    assert "case-20" not in text
    assert "and 30 more; --json FILE or --html FILE has them all" in text


def page_of(sites: Path) -> str:
    entries = entries_in(read_sources(sites))
    return render_page(entries, check_entries(entries, 1, False), headers_only=False)


def test_page_shows_suspicious_cases_and_says_that_it_must_stay(sites: Path):
    lost = lose_a_scan(sites)

    page = page_of(sites)

    assert "It must not leave the hospital." in page
    assert "1 of 3 cases cannot take part as it is" in page
    assert "G01-file-missing" in page
    # Four scans of each of three cases, less the one that is missing.
    assert page.count("<img ") == 11
    assert f"{lost} is not there" in page


def test_page_needs_no_other_file(sites: Path):
    sources: list[str | None] = []

    class Sources(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            sources.extend(value for name, value in attrs if name in ("src", "href"))

    Sources().feed(page_of(sites))

    assert sources
    assert all(source is not None and source.startswith("data:image/png;base64,") for source in sources)


def test_name_of_a_case_is_text_on_the_page_and_no_markup(tmp_path: Path):
    case = Case("<b>case</b>", "p", (str(tmp_path / "absent.nii"),) * 4)
    entries = entries_of([DataList("a", testing=(case,))])

    page = render_page(entries, [Finding("G01-file-missing", "<i>", case.case, "t1c", "a")], headers_only=False)

    assert "&lt;b&gt;case&lt;/b&gt;" in page
    assert "<b>case" not in page
    assert "<i>" not in page


def test_label_of_another_shape_is_not_drawn(sites: Path):
    case = read_sources(sites)[0].datalist.training[0]
    save(np.ones((4, 4, 4), np.uint8), Path(str(case.label)), AFFINE)

    thumbnails = draw_thumbnails(case)

    assert [thumbnail.modality for thumbnail in thumbnails] == ["t1c", "t1n", "t2w", "t2f"]
    assert all("without the label" in thumbnail.text and thumbnail.png for thumbnail in thumbnails)
