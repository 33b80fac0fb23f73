"""The page of hospitals' noised statistics: what is noise is grey, and said to be so."""

from __future__ import annotations

import html
import json
import re
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from brats_fl.sharing.case_features import FEATURES, feature_of
from brats_fl.sharing.site_statistics import QUESTIONS, nearest_histogram
from brats_fl_tools.report.statistics_page import (
    CHANCE,
    DATASET,
    Column,
    histogram_diagram,
    noise_ceiling,
    read_noise,
    render_statistics,
    stands_out,
)


def write_statistics(run: Path, cases: dict[str, int], epsilons: dict[str, float]) -> Path:
    """A statistics run as FLARE's server leaves it: all cases of a hospital in the third bin, two in the first."""
    run.mkdir()
    sites = {**cases, "Global": sum(cases.values())}
    content = {
        feature.name: {
            "count": {site: {DATASET: count} for site, count in sites.items()},
            "mean": {site: {DATASET: 1.0} for site in sites},
            "stddev": {site: {DATASET: 1.0} for site in sites},
            "histogram": {
                site: {DATASET: [[0, 1, 2.0], [1, 2, 0.0], [2, 3, count - 2.0], *[[3, 4, 0.0]] * (feature.bins - 3)]}
                for site, count in sites.items()
            },
        }
        for feature in FEATURES
    }
    (run / "statistics.json").write_text(json.dumps(content))
    facts = {"job": "brats_statistics", "mode": "poc", "started": "2026-11-28T21:00:00", "content_hash": "0" * 64}
    (run / "run.json").write_text(json.dumps({**facts, "versions": {"brats_fl": "0.1.0"}}))
    lines = [
        {"phase": "statistics", "round": 0, "site": site, "status": "ok", "epsilon": epsilon}
        for site, epsilon in epsilons.items()
    ]
    lines.append({"phase": "fed_stats_pre_run", "round": 0, "site": "hospital-4", "status": "TOO_FEW_CASES"})
    (run / "rounds.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return run


def test_ceiling_is_the_level_that_noise_alone_passes_in_one_release_of_twenty() -> None:
    # 168 bins x exp(-t) / 2 = 0.05 at t = ln 1680
    assert noise_ceiling(1.0) == pytest.approx(np.log(1680))
    assert noise_ceiling(2.0) == pytest.approx(2 * np.log(1680))


@pytest.mark.parametrize("cases", [0, 20])
def test_released_bins_without_a_case_pass_the_ceiling_as_seldom_as_said(cases: int) -> None:
    rng, scale, releases = np.random.default_rng(0), 1.0, 1000
    passed = 0
    for _ in range(releases):
        noised = max(cases + rng.laplace(0, scale), 1.0)
        empty = [release_empty_bins(rng, feature.bins, cases, scale, noised) for feature in FEATURES]
        passed += bool(np.concatenate(empty).max() > noise_ceiling(scale))

    assert passed / releases <= CHANCE


def release_empty_bins(
    rng: np.random.Generator, bins: int, cases: int, scale: float, noised: float
) -> npt.NDArray[np.float64]:
    """What a hospital releases of the bins without a case of a histogram whose cases are all in one."""
    truth = np.zeros(bins)
    truth[3] = cases
    return np.delete(nearest_histogram(truth + rng.laplace(0, scale, bins), noised), 3)


def test_bins_below_the_ceiling_do_not_stand_out() -> None:
    counts = [0.0, 7.0, 8.0, *[0.0] * 21]  # ln 1680 = 7.43

    assert np.flatnonzero(stands_out(counts, 1.0)).tolist() == [2]
    assert np.flatnonzero(stands_out(counts, 0.5)).tolist() == [1, 2]
    assert np.flatnonzero(stands_out(counts, None)).tolist() == [1, 2]  # the noise is not known


def test_noise_follows_from_the_epsilon_that_a_hospital_told() -> None:
    records = [{"site": "a", "status": "ok", "epsilon": QUESTIONS / 2}, {"site": "b", "status": "TOO_FEW_CASES"}]

    assert read_noise(records) == {"a": 2.0}


def test_diagram_has_grey_points_below_the_ceiling_and_no_line_between_points() -> None:
    feature = feature_of("t1c")
    counts = [2.0, 0.0, 30.0, 40.0, 30.0, 20.0, *[0.0] * 18]
    names = dict.fromkeys([feature.name], 1.0)
    drawn = str(histogram_diagram(feature, [Column("a", 122, names, names, {feature.name: counts}, 1.0)]).svg)

    assert "mean 1, 4 of 24 bins above the noise" in drawn
    assert "may be noise alone" in drawn
    steps = [path.count("L") for path in re.findall(r'<path d="([^"]*)"[^>]*stroke: #0072b2', drawn)]
    assert max(steps) <= 1  # the noise of a point, from below it to above; four points joined would be three steps


def test_page_says_what_is_grey_by_which_rule_and_who_told_no_noise(tmp_path: Path) -> None:
    cases = {"hospital-1": 30, "hospital-2": 30, "hospital-3": 19}
    run = write_statistics(tmp_path / "run", cases, {"hospital-1": 9.0, "hospital-2": 4.5})

    page = render_statistics(run)

    text = " ".join(html.unescape(re.sub(r"<[^>]*>", " ", page)).split())
    # hospital-2's noise is twice the default: 30 cases are fewer than 2 x 20
    assert "mostly noise, for lack of cases, and grey in the tables: hospital-2, hospital-3." in text
    assert page.count('<tr class="noise">') == 2 * 2  # in both tables
    assert "up to 7.4 cases (noise of scale 1), 14.9 cases (noise of scale 2)." in text
    assert "How much noise is in it was not told by hospital-3" in text
    assert "hospital-4 sent nothing: it has fewer cases than its own rule asks for" in text
    assert "hospital-1 sent nothing" not in text
