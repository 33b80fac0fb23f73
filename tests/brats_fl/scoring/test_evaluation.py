from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ignite.engine import Engine
from monai.data import MetaTensor

from brats_fl.cases.transforms import LabelToRegionsd
from brats_fl.files import CASE_TABLE_COLUMNS
from brats_fl.scoring.case_table import Certainty, write_case_table
from brats_fl.scoring.columns import ALL_COLUMNS
from brats_fl.scoring.evaluation import CaseTable, write_whole

TWO_MM = torch.diag(torch.tensor([2.0, 2.0, 2.0, 1.0]))


def regions(*labels: int) -> torch.Tensor:
    """Regions of a row of voxels."""
    return LabelToRegionsd()({"label": torch.tensor(labels, dtype=torch.uint8).reshape(1, -1, 1, 1)})["label"]


def evaluator(table: CaseTable, results: list[tuple[str, torch.Tensor, torch.Tensor]], fail_at: int = -1) -> Engine:
    """An engine that gives the results one at a time, as MONAI's evaluator does after decollating."""

    def step(engine: Engine, batch: list[dict[str, Any]]) -> list[dict[str, Any]]:
        index = batch[0]["index"]
        if index == fail_at:
            raise RuntimeError("the scan cannot be read")
        _, pred, label = results[index]
        return [{"pred": MetaTensor(pred, affine=TWO_MM), "label": label}]

    engine = Engine(step)
    table.attach(engine)
    return engine


def batches(results: list[tuple[str, torch.Tensor, torch.Tensor]]) -> list[list[dict[str, Any]]]:
    return [[{"case": case, "index": index}] for index, (case, _, _) in enumerate(results)]


RESULTS = [
    ("case-1", regions(0, 2, 2, 1, 3), regions(0, 2, 2, 1, 3)),
    ("case-2", regions(0, 2, 0, 0, 0), regions(0, 2, 2, 1, 1)),
]


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_table_has_a_row_per_case_and_region(tmp_path: Path):
    table = CaseTable(str(tmp_path / "new" / "eval"), "hospital-1", "testing")

    evaluator(table, RESULTS).run(batches(RESULTS))

    rows = rows_of(tmp_path / "new" / "eval" / "evaluation.csv")
    assert tuple(rows[0]) == ALL_COLUMNS
    assert ALL_COLUMNS[:8] == CASE_TABLE_COLUMNS
    assert [(row["case"], row["region"]) for row in rows] == [
        ("case-1", "tc"), ("case-1", "wt"), ("case-1", "et"), ("case-2", "tc"), ("case-2", "wt"), ("case-2", "et"),
    ]  # fmt: skip
    assert {(row["site"], row["split"]) for row in rows} == {("hospital-1", "testing")}


def test_values_are_those_of_the_brats_rules_in_mm_and_ml(tmp_path: Path):
    table = CaseTable(str(tmp_path), "hospital-1", "testing")

    evaluator(table, RESULTS).run(batches(RESULTS))

    by_region = {(row["case"], row["region"]): row for row in rows_of(tmp_path / "evaluation.csv")}
    perfect = by_region["case-1", "wt"]
    assert (perfect["dice"], perfect["hd95_mm"]) == ("1.00000", "0.000")
    assert (perfect["volume_ml"], perfect["reference_volume_ml"]) == ("0.032", "0.032")  # 4 voxels of 8 mm3
    assert by_region["case-2", "wt"]["dice"] == "0.40000"  # 2 x 1 / (1 + 4)
    assert (by_region["case-2", "tc"]["dice"], by_region["case-2", "tc"]["hd95_mm"]) == ("0.00000", "373.130")
    assert (by_region["case-2", "et"]["dice"], by_region["case-2", "et"]["hd95_mm"]) == ("1.00000", "0.000")


def test_summary_says_what_was_evaluated_and_the_mean_per_region(tmp_path: Path):
    table = CaseTable(str(tmp_path), "hospital-1", "testing")

    evaluator(table, RESULTS).run(batches(RESULTS))

    summary = json.loads((tmp_path / "summary.json").read_text())
    assert (summary["site"], summary["split"], summary["cases"]) == ("hospital-1", "testing", 2)
    assert summary["regions"]["wt"]["dice"]["mean"] == pytest.approx(0.7)  # (1.0 + 0.4) / 2


def test_means_over_the_cases_are_the_metrics_of_the_engine(tmp_path: Path):
    engine = evaluator(CaseTable(str(tmp_path), "hospital-1", "testing"), RESULTS)
    engine.state.metrics = {"of another handler": 3.0}

    metrics = engine.run(batches(RESULTS)).metrics

    assert metrics["of another handler"] == 3.0
    assert metrics["val_dice_tc"] == pytest.approx(0.5)  # (1.0 + 0.0) / 2
    assert metrics["val_dice_wt"] == pytest.approx(0.7)
    assert metrics["val_dice_et"] == pytest.approx(1.0)
    assert metrics["val_mean_dice"] == pytest.approx((0.5 + 0.7 + 1.0) / 3)
    assert metrics["val_hd95_mm_tc"] == pytest.approx(373.13 / 2)


def test_evaluation_that_fails_writes_nothing(tmp_path: Path):
    table = CaseTable(str(tmp_path / "eval"), "hospital-1", "testing")

    with pytest.raises(RuntimeError):
        evaluator(table, RESULTS, fail_at=1).run(batches(RESULTS))

    assert not (tmp_path / "eval").exists()


def test_second_run_begins_an_empty_table(tmp_path: Path):
    table = CaseTable(str(tmp_path), "hospital-1", "testing")

    evaluator(table, RESULTS).run(batches(RESULTS))
    evaluator(table, RESULTS[:1]).run(batches(RESULTS[:1]))

    assert len(rows_of(tmp_path / "evaluation.csv")) == 3


def test_table_that_cannot_be_finished_leaves_the_old_one_as_it_was(tmp_path: Path):
    path = tmp_path / "evaluation.csv"
    path.write_text("old")
    whole = dict.fromkeys(CASE_TABLE_COLUMNS, 0.0)

    with pytest.raises(KeyError):
        write_case_table(path, [whole, {"case": "only"}])

    assert path.read_text() == "old"


def test_text_replaces_the_old_file_and_leaves_no_scratch_file(tmp_path: Path):
    write_whole(tmp_path / "a.json", "1")
    write_whole(tmp_path / "a.json", "2")

    assert (tmp_path / "a.json").read_text() == "2"
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


def test_rows_of_a_case_whose_probabilities_are_kept_have_its_calibration(tmp_path: Path):
    table = CaseTable(str(tmp_path), "hospital-1", "testing")
    mask = regions(0, 2, 2, 0)
    output = {
        "pred": MetaTensor(mask, affine=TWO_MM),
        "label": mask,
        "probability": torch.tensor([0.25, 0.75, 0.75, 0.25]).reshape(1, 4, 1, 1).expand(3, -1, -1, -1),
        "brain": torch.tensor([1.0, 1, 1, 0]).reshape(1, 4, 1, 1),
    }
    engine = Engine(lambda engine, batch: [output])
    table.attach(engine)

    engine.run([[{"case": "a"}]])

    rows = {row["region"]: row for row in rows_of(tmp_path / "evaluation.csv")}
    # The last voxel is no brain. WT: off by .25, .25, .25. TC has no voxel: off by .25, .75, .75.
    assert (rows["wt"]["ece"], rows["tc"]["ece"]) == ("0.25000", f"{1.75 / 3:.5f}")
    assert rows["wt"]["entropy_bits"] == "0.81128"
    bins = json.loads((tmp_path / "summary.json").read_text())["reliability"]["wt"]
    assert [(row["voxels"], row["share"]) for row in bins if row["voxels"]] == [(1, 0.0), (2, 1.0)]


def test_figures_of_calibration_are_empty_where_no_probability_is_known(tmp_path: Path):
    evaluator(CaseTable(str(tmp_path), "hospital-1", "testing"), RESULTS).run(batches(RESULTS))

    assert {(row["ece"], row["entropy_bits"]) for row in rows_of(tmp_path / "evaluation.csv")} == {("", "")}


def test_summary_counts_lesions_and_tells_the_bias_of_volumes(tmp_path: Path):
    evaluator(CaseTable(str(tmp_path), "hospital-1", "testing"), RESULTS).run(batches(RESULTS))

    tumour = json.loads((tmp_path / "summary.json").read_text())["regions"]["wt"]
    # Voxels of 8 mm3: four are 32 mm3, too small for a lesion that counts; predicted are four and one of four.
    assert tumour["lesions_missed"] == {"total": 0}
    assert tumour["volume_bias"]["bias_ml"] == pytest.approx(-0.024 / 2)
    assert tumour["sensitivity"] == pytest.approx({"mean": 0.625, "median": 0.625, "worst": 0.25})


def test_probability_and_brain_on_two_grids_are_refused():
    with pytest.raises(ValueError, match=r"probability has shape \(3, 2, 2, 2\), brain \(2, 2, 1\); both must be on"):
        Certainty(np.zeros((3, 2, 2, 2)), np.ones((2, 2, 1), dtype=bool))
