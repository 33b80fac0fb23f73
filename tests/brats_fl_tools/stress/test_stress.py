"""``brats-fl stress`` with a network of one voxel: t1c above its mean is core and enhancing, FLAIR above it tumour."""

from __future__ import annotations

import csv
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from monai.bundle import ConfigParser
from tests.tiny_sites import corrupt, make_tiny_sites
from tests.voxel_bundle import make_voxel_bundle
from typer.testing import CliRunner, Result

from brats_fl.bundle import config_files
from brats_fl.errors import CaseError, DataListError, FolderError, ModelError, cause_of
from brats_fl_tools.cli import app
from brats_fl_tools.runs.processes import Interrupted
from brats_fl_tools.stress import records
from brats_fl_tools.stress.summary import read_summary

MISSING_AND_NOISE = ("--only", "missing,noise", "--grades", "noise=0.5", "--grades", "missing=t1c,t2f")
SEGMENTATIONS = 3 * 4
"""Three test cases; as they are, without t1c, without t2f, and one grade of noise."""


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_voxel_bundle(tmp_path_factory.mktemp("models") / "voxel")


@pytest.fixture(scope="module")
def sites(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two hospitals with two test cases and one, and a third with none."""
    counts = {"hospital-1": (1, 0, 2), "hospital-2": (1, 0, 1), "hospital-3": (1, 0, 0)}
    return make_tiny_sites(tmp_path_factory.mktemp("data") / "sites", counts)


def run_stress(bundle: Path, sites: Path, out: Path, *options: str) -> Result:
    return CliRunner().invoke(app, ["stress", str(bundle), "--sites", str(sites), "--out", str(out), *options])


def read_table(path: Path) -> dict[tuple[str, ...], tuple[float, float]]:
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    keys = ("degradation", "grade", "site", "case", "region")
    return {tuple(row[key] for key in keys): (float(row["dice"]), float(row["hd95_mm"])) for row in rows}


@pytest.fixture(scope="module")
def stressed(bundle: Path, sites: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str]]:
    """Folder of a stress that ran to its end, and what it said."""
    out = tmp_path_factory.mktemp("stressed") / "out"
    done = run_stress(bundle, sites, out, *MISSING_AND_NOISE)
    assert done.exit_code == 0, done.output
    return out, done.output


def test_work_is_told_before_it_begins_and_each_line_tells_the_rest(stressed: tuple[Path, str]):
    _, said = stressed

    assert "hospital-3: no case for testing, left out" in said
    assert "3 test cases x 4 grades, the scans as they are included: 12 segmentations" in said
    assert len(re.findall(r"^\d+/12 site=hospital-\d case=\S+ degradation=\S+ grade=\S+ .* left=", said, re.M)) == 12


def test_table_has_a_row_a_case_grade_and_region(stressed: tuple[Path, str]):
    table = read_table(stressed[0] / "stress.csv")

    assert len(table) == SEGMENTATIONS * 3
    assert {key[:2] for key in table} == {("none", "none"), ("noise", "0.5"), ("missing", "t1c"), ("missing", "t2f")}


def test_scans_as_they_are_have_the_figures_of_the_bundles_own_evaluation(
    bundle: Path, sites: Path, stressed: tuple[Path, str], tmp_path: Path
):
    parser = ConfigParser()
    parser.read_config(config_files(bundle, "full", ["evaluate"]))
    parser["bundle_root"], parser["output_dir"] = str(bundle), str(tmp_path)
    parser["data_list_file_path"] = str(sites / "hospital-1" / "datalist.json")
    parser.get_parsed_content("validate#evaluator").run()

    with (tmp_path / "evaluation.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 * 3
    table = read_table(stressed[0] / "stress.csv")
    for row in rows:
        own = table["none", "none", "hospital-1", row["case"], row["region"]]
        assert own == (float(row["dice"]), float(row["hd95_mm"]))


def test_region_is_lost_where_the_scan_that_shows_it_is_missing_and_only_there(stressed: tuple[Path, str]):
    table = read_table(stressed[0] / "stress.csv")
    cases = {key[2:4] for key in table}

    for site, case in cases:
        before = {region: table["none", "none", site, case, region][0] for region in ("tc", "wt", "et")}
        assert min(before.values()) > 0.5
        assert table["missing", "t1c", site, case, "tc"] == (0, 373.13)  # the core is seen in t1c alone
        assert table["missing", "t1c", site, case, "et"] == (0, 373.13)
        assert table["missing", "t1c", site, case, "wt"][0] == before["wt"]  # and the whole in t2f alone, with which
        assert [table["missing", "t2f", site, case, region][0] for region in before] == [0, 0, 0]  # what is in it goes


def test_summary_is_the_mean_of_the_table_and_says_of_what(stressed: tuple[Path, str], bundle: Path):
    out, said = stressed
    table, summary = read_table(out / "stress.csv"), read_summary(out / "stress.json")

    assert (summary.bundle, summary.profile, summary.cases) == ("voxel", "full", 3)
    assert summary.sites == {"hospital-1": 2, "hospital-2": 1}
    assert [len(digest) for digest in summary.models_sha256.values()] == [64]
    assert summary.seen_in_training is None
    for one in summary.grades:
        rows = [value[0] for key, value in table.items() if key[:2] == (one.degradation, one.grade)]
        assert one.dice["mean"] == pytest.approx(sum(rows) / 9, abs=1e-5)
    lost = {(one.degradation, one.grade): one for one in summary.grades}
    assert lost["none", "none"].loss == 0
    assert lost["missing", "t1c"].cases_that_fall == 3
    assert lost["missing", "t1c"].loss_interval is None  # three cases are too few for one
    assert "Most is lost by a missing t2f: 0.000, which is 0.9" in said
    assert "More than 0.05 is lost by noise, 0.5 × the brain's SD; a missing t1c or t2f." in said


def test_page_has_a_diagram_a_degradation_and_no_case(stressed: tuple[Path, str]):
    page = (stressed[0] / "stress.html").read_text(encoding="utf-8")

    assert page.count("<svg") == 2
    assert "Noise, mean Dice: tumour core" in page
    assert "without t1c" in page
    assert "3 cases: too few to tell a loss from chance" in page
    assert "was not checked" in page
    assert "case-00" not in page  # names of cases are in the table alone


def test_stopped_stress_leaves_no_results_and_goes_on_with_what_is_missing(
    bundle: Path, sites: Path, stressed: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    out, alone = tmp_path / "out", tmp_path / "alone"
    (alone / "hospital-2").mkdir(parents=True)
    shutil.copy(sites / "hospital-2" / "datalist.json", alone / "hospital-2")
    assert run_stress(bundle, alone, out, "--only", "missing", "--grades", "missing=t2f").exit_code == 0
    add = records.Records.add

    def add_and_stop(self: records.Records, site: str, case: str, score: records.Score) -> None:
        add(self, site, case, score)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(records.Records, "add", add_and_stop)
        stopped = run_stress(bundle, alone, out, *MISSING_AND_NOISE)
    left = sorted(path.name for path in out.iterdir())
    resumed = run_stress(bundle, alone, out, *MISSING_AND_NOISE)

    assert stopped.exit_code == 1
    assert "2 of them are known from before, 2 are left" in stopped.output
    assert left == [".brats-fl", ".stress"]  # the earlier table, of other grades, does not pass for this one
    assert "3 of them are known from before, 1 are left" in resumed.output
    whole = read_table(stressed[0] / "stress.csv")  # of a stress that was never stopped
    assert read_table(out / "stress.csv") == {key: value for key, value in whole.items() if key[2] == "hospital-2"}
    again = run_stress(bundle, alone, out, *MISSING_AND_NOISE)
    assert "4 of them are known from before, 0 are left" in again.output
    assert not [line for line in again.output.splitlines() if line.startswith("1/")]  # nothing was segmented again


def test_interrupted_command_says_how_far_it_came(bundle: Path, sites: Path, tmp_path: Path, monkeypatch):
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(records.Records, "add", stop)

    done = run_stress(bundle, sites, tmp_path / "out", *MISSING_AND_NOISE)

    assert isinstance(done.exception, Interrupted)
    assert done.exception.words == "0 of 12 segmentations are done; the same command goes on"


def test_figures_of_another_model_or_other_scans_are_not_gone_on_with(
    bundle: Path, sites: Path, stressed: tuple[Path, str], tmp_path: Path
):
    other = make_voxel_bundle(tmp_path / "other", bias=-12.0)

    refused = run_stress(other, sites, stressed[0], *MISSING_AND_NOISE)

    assert isinstance(refused.exception, FolderError)
    assert "is of another model, of other settings or of other scans; choose another --out" in str(refused.exception)
    own = make_tiny_sites(tmp_path / "sites", {"hospital-1": (0, 0, 1)})
    out = tmp_path / "out"
    assert run_stress(other, own, out, "--grades", "missing=t1c").exit_code == 0
    for name in ("_t1.nii.gz", "_flair.nii.gz"):  # the case has another scan from now on
        file = next(own.rglob(f"*{name}"))
        file.write_bytes(next(own.rglob("*_t2.nii.gz")).read_bytes())
    assert isinstance(run_stress(other, own, out, "--grades", "missing=t1c").exception, FolderError)
    forced = run_stress(other, own, out, "--grades", "missing=t1c", "--force")
    assert forced.exit_code == 0, forced.output
    assert "known from before" not in forced.output


def test_case_that_cannot_be_read_ends_it_with_the_reason_and_what_is_done_stays(bundle: Path, tmp_path: Path):
    own = make_tiny_sites(tmp_path / "sites", {"hospital-1": (0, 0, 2)})
    whole = corrupt(broken := next(own.rglob("*002_flair.nii.gz")))

    failed = run_stress(bundle, own, tmp_path / "out", "--grades", "missing=t1c")
    kept = sorted(path.name for path in (tmp_path / "out" / ".stress").rglob("*.json"))
    broken.write_bytes(whole)
    mended = run_stress(bundle, own, tmp_path / "out", "--grades", "missing=t1c")

    assert isinstance(failed.exception, RuntimeError)  # MONAI's, around ours
    reason = cause_of(failed.exception)
    assert isinstance(reason, CaseError)
    assert broken.name in str(reason)
    assert kept == ["hospital-1-case-001.json"]
    assert "2 of them are known from before, 2 are left" in mended.output


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--only", "fog"], "no degradation 'fog'"),
        (["--grades", "noise=11"], "grade of noise must be a number from 0 to 10"),
    ],
)
def test_degradation_or_grade_that_there_is_not_is_wrong_usage(
    options: list[str], message: str, bundle: Path, sites: Path, tmp_path: Path
):
    done = run_stress(bundle, sites, tmp_path / "out", *options)

    assert done.exit_code == 2
    assert message in " ".join(done.output.replace("│", " ").split())
    assert not (tmp_path / "out").exists()


def test_bundle_without_out_is_wrong_usage(bundle: Path, sites: Path):
    done = CliRunner().invoke(app, ["stress", str(bundle), "--sites", str(sites)])

    assert done.exit_code == 2
    assert "--out is missing" in done.output


def test_results_of_a_run_lie_in_its_folder(bundle: Path, sites: Path, tmp_path: Path):
    run = tmp_path / "run"
    run.mkdir()
    (run / "global_model.pt").write_bytes((bundle / "models" / "model.pt").read_bytes())
    (run / "run.json").write_text(json.dumps({"profile": "full"}), encoding="utf-8")

    options = ["--bundle", str(bundle), "--grades", "missing=t1n"]
    done = CliRunner().invoke(app, ["stress", str(run), "--sites", str(sites), *options])

    assert done.exit_code == 0, done.output
    assert (run / "stress" / "stress.html").is_file()


def test_absent_model_model_of_another_bundle_and_sites_without_test_cases_are_refused(
    bundle: Path, sites: Path, tmp_path: Path
):
    out = tmp_path / "out"

    absent = run_stress(tmp_path / "none", sites, out)
    other = run_stress(bundle, sites, out, "--bundle", "brats_unet", "--profile", "small")
    empty = run_stress(bundle, make_tiny_sites(tmp_path / "sites", {"hospital-1": (1, 1, 0)}), out)

    assert isinstance(absent.exception, ModelError)
    assert "no model there; give a checkpoint, a run folder" in str(absent.exception)
    assert isinstance(other.exception, ModelError)
    assert "parameters of another network" in str(other.exception)
    assert isinstance(empty.exception, DataListError)
    assert "no site has a case for testing" in str(empty.exception)
    assert not out.exists()


def test_folder_of_something_else_is_not_written_into(bundle: Path, sites: Path, tmp_path: Path):
    (tmp_path / "note.txt").write_text("mine")

    done = run_stress(bundle, sites, tmp_path)

    assert isinstance(done.exception, FolderError)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["note.txt"]


def test_mean_of_two_models_is_stressed_as_one(bundle: Path, sites: Path, tmp_path: Path):
    other = make_voxel_bundle(tmp_path / "other", bias=-9.0)

    done = run_stress(bundle, sites, tmp_path / "out", "--model", str(other), "--grades", "missing=t1n")

    assert done.exit_code == 0, done.output
    summary = read_summary(tmp_path / "out" / "stress.json")
    assert summary.model == "mean of 2 models"
    assert len(summary.models_sha256) == 2
