"""The reliability diagram: bins of an evaluation, pooled over hospitals."""

import json
from pathlib import Path
from typing import Any

import pytest
from tests.run_folders import write_run
from tests.study_folders import write_study_folder

from brats_fl.constants import REGIONS
from brats_fl.errors import RunError
from brats_fl_tools.acceptance.command import write_acceptance
from brats_fl_tools.report import write_report

NOTHING = {"voxels": 0, "mean_probability": None, "share": None}


def bins(**filled: dict[str, Any]) -> list[dict[str, Any]]:
    """Ten bins, those that are given (``bin3``) with voxels."""
    return [filled.get(f"bin{number}", NOTHING) for number in range(10)]


TWO_HOSPITALS = {
    "hospital-1": {region: bins(bin2={"voxels": 30, "mean_probability": 0.25, "share": 0.2}) for region in REGIONS},
    "hospital-2": {region: bins(bin2={"voxels": 10, "mean_probability": 0.29, "share": 0.6}) for region in REGIONS},
}


def tell(path: Path, reliability: Any) -> None:
    told = json.loads(path.read_text()) if path.exists() else {"bundle": "brats_unet", "split": "testing"}
    path.write_text(json.dumps(told | {"reliability": reliability}))


def test_report_draws_the_bins_of_all_hospitals_together(tmp_path: Path):
    run = write_run(tmp_path / "run")
    tell(run / "evaluation.json", TWO_HOSPITALS)

    page = write_report(run).page.read_text(encoding="utf-8")

    # 30 voxels of .25 and 10 of .29 have a mean of .26; 6 + 6 of 40 are of the region, .3: the gap is .04.
    assert "Calibration error over these voxels: TC 0.040, WT 0.040, ET 0.040." in page
    table = json.loads((run / "metrics.json").read_text())["reliability"]["wt"]
    assert table[2] == {"from": 0.2, "to": 0.3, "voxels": 40, "mean_probability": pytest.approx(0.26), "share": 0.3}


def test_report_without_bins_has_no_diagram(tmp_path: Path):
    page = write_report(write_run(tmp_path / "run")).page.read_text(encoding="utf-8")

    assert "Reliability of the probabilities" not in page


def test_study_pools_the_bins_of_its_seeds(tmp_path: Path):
    same = {"hospital-1": [0.7, 0.8]}
    out = write_study_folder(tmp_path / "study", [same, same])
    for seed in range(2):
        tell(out / "runs" / f"sites-unet-seed{seed}" / "evaluation.json", TWO_HOSPITALS)

    page = write_acceptance(out).page.read_text(encoding="utf-8")

    assert "Calibration error over these voxels: TC 0.040, WT 0.040, ET 0.040." in page
    (job,) = json.loads((out / "acceptance.json").read_text())["jobs"]
    assert job["reliability"]["tc"][2]["voxels"] == 80


@pytest.mark.parametrize(
    ("reliability", "why"),
    [
        ({"hospital-1": {"wt": [NOTHING]}}, "reliability of wt: must have 10 bins"),
        ({"hospital-1": {"brain": bins()}}, "reliability: region must be one of tc, wt, et"),
        ({"hospital-1": {"wt": [{"voxels": 1}] * 10}}, "reliability"),
    ],
)
def test_bins_that_are_none_are_refused_by_their_file(tmp_path: Path, reliability: Any, why: str):
    run = write_run(tmp_path / "run")
    tell(run / "evaluation.json", reliability)

    with pytest.raises(RunError, match=rf"evaluation\.json: .*{why}"):
        write_report(run)
