"""What is said of the end of a curve, on curves made by hand."""

from __future__ import annotations

import pytest

from brats_fl_tools.report.curves import late_trend
from brats_fl_tools.report.figures import describe_trend


def curve(*values: float) -> list[tuple[int, float]]:
    return list(enumerate(values))


def test_trend_is_the_last_quarter_less_the_one_before():
    trend = late_trend(curve(*[0.1] * 6, 0.3, 0.5, 0.3, 0.6, 0.6, 0.6))

    assert trend is not None
    assert (trend.rounds, trend.gain) == (3, pytest.approx(0.6 - 1.1 / 3))
    # Differences .2 -.2 .3 0 0: mean .06, standard deviation .195; over root 2, times 2 root(2 / 3).
    assert trend.noise == pytest.approx(0.2251, abs=1e-4)
    assert trend.still_rises


def test_curve_that_only_jumps_up_and_down_does_not_rise():
    trend = late_trend(curve(*[0.5, 0.6] * 8))

    assert trend is not None
    assert not trend.still_rises
    assert "by chance: it is level at its end." in describe_trend(trend)


def test_curve_that_climbs_steadily_still_rises():
    trend = late_trend(curve(*[0.02 * index for index in range(20)]))

    assert trend is not None
    assert trend.still_rises
    assert describe_trend(trend) == (
        " Over the last 5 rounds the mean lies +0.100 from that of the 5 before, more than it moves by chance from "
        "round to round (0.000): more rounds may pay."
    )


def test_nothing_is_said_of_a_short_curve():
    assert late_trend(curve(*[0.1] * 11)) is None
    assert describe_trend(None) == ""
