from __future__ import annotations

import numpy as np
import pytest

from brats_fl_tools.bench.compression import measure_compression
from brats_fl_tools.bench.evaluation import Evaluation, compare_networks
from brats_fl_tools.bench.handing_over import PARAMETERS, measure_handing_over
from brats_fl_tools.bench.masking import measure_masks
from brats_fl_tools.bench.rounds import round_starts

LOG = """2026-11-24 21:33:24,770 - ScatterAndGather - INFO - [identity=s, wf=scatter_and_gather] - Round 1 started.
2026-11-24 21:33:25,020 - ScatterAndGather - INFO - [identity=s, wf=scatter_and_gather] - Round 1 finished.
2026-11-24 21:33:26,270 - ScatterAndGather - INFO - [identity=s, wf=scatter_and_gather] - Round 2 started.
"""


def test_round_s_wall_time_is_from_its_start_to_the_next():
    starts = round_starts(LOG)

    assert sorted(starts) == [1, 2]
    assert starts[2] - starts[1] == pytest.approx(1.5)


def test_masks_are_as_many_bytes_as_the_update_and_round_it_by_less_than_a_millionth():
    small, large = measure_masks(1_000), measure_masks(50_000)

    # The messages are the same for both, a few kB; the masked words are as many bytes as the float32 values.
    assert small.bytes_ratio - 1 == pytest.approx(50 * (large.bytes_ratio - 1), rel=0.05)
    assert large.message_bytes < 20_000
    assert 0 < large.error < 1e-6


def test_int8_takes_a_quarter_of_a_message_and_hardly_turns_the_update():
    like = {"conv.weight": np.zeros((64, 64, 27), np.float32), "prelu": np.zeros(1, np.float32)}

    half, quarter = measure_compression(like, "float16"), measure_compression(like, "int8")

    assert half.message_ratio == pytest.approx(0.5, abs=0.01)
    assert 0.25 <= quarter.message_ratio <= 0.27  # 260 bytes in place of 1,024, and FLARE's own
    assert 0.9995 < quarter.cosine < half.cosine <= 1


def test_model_in_shared_memory_costs_a_core_less_than_one_in_a_pickle():
    found = measure_handing_over(PARAMETERS)

    assert 0 < found.handed_seconds < found.pickled_seconds


def test_engine_s_share_is_what_is_left_of_its_time_when_the_rest_takes_as_long_as_with_torch():
    by_torch = Evaluation(dice=0.8, seconds_per_case=9.0, cpu_seconds_per_case=10.0, network_share=0.6)  # 6 s and 4 s
    by_other = Evaluation(dice=0.8, seconds_per_case=5.0, cpu_seconds_per_case=6.0)  # 2 s and 4 s

    assert compare_networks(by_torch, by_other) == pytest.approx((1 / 3, 3.0))
