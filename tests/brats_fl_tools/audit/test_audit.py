"""``brats-fl audit`` with a network of one voxel: what it writes, what it says, what it refuses."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch
from tests.brats_fl_tools.report.test_report import CHROMIUM, measure_in_browser
from tests.signed_run import make_signed_run
from tests.tiny_sites import make_tiny_sites
from tests.voxel_bundle import make_voxel_bundle
from typer.testing import CliRunner, Result

from brats_fl.bundle import build_network
from brats_fl.errors import CaseError, DataListError, FolderError, ModelError, RunError
from brats_fl_tools.audit import attacks
from brats_fl_tools.audit.command import saw_sums_alone
from brats_fl_tools.audit.material import check_patch, cut_at_tumour
from brats_fl_tools.audit.summary import read_summary
from brats_fl_tools.cli import app
from brats_fl_tools.jobs.assembly import JobOptions, build_job
from brats_fl_tools.ledger.crate import write_crate
from brats_fl_tools.repository import BUNDLES
from brats_fl_tools.runs.lists import write_seen
from brats_fl_tools.runs.processes import Interrupted

QUICK = ("--iterations", "3", "--steps", "2", "--hospitals", "2", "--patch", "16")
ATTACKS = 2 * 8
"""Two states of the network; a step, the optimiser's, a round, int8, two noises, a mean, the control."""


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_voxel_bundle(tmp_path_factory.mktemp("models") / "voxel")


@pytest.fixture(scope="module")
def sites(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_sites(tmp_path_factory.mktemp("data") / "sites", {"hospital-1": (2, 0, 1)})


def run_audit(model: Path, sites: Path, out: Path, *options: str) -> Result:
    return CliRunner().invoke(app, ["audit", str(model), "--sites", str(sites), "--out", str(out), *QUICK, *options])


def make_run(folder: Path, bundle: Path) -> Path:
    """A run folder with the bundle's weights as its best model."""
    folder.mkdir()
    (folder / "global_model.pt").write_bytes((bundle / "models" / "model.pt").read_bytes())
    (folder / "run.json").write_text(json.dumps({"profile": "full"}), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def audited(bundle: Path, sites: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Folder of an audit with a reference, and what it said."""
    reference = make_voxel_bundle(tmp_path_factory.mktemp("reference") / "voxel", bias=-3.0)
    out = tmp_path_factory.mktemp("audited") / "out"
    done = run_audit(bundle, sites, out, "--reference", str(reference))
    assert done.exit_code == 0, done.output
    return out, done.output


def test_every_attack_has_a_line_and_its_figures(audited: tuple[Path, str]):
    out, said = audited
    summary = read_summary(out / "audit.json")

    assert "16 attacks of 3 iterations on hospital-1-case-001" in said
    line = r"^\d+/16 state=\w+ update=\S+ correlation t1c=\S+ t1n=\S+ t2w=\S+ t2f=\S+$"
    assert len(re.findall(line, said, re.M)) == ATTACKS
    assert len(re.findall(r"^\d/3 site=hospital-1 case=\S+ loss=\d\S+ left=", said, re.M)) == 3
    inversion = summary.inversion
    assert [one.update for one in inversion.attacks] == list(inversion.titles) * 2
    assert all(-1 <= value <= 1 for one in inversion.attacks for value in one.correlation.values())
    assert inversion.label_alone["t2f"] > 0.5  # the tumour is bright there, which the label tells
    assert (summary.bundle, summary.profile, summary.sites) == ("voxel", "full", {"hospital-1": 2})
    assert summary.secure_aggregation is None
    assert summary.reference_sha256 != summary.model_sha256


def test_page_shows_every_picture_beside_the_truth_and_says_that_it_stays(audited: tuple[Path, str]):
    page = (audited[0] / "audit.html").read_text(encoding="utf-8")

    assert page.count("<img ") == 4 * (ATTACKS + 2)  # four modalities of each attack, and of the scan for each state
    assert "stays at the hospital" in page
    assert "An attack that fails proves nothing" in page
    assert "was not checked: its run does not tell" in page


def test_figures_name_no_case_and_hold_no_picture(audited: tuple[Path, str], sites: Path):
    text = (audited[0] / "audit.json").read_text(encoding="utf-8")

    assert "case-00" not in text
    assert str(sites) not in text
    assert len(text) < 20_000


def test_three_patients_are_too_few_to_say_who_was_in_the_training(audited: tuple[Path, str]):
    membership = read_summary(audited[0] / "audit.json").membership

    assert membership is not None
    assert (membership.member_patients, membership.other_patients, membership.scores) == (2, 1, ())
    assert "2 patients trained on and 1 other are too few" in audited[1]


def test_same_seed_gives_the_same_figures(audited: tuple[Path, str], bundle: Path, sites: Path, tmp_path: Path):
    assert run_audit(bundle, sites, tmp_path / "again").exit_code == 0

    first, again = (read_summary(out / "audit.json").inversion for out in (audited[0], tmp_path / "again"))

    assert [(one.update, one.correlation) for one in first.attacks] == [
        (one.update, one.correlation) for one in again.attacks
    ]


def test_chosen_case_is_the_one_in_the_pictures(bundle: Path, sites: Path, tmp_path: Path):
    done = run_audit(bundle, sites, tmp_path / "out", "--case", "hospital-1-case-002")
    absent = run_audit(bundle, sites, tmp_path / "other", "--case", "hospital-1-case-003")  # a test case

    assert "iterations on hospital-1-case-002" in done.output
    assert isinstance(absent.exception, DataListError)
    assert "no such case in the training split" in str(absent.exception)


def test_without_a_test_case_membership_is_left_out(bundle: Path, tmp_path: Path):
    done = run_audit(bundle, make_tiny_sites(tmp_path / "sites", {"hospital-1": (2, 0, 0)}), tmp_path / "out")

    assert done.exit_code == 0, done.output
    assert read_summary(tmp_path / "out" / "audit.json").membership is None
    assert "No test case is there" in (tmp_path / "out" / "audit.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("cases", [1, 2], ids=["one case", "two cases of one patient"])
def test_without_another_patient_there_is_no_control_and_so_no_audit(cases: int, bundle: Path, tmp_path: Path):
    sites = make_tiny_sites(tmp_path / "sites", {"hospital-1": (cases, 0, 0)})
    datalist = sites / "hospital-1" / "datalist.json"
    content = json.loads(datalist.read_text())
    for entry in content["training"]:
        entry["patient"] = "one"
    datalist.write_text(json.dumps(content))

    done = run_audit(bundle, sites, tmp_path / "out")

    assert isinstance(done.exception, DataListError)
    assert "of no other patient there is a training case with a tumour" in str(done.exception)
    assert not (tmp_path / "out").exists()


def test_figures_that_contradict_each_other_are_refused(audited: tuple[Path, str], tmp_path: Path):
    content = json.loads((audited[0] / "audit.json").read_text())
    content["membership"]["chance"] = 0.1  # as if there had been enough patients
    (tmp_path / "audit.json").write_text(json.dumps(content))

    with pytest.raises(RunError, match="membership must have scores where the patients are enough to say"):
        read_summary(tmp_path / "audit.json")


def test_model_that_was_not_trained_on_the_cases_is_refused(bundle: Path, sites: Path, tmp_path: Path):
    run = make_run(tmp_path / "run", bundle)
    other = make_tiny_sites(tmp_path / "other", {"hospital-2": (2, 0, 1)})
    write_seen(run, other, ["hospital-2"])

    refused = run_audit(run, sites, tmp_path / "out", "--bundle", str(bundle))
    known = run_audit(run, other, tmp_path / "known", "--bundle", str(bundle))

    assert isinstance(refused.exception, DataListError)
    assert "was not trained on 2 cases of the training split" in str(refused.exception)
    assert not (tmp_path / "out").exists()
    assert known.exit_code == 0, known.output
    assert read_summary(tmp_path / "known" / "audit.json").seen_checked


def test_test_cases_that_the_model_knows_are_refused(bundle: Path, sites: Path, tmp_path: Path):
    run = make_run(tmp_path / "run", bundle)
    swapped = tmp_path / "swapped" / "hospital-1"
    swapped.mkdir(parents=True)
    content = json.loads((sites / "hospital-1" / "datalist.json").read_text())
    write_seen(run, sites, ["hospital-1"])
    content["training"], content["testing"] = content["training"][:1], content["training"][1:]
    (swapped / "datalist.json").write_text(json.dumps(content))
    for folder in (sites / "hospital-1").iterdir():
        if folder.is_dir() and folder.name.startswith("hospital"):
            (swapped / folder.name).symlink_to(folder)

    refused = run_audit(run, swapped.parent, tmp_path / "out", "--bundle", str(bundle))

    assert isinstance(refused.exception, DataListError)
    assert "was trained or chosen on 1 test case" in str(refused.exception)


def test_pictures_are_written_into_no_run_folder(bundle: Path, sites: Path, tmp_path: Path):
    run = make_run(tmp_path / "run", bundle)

    refused = run_audit(run, sites, run / "audit", "--bundle", str(bundle))

    assert isinstance(refused.exception, FolderError)
    assert "shows a patient's scan and stays at the hospital" in str(refused.exception)
    assert not (run / "audit").exists()


def test_figures_alone_go_into_the_run_where_that_is_asked_for(bundle: Path, sites: Path, tmp_path: Path):
    run = make_run(tmp_path / "run", bundle)

    done = run_audit(run, sites, tmp_path / "out", "--bundle", str(bundle), "--figures-to-run")
    without_run = run_audit(bundle, sites, tmp_path / "other", "--figures-to-run")

    assert done.exit_code == 0, done.output
    assert sorted(path.name for path in run.iterdir()) == ["audit.json", "global_model.pt", "run.json"]
    assert (run / "audit.json").read_bytes() == (tmp_path / "out" / "audit.json").read_bytes()
    assert without_run.exit_code == 2


def test_crate_of_a_run_takes_nothing_of_an_audit(tmp_path: Path):
    run = make_signed_run(tmp_path / "run", None)
    for name in ("audit.json", "audit.html"):
        (run / name).write_text("{}", encoding="utf-8")

    write_crate(run, tmp_path / "crate", "MIT")

    assert [path.name for path in (tmp_path / "crate").rglob("audit*")] == []


def test_job_with_secure_aggregation_is_told_from_one_without(tmp_path: Path):
    options = JobOptions(preinstalled=True)
    for name in ("brats_unet_secagg", "brats_unet_fedavg"):
        build_job(name, tmp_path / name / "job", options)

    assert saw_sums_alone(tmp_path / "brats_unet_secagg") is True
    assert saw_sums_alone(tmp_path / "brats_unet_fedavg") is False
    assert saw_sums_alone(tmp_path) is None


def test_stopped_audit_leaves_nothing(bundle: Path, sites: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(attacks, "invert", stop)

    done = run_audit(bundle, sites, tmp_path / "out")

    assert isinstance(done.exception, Interrupted)
    assert list(tmp_path.iterdir()) == []


def test_earlier_audit_is_replaced_with_force_only(audited: tuple[Path, str], bundle: Path, sites: Path):
    refused = run_audit(bundle, sites, audited[0])

    assert isinstance(refused.exception, FolderError)
    assert "add --force" in str(refused.exception)


def test_model_of_another_network_and_lists_without_training_cases_are_refused(
    bundle: Path, sites: Path, tmp_path: Path
):
    other = run_audit(bundle, sites, tmp_path / "out", "--bundle", "brats_unet", "--profile", "small")
    torch.save({"weight": torch.zeros(2)}, tmp_path / "no.pt")
    unlike = run_audit(bundle, sites, tmp_path / "out", "--reference", str(tmp_path / "no.pt"))
    empty = run_audit(bundle, make_tiny_sites(tmp_path / "sites", {"hospital-1": (0, 0, 1)}), tmp_path / "out")

    assert isinstance(other.exception, ModelError)
    assert isinstance(unlike.exception, ModelError)
    assert isinstance(empty.exception, DataListError)
    assert "no site has a case for training" in str(empty.exception)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "option", [("--patch", "7"), ("--sigma", "0"), ("--sigma", "nan"), ("--restarts", "0"), ("--hospitals", "1")]
)
def test_option_out_of_range_is_wrong_usage(option: tuple[str, str], bundle: Path, sites: Path, tmp_path: Path):
    assert run_audit(bundle, sites, tmp_path / "out", *option).exit_code == 2


def test_patch_that_the_network_cannot_take_is_refused_by_its_option():
    network, patch = build_network(BUNDLES / "brats_unet", "small", seed=0), torch.zeros(1, 4, 24, 24, 24)

    with pytest.raises(ModelError, match=r"--patch 24: the network cannot take it .*; take a multiple"):
        check_patch(network, (patch, patch))


def test_patch_lies_around_the_tumour_and_within_the_case():
    image, regions = torch.arange(1000.0).reshape(1, 10, 10, 10), torch.zeros(1, 10, 10, 10)
    regions[0, 0, 5, 9] = 1

    cut, label = cut_at_tumour("a", image, regions, 4, None)

    assert float(cut[0, 0, 0, 0, 0]) == 36.0  # from (0, 3, 6)
    assert label.shape == (1, 1, 4, 4, 4)
    assert label.sum() == 1
    with pytest.raises(CaseError, match="a: has no tumour"):
        cut_at_tumour("a", image, torch.zeros_like(regions), 4, None)


@pytest.mark.skipif(not CHROMIUM, reason="no Chromium on this machine to open the page with")
def test_browser_shows_every_picture_and_never_scrolls_sideways(audited: tuple[Path, str], tmp_path: Path):
    page = (audited[0] / "audit.html").read_text(encoding="utf-8")

    for width, found in measure_in_browser(page, tmp_path, (360, 1280)).items():
        assert found["wanted"] <= int(width)
        assert found["pictures"] == 4 * (ATTACKS + 2)
