"""The acceptance report: what is written, what the verdict says of studies whose answer is known, what is refused."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping
from html import unescape
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from tests.brats_fl_tools.report.test_report import CHROMIUM, measure_in_browser
from tests.run_folders import train, write_rounds, write_scans
from tests.study_folders import GOOD, Dice, even, rows_of, write_study_folder
from typer.testing import CliRunner

from brats_fl.constants import MODALITIES
from brats_fl_tools.audit.summary import STATES, Attack, Inversion, Summary, write_summary
from brats_fl_tools.cli import app
from brats_fl_tools.study.record import read_record
from brats_fl_tools.study.thresholds import Thresholds

ASKED = Thresholds(least_mean_dice=0.6, above_local=True)


def call(out: Path, *options: str) -> Result:
    return CliRunner().invoke(app, ["report", str(out), *options])


def report_of(out: Path, *options: str) -> tuple[dict[str, Any], str]:
    """As ``read``, of a report that is written first."""
    result = call(out, *options)
    assert result.exit_code == 0, result.output
    return read(out)


def read(out: Path) -> tuple[dict[str, Any], str]:
    """``acceptance.json``, and the words of the page."""
    text = re.sub(r"<[^>]+>", " ", (out / "report.html").read_text(encoding="utf-8").split("</style>", 1)[1])
    return json.loads((out / "acceptance.json").read_text()), " ".join(unescape(text).split())


def shifted(by: float, dice: Dice = GOOD) -> Dice:
    return {site: [round(value + by, 4) for value in values] for site, values in dice.items()}


@pytest.fixture(scope="module")
def reported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A good study with all baselines, and its report."""
    out, without = tmp_path_factory.mktemp("good") / "study", {site: shifted(-0.02) for site in GOOD}
    write_study_folder(out, (GOOD, GOOD), shifted(-0.1), shifted(0.02), without, ASKED)
    assert call(out).exit_code == 0
    return out


def test_good_study_is_a_go_with_the_hash_of_its_thresholds(reported: Path):
    figures, page = read(reported)

    assert figures["verdict"] == "go"
    assert figures["thresholds"]["sha256"] in page
    assert page.index(" go ") < page.index("In short")
    assert "unet meets all thresholds of the file, 2." in page


def test_figures_are_those_of_the_tables(reported: Path):
    figures, page = read(reported)

    (job,) = figures["jobs"]
    # 6 cases around .8 and 6 around .7; the local models .1 below, the pooled one .02 above.
    assert job["headlines"]["federated"]["dice"]["value"] == pytest.approx(0.75)
    assert job["headlines"]["federated"]["worst_site"] == "hospital-2"
    assert job["headlines"]["federated"]["gap"] == pytest.approx(0.1)
    assert job["against"]["local"]["dice"]["All cases"]["wt"]["difference"]["value"] == pytest.approx(0.1)
    assert job["against"]["central"]["dice"]["hospital-1"]["mean"]["difference"]["value"] == pytest.approx(-0.02)
    assert job["contributions"]["hospital-1"]["value"] == pytest.approx(0.02)
    # 3 baselines x (2 hospitals + all): 9 tests. Of 12 equal signs p is 2 / 2^12; of all three such tests 9 x that.
    assert job["against"]["local"]["dice"]["All cases"]["mean"]["p_holm"] == pytest.approx(9 * 2 / 2**12)
    assert "for the 9 tests of this job" in page


def test_spoilt_labels_make_it_no_go_and_name_the_hospital(tmp_path: Path):
    spoilt: Dice = {"hospital-1": even(0.8), "hospital-2": even(0.8), "hospital-3": even(0.2)}
    better = {**shifted(0.05, spoilt), "hospital-3": even(0.2)}
    without = {"hospital-1": spoilt, "hospital-2": spoilt, "hospital-3": better}
    out = write_study_folder(
        tmp_path / "study", (spoilt,), {**shifted(-0.1, spoilt), "hospital-3": even(0.2)}, spoilt, without,
        Thresholds(least_mean_dice=0.1),
    )  # fmt: skip

    figures, page = report_of(out)

    assert (figures["verdict"], figures["named_hospitals"]) == ("no go", ["hospital-3"])
    assert "Look at the labels of hospital-3: the others' Dice is 0.050 higher without it (unet); its own cases" in page

    looked_at, page = report_of(out, "--sound", "hospital-3", "--force")
    assert (looked_at["verdict"], looked_at["labels_found_sound"]) == ("go", ["hospital-3"])
    assert "the labels of hospital-3 were looked at and are sound" in page


def test_without_thresholds_there_is_no_verdict(tmp_path: Path):
    figures, page = report_of(write_study_folder(tmp_path / "study"))

    assert (figures["verdict"], figures["thresholds"]) == (None, None)
    assert "no verdict No verdict: the study has no thresholds" in page.replace(" go ", " ")


def test_thresholds_that_were_changed_are_said_to_be(tmp_path: Path):
    out = write_study_folder(tmp_path / "study", thresholds=ASKED, replaced=("ab" * 32,))

    page = report_of(out)[1]

    assert "changed after runs had begun: before there were those of SHA-256 abababababab" in page
    assert "before the first run" not in page


def test_failures_are_pictures_where_masks_are_and_else_a_command_makes_them(reported: Path, tmp_path: Path):
    assert "no failure is shown as a picture. Masks make them: `brats-fl evaluate brats_unet" in read(reported)[1]

    few: Dice = {"hospital-1": [0.9, 0.5, 0.7, 0.3]}
    out = write_study_folder(tmp_path / "few", (few,))
    shutil.rmtree(tmp_path / "sites")
    write_scans(tmp_path / "sites", out / "runs" / "sites-unet-seed0", rows_of(few))
    page = (report_of(out)[1], (out / "report.html").read_text())

    assert re.findall(r"(?:Worst|Among the lowest): hospital-1-\d", page[0]) == [
        "Worst: hospital-1-3",
        "Among the lowest: hospital-1-1",
        "Among the lowest: hospital-1-2",
    ]
    assert page[1].count("data:image/jpeg") > 12
    assert 'id="pictures-1"' in page[1]


def test_report_names_how_to_run_it_again(reported: Path):
    page = read(reported)[1]

    assert read_record(reported).sha256 in page
    assert 'name = "a study"' in page
    assert "monai 1.6.1" in page


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--against", "x"), "which has its own baselines"),
        (("--sound", "hospital-9"), "tested at no such hospital; it has hospital-1, hospital-2"),
    ],
)
def test_option_that_means_nothing_here_is_refused(options: tuple[str, ...], words: str, reported: Path):
    result = call(reported, "--force", *options)

    assert result.exit_code != 0
    assert words in " ".join((result.output + str(result.exception)).replace("│", " ").split())


def test_sound_is_refused_of_what_is_no_study(tmp_path: Path):
    assert "is no study" in " ".join(call(tmp_path, "--sound", "hospital-1").output.replace("│", " ").split())


def test_earlier_report_is_not_overwritten_without_force(reported: Path):
    assert "is there already; give --force" in str(call(reported).exception)


@pytest.mark.skipif(not CHROMIUM, reason="no Chromium on this machine to open the page with")
def test_page_never_scrolls_sideways(reported: Path, tmp_path: Path):
    seen = measure_in_browser((reported / "report.html").read_text(encoding="utf-8"), tmp_path, (420, 1300))

    assert {width: one["wanted"] <= int(width) for width, one in seen.items()} == {"420": True, "1300": True}


def test_model_card_has_verdict_figures_and_places_for_what_a_person_must_write(reported: Path):
    card = (reported / "runs" / "sites-unet-seed1" / "model_card.md").read_text(encoding="utf-8")

    assert "- Verdict on the study: go" in card
    assert f"its file's SHA-256 {read_record(reported).sha256}" in card
    assert "seed 1" in card
    assert re.search(r"\| mean Dice \| 0\.750 \| 0\.7\d\d to 0\.7\d\d \|", card)
    assert "| hospital-1 | 4 | 1 | 6 | trained |" in card
    assert "| Data sources, dates, consent and approval | _to be written_ |" in card


def test_figures_of_a_privacy_audit_are_in_the_report_of_its_study(reported: Path, tmp_path: Path):
    out = tmp_path / "study"
    shutil.copytree(reported, out)
    figures = dict.fromkeys(MODALITIES, 0.0)
    titles = {
        "step": "one step",
        "round": "a round of 8 steps",
        "mean": "mean of 5 hospitals' steps",
        "other": "control",
    }
    attacks = [
        Attack(state, name, figures | {"t1c": 0.8, "t2f": 0.4 * (name == "step")}, figures | {"t1c": 0.28}, 0.1, 2.0)
        for state in STATES
        for name in titles
    ]
    inversion = Inversion(32, 300, 1, 0, titles, dict.fromkeys(MODALITIES, 0.5), tuple(attacks))
    audit = Summary(model="m", model_sha256="00", reference_sha256=None, bundle="b", profile="small", sites={"h": 1},
                    synthetic_cases=0, secure_aggregation=True, seen_checked=True, inversion=inversion,
                    membership=None, finished="2026", versions={}, machine={}, commit=None)  # fmt: skip
    (run,) = [path for path in (out / "runs").iterdir() if (path / "run.json").is_file()][:1]
    write_summary(run / "audit.json", audit)

    acceptance, page = report_of(out, "--force")

    assert "rebuilt with a mean correlation of 0.30, 0.07 beyond the label" in page
    assert "its server saw the sum of the hospitals' updates" in page
    assert "a round of 8 steps 0.20 0.07 0.20 0.07" in page
    (found,) = [audits for job in acceptance["jobs"] for audits in job["audits"].values()]
    assert found["inversion"]["attacks"][0]["correlation"]["t1c"] == 0.8
    assert found["membership"] is None


SPOILT_SITES: Dice = {f"hospital-{number}": even(0.7) for number in (1, 2, 3)}
BY_ITS_ROUNDS = {"hospital-1": 0.7, "hospital-2": 0.2, "hospital-3": 0.7}
WITHOUT = dict.fromkeys(SPOILT_SITES, SPOILT_SITES) | {"hospital-2": {site: even(0.8) for site in SPOILT_SITES}}


def write_spoilt_study(folder: Path, without: Mapping[str, Dice], validated: Mapping[str, float]) -> Path:
    """A study that mirrored the labels of hospital-2, with six validation cases a hospital."""
    out = write_study_folder(
        folder / "study", (SPOILT_SITES,), without=without, thresholds=Thresholds(least_mean_dice=0.5),
        spoilt={"sites": {"hospital-2": "mirrored"}},
    )  # fmt: skip
    run = out / "runs" / "sites-unet-seed0"
    facts = json.loads((run / "run.json").read_text(encoding="utf-8"))
    facts["sites"] = {site: {"training": 4, "validation": 6, "testing": 6} for site in SPOILT_SITES}
    (run / "run.json").write_text(json.dumps(facts), encoding="utf-8")
    told = [train(2, site, phase="final", metrics={"val_mean_dice": dice}) for site, dice in validated.items()]
    write_rounds(run, [train(number, site) for number in range(3) for site in SPOILT_SITES] + told)
    return out


@pytest.mark.parametrize(
    ("without", "validated", "sign"),
    [
        (WITHOUT, dict.fromkeys(BY_ITS_ROUNDS, 0.7), "the others' Dice is 0.100 higher without it"),
        (dict.fromkeys(SPOILT_SITES, SPOILT_SITES), BY_ITS_ROUNDS, "in the rounds its validation cases score 0.500"),
    ],
)
def test_hospital_spoilt_on_purpose_is_named_by_contribution_and_by_rounds(
    without: Mapping[str, Dice], validated: Mapping[str, float], sign: str, tmp_path: Path
):
    acceptance, page = report_of(write_spoilt_study(tmp_path, without, validated))

    assert (acceptance["verdict"], acceptance["named_hospitals"]) == ("no go", ["hospital-2"])
    assert sign in acceptance["why"][0]
    assert acceptance["labels_spoilt_on_purpose"] == [
        {"partition": "sites", "site": "hospital-2", "how": "mirrored", "named_by": ["unet"], "not_named_by": []}
    ]
    assert "hospital-2 trained and validated on labels with left and right mirrored" in page
    assert "The figures of unet name it. No model of this partition is for use." in page


def test_spoilt_hospital_that_no_figure_names_is_said_to_be_unnamed_and_the_card_says_what_was_done(tmp_path: Path):
    sound = dict.fromkeys(SPOILT_SITES, SPOILT_SITES)
    out = write_spoilt_study(tmp_path, sound, dict.fromkeys(SPOILT_SITES, 0.7))

    acceptance, page = report_of(out)

    assert (acceptance["verdict"], acceptance["named_hospitals"]) == ("go", [])
    assert "No figures name it." in page
    card = (out / "runs" / "sites-unet-seed0" / "model_card.md").read_text(encoding="utf-8")
    assert "Labels were spoilt on purpose: hospital-2" in card


def test_study_without_energy_or_scans_says_so(reported: Path):
    acceptance, page = read(reported)

    assert {cost["joules"] for cost in acceptance["costs"]} == {None}
    assert "Energy: this machine does not tell." in page
    assert "Not at hand, so not checked here: hospital-1 and hospital-2" in page


def test_baselines_have_a_diagram_of_their_own_where_their_bins_are(tmp_path: Path):
    out = write_study_folder(tmp_path / "study", local=shifted(-0.1))
    bins = [{"voxels": 10, "mean_probability": 0.05 + tenth / 10, "share": 0.1} for tenth in range(10)]
    for run in read_record(out).runs:
        path = out / run.evaluation
        facts = json.loads(path.read_text(encoding="utf-8"))
        path.write_text(json.dumps({**facts, "reliability": {"hospital-1": {"wt": bins}}}), encoding="utf-8")

    acceptance, page = report_of(out)

    (job,) = acceptance["jobs"]
    assert job["reliability_of_baselines"]["local"]["wt"] == job["reliability"]["wt"]
    assert "Reliability of the probabilities, federated" in page
    assert "Reliability of the probabilities, local" in page
