"""Secure aggregation in FLARE's simulator: five hospitals, two rounds, one of them cannot read its scans."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tests.integration.test_federation import CASES, load, local_models, options
from tests.tiny_sites import corrupt, make_tiny_sites

from brats_fl.round_records import read_records
from brats_fl_tools.runs.simulate import run_simulation

pytestmark = pytest.mark.slow

LOST = "hospital-5"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folder."""
    root = tmp_path_factory.mktemp("secure")
    sites = make_tiny_sites(root / "sites", CASES)
    corrupt(next((sites / LOST).rglob("*case-001_t1ce.nii.gz")))
    run_simulation("brats_unet_secagg", sites, root / "run", options(rounds=2))
    return root / "run"


def test_model_is_the_weighted_mean_of_the_local_models_to_a_millionth_without_the_one_that_dropped_out(run: Path):
    local, final = local_models(run), load(run / "final_model.pt")

    assert set(local) == set(CASES) - {LOST}
    total = sum(CASES[site][0] for site in local)  # 3 + 1 + 2 + 1 = 7
    for name, value in final.items():
        mean = sum(local[site][name].astype(np.float64) * CASES[site][0] for site in local) / total
        np.testing.assert_allclose(value, mean, rtol=0, atol=1e-6)


def test_records_say_who_was_in_the_sum_and_updates_are_as_many_bytes_as_without_masks(run: Path):
    records = read_records(run / "rounds.jsonl")

    means = [record for record in records if record["phase"] == "mean"]
    assert [record["status"] for record in means] == ["ok", "ok"]
    for record in means:
        assert sum(record["shares"].values()) == pytest.approx(1, abs=1e-3)
        assert record["secure_aggregation"] == {
            "threshold": 4,
            "took_part": sorted(CASES),
            "dropped_out": [LOST],
            "false_shares": [],
            "keys_signed": False,  # a simulation has no certificates
            "max_update_ratio_checked_by_sites": 10.0,
        }
    done = [record for record in records if record["phase"] == "train" and record["status"] == "ok"]
    assert len(done) == 2 * 4
    assert all(record["bytes_up"] == record["bytes_down"] > 0 for record in done)
