from __future__ import annotations

import pytest

from brats_fl_tools.bench.rounds import round_starts

LOG = """2026-11-24 21:33:24,770 - ScatterAndGather - INFO - [identity=s, wf=scatter_and_gather] - Round 1 started.
2026-11-24 21:33:25,020 - ScatterAndGather - INFO - [identity=s, wf=scatter_and_gather] - Round 1 finished.
2026-11-24 21:33:26,270 - ScatterAndGather - INFO - [identity=s, wf=scatter_and_gather] - Round 2 started.
"""


def test_round_s_wall_time_is_from_its_start_to_the_next():
    starts = round_starts(LOG)

    assert sorted(starts) == [1, 2]
    assert starts[2] - starts[1] == pytest.approx(1.5)
