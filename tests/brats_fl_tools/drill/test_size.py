"""The study of twenty hospitals, before it is run."""

from __future__ import annotations

import numpy as np
import pytest
from nvflare.apis.dxo import DXO, DataKind, MetaKey, from_shareable
from nvflare.apis.fl_context import FLContext
from nvflare.apis.signal import Signal
from tests.tiny_network import tiny_model
from tests.tiny_sites import make_tiny_sites

from brats_fl.aggregation import check_update
from brats_fl_tools.drill.faults.size import slope, write_study
from brats_fl_tools.drill.stand_in import StandIn
from brats_fl_tools.jobs.assembly import JobOptions, build_job


def test_slope_is_the_growth_by_round_of_the_nearest_line():
    assert slope([5, 6, 7, 8], [100, 102, 104, 106]) == pytest.approx(2)
    assert slope([5, 6, 7, 8], [100, 103, 100, 103]) == pytest.approx(0.6)  # (2.25 - .75 - .75 + 2.25) / 5


def test_study_is_a_job_with_a_tiny_network_and_a_hospital_for_each_name(tmp_path):
    sites = make_tiny_sites(tmp_path / "sites", {"hospital-1": (1, 1, 0)})
    names = ["clinic-01", "clinic-02"]

    job = write_study(tmp_path / "study", sites / "hospital-1" / "datalist.json", names)
    built = build_job(job, tmp_path / "out", JobOptions("tiny", 2))

    assert built.sites == ("clinic-01", "clinic-02")
    assert (built.total_rounds, built.variables["min_clients"]) == (2, 2)
    assert sorted(path.parent.name for path in (tmp_path / "study" / "sites").glob("*/datalist.json")) == names


def test_stand_in_answers_with_an_update_that_the_server_accepts():
    model = tiny_model()
    task = DXO(DataKind.WEIGHTS, data=dict(model)).to_shareable()

    answer = from_shareable(StandIn().execute("train", task, FLContext(), Signal()))

    check_update(answer.data, model)
    assert answer.get_meta_prop(MetaKey.NUM_STEPS_CURRENT_ROUND) == 1
    assert 0 < float(np.abs(answer.data["model.0.conv.unit0.conv.weight"]).mean()) < 2e-3
