"""What a hospital releases is typed at the server before FLARE's controller adds it up."""

from __future__ import annotations

from typing import Any

import pytest
from nvflare.apis.dxo import DXO, DataKind
from nvflare.apis.fl_constant import ReturnCode
from nvflare.apis.fl_context import FLContext
from nvflare.apis.shareable import Shareable, make_reply
from nvflare.app_common.abstract.statistics_spec import Bin, Histogram, HistogramType
from nvflare.app_common.app_constant import StatisticsConstants as Names
from nvflare.app_common.statistics.statisitcs_objects_decomposer import fobs_registration
from nvflare.fuel.utils import fobs

from brats_fl.components.executor import ERROR_HEADER
from brats_fl.components.statistics import DATASET, ReleaseFilter
from brats_fl.sharing.case_features import feature_of

VOXELS = feature_of("voxel_mm")
fobs_registration()  # as FLARE's controller does, so that histograms can be sent


def answer(told: Any, task: str = Names.STATS_1st_STATISTICS) -> Shareable:
    """A site's answer to a task of FLARE's statistics controller."""
    data = {Names.STATISTICS_TASK_KEY: task, task: fobs.dumps(told)}
    return DXO(DataKind.STATISTICS, data=data).to_shareable()


def histogram(counts: list[Any], shift: float = 0.0) -> Histogram:
    """Of the voxel size, whose 24 bins are a quarter of a millimetre wide."""
    edges = (VOXELS.edges + shift).tolist()
    bins = [Bin(low, high, count) for low, high, count in zip(edges[:-1], edges[1:], counts, strict=False)]
    return Histogram(HistogramType.STANDARD, bins)


def filtered(shareable: Shareable) -> tuple[str, str | None]:
    """Return code and code of the failure after the filter."""
    result = ReleaseFilter().process(shareable, FLContext())
    return result.get_return_code(), result.get_header(ERROR_HEADER)


GOOD = {"count": {DATASET: {"t1c": 12, "voxel_mm": 12}}, "sum": {DATASET: {"t1c": 90.5}}}


def test_statistics_pass_as_they_are():
    shareable = answer(GOOD)

    assert ReleaseFilter().process(shareable, FLContext()) is shareable


def test_histogram_with_the_bins_of_its_feature_passes():
    told = {"histogram": {DATASET: {"voxel_mm": histogram([1.5] * 24)}}}

    assert filtered(answer(told, Names.STATS_2nd_STATISTICS)) == (ReturnCode.OK, None)


@pytest.mark.parametrize(
    "told",
    [
        {"count": {DATASET: {"t1c": "canary"}}},
        {"count": {DATASET: {"t1c": ["canary"]}}},
        {"sum": {DATASET: {"t1c": 1.7e308}}},
        {"sum": {DATASET: {"t1c": float("nan")}}},
        {"count": {DATASET: {"patient's name": 1}}},
        {"count": {"another data set": {"t1c": 1}}},
        {"canary": {DATASET: {"t1c": 1}}},
        {"count": "canary"},
        {"histogram": {DATASET: {"voxel_mm": 3}}},
        {"histogram": {DATASET: {"voxel_mm": histogram([1] * 23)}}},
        {"histogram": {DATASET: {"voxel_mm": histogram(["canary"] * 24)}}},
        {"histogram": {DATASET: {"voxel_mm": histogram([1] * 24, shift=0.1)}}},
        "canary",
    ],
)
def test_what_is_no_statistics_becomes_a_failure_of_the_site(told):
    assert filtered(answer(told)) == (ReturnCode.EXECUTION_RESULT_ERROR, "STATISTICS_ERROR")


def test_bytes_that_flare_cannot_read_become_a_failure_of_the_site():
    task = Names.STATS_1st_STATISTICS
    data = {Names.STATISTICS_TASK_KEY: task, task: b"canary"}

    assert filtered(DXO(DataKind.STATISTICS, data=data).to_shareable())[0] == ReturnCode.EXECUTION_RESULT_ERROR


def test_failure_of_a_site_stays_what_it_is():
    shareable = make_reply(ReturnCode.EXECUTION_EXCEPTION)

    assert ReleaseFilter().process(shareable, FLContext()) is shareable
