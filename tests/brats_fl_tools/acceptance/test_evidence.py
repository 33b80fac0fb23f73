"""Which runs of a study are put side by side, which are left out and why, and what a case's figure is."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tests.run_folders import write_rows
from tests.study_folders import GOOD, Dice, even, rows_of, write_evaluation, write_study_folder

from brats_fl.errors import RunError
from brats_fl_tools.acceptance.evidence import Evidence, gather_evidence
from brats_fl_tools.study.record import read_record, write_record

FEDERATED, CENTRAL = "sites-unet-seed0", "sites-brats_unet-central-seed0"


def gather(out: Path) -> Evidence:
    return gather_evidence(out, read_record(out))


def study(folder: Path) -> Path:
    return write_study_folder(folder / "study", central=GOOD, without=dict.fromkeys(GOOD, GOOD))


def test_case_of_two_seeds_counts_the_mean_of_its_figures(tmp_path: Path):
    second: Dice = {site: [value + 0.1 for value in values] for site, values in GOOD.items()}
    out = write_study_folder(tmp_path / "study", (GOOD, second))

    (found,) = gather(out).candidates

    assert len(found.federated.keys) == 12
    np.testing.assert_allclose(found.federated.of("dice", "tc")[:2], [0.83, 0.87])  # of .78 and .88, .82 and .92
    assert found.by_seed["federated"] == pytest.approx({0: 0.75, 1: 0.85})


def test_patients_are_those_of_the_data_lists(tmp_path: Path):
    out = write_study_folder(tmp_path / "study", patients={"hospital-1-1": "hospital-1-0"})

    assert len(set(gather(out).candidates[0].federated.owners)) == 11


def test_without_the_data_lists_each_case_is_a_patient_and_that_is_said(tmp_path: Path):
    out = study(tmp_path)
    shutil.rmtree(tmp_path / "sites" / "hospital-2")

    found = gather(out)

    assert found.without_patients == (str(tmp_path / "sites" / "hospital-2"),)
    assert len(set(found.candidates[0].federated.owners)) == 12


def test_unfinished_run_is_named_and_the_rest_is_read(tmp_path: Path):
    out = study(tmp_path)
    record = read_record(out)
    failed = next(run for run in record.runs if run.name == CENTRAL)
    write_record(out, record.with_run(replace(failed, state="failed", error="no space left")))

    found = gather(out)

    assert [(one.name, one.why) for one in found.left_out] == [(CENTRAL, "failed (no space left)")]
    assert list(found.candidates[0].baselines) == ["leave-one-out"]


def other_lists(run: Path) -> None:
    lists = json.loads((run / "baseline.json").read_text())["lists"]
    lists["hospital-2"]["training"] = "other"
    (run / "baseline.json").write_text(json.dumps({"lists": lists}))


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (lambda run: write_evaluation(run, seen_in_training=["hospital-1/a"]), "trained or chosen on hospital-1/a"),
        (
            lambda run: write_evaluation(run, bundle="brats_attention_unet"),
            "figures are of brats_attention_unet (small)",
        ),
        (lambda run: write_evaluation(run, profile="full"), "figures are of brats_unet (full)"),
        (other_lists, f"not compared with {FEDERATED}: splits: hospital-2 has other cases for training"),
        (
            lambda run: write_rows(run, rows_of({**GOOD, "hospital-2": even(0.7, 5)})),
            "hospital-2-5 of hospital-2 is in",
        ),
        (lambda run: (run / "evaluation.csv").unlink(), "evaluation.csv: "),
    ],
)
def test_run_that_stands_on_something_else_is_left_out_by_name(spoil: Callable[[Path], None], why: str, tmp_path: Path):
    out = study(tmp_path)
    spoil(out / "runs" / CENTRAL)

    found = gather(out)

    assert [one.name for one in found.left_out] == [CENTRAL]
    assert why in found.left_out[0].why
    assert "central" not in found.candidates[0].baselines


def test_leave_one_out_whose_part_saw_a_test_case_is_refused(tmp_path: Path):
    out = study(tmp_path)
    name = "sites-brats_unet-leave-one-out-seed0"
    write_evaluation(out / "runs" / name / "without-hospital-1", seen_in_training=["hospital-2/b"])

    assert [one.name for one in gather(out).left_out] == [name]
    assert gather(out).candidates[0].without == {}


def test_hospital_is_not_blamed_for_what_is_the_algorithms(tmp_path: Path):
    out = study(tmp_path)
    record = read_record(out)
    own = next(run for run in record.runs if run.name == FEDERATED)
    write_record(out, record.with_run(replace(own, label="scaffold")))  # the baselines are of the job unet

    (found,) = gather(out).candidates

    assert (list(found.baselines), found.without) == (["central", "leave-one-out"], {})


def test_study_without_a_federated_run_has_nothing_to_report(tmp_path: Path):
    out = study(tmp_path)
    (out / "runs" / FEDERATED / "evaluation.json").unlink()

    with pytest.raises(RunError, match=r"no federated run of the study can be reported .*sites-unet-seed0: "):
        gather(out)
