"""The curves of a real run, against its round records."""

from __future__ import annotations

import importlib.util
from collections import defaultdict
from pathlib import Path
from statistics import fmean

import pytest
from tests.tracked_curves import Curves, read_event_files

from brats_fl.constants import SITES
from brats_fl.round_records import read_records
from brats_fl_tools.jobs.tracking import TRACKERS


def tracker_if_installed(name: str) -> str | None:
    """The tracker for a run that several tests look at; None where its package is not there, and its tests skip."""
    return name if importlib.util.find_spec(TRACKERS[name].package) else None


def curves_of_records(run: Path) -> Curves:
    """What a run's records hold of each curve, and the means, all hospitals having answered."""
    curves: Curves = defaultdict(lambda: defaultdict(list))
    for record in read_records(run / "rounds.jsonl"):
        if record["site"] not in SITES:  # the server's own line of a round
            continue
        values = {name: record[name] for name in ("loss", "seconds") if name in record} | record["metrics"]
        for name, value in values.items():
            curves[record["site"]][name].append((record["round"], value))
    names = dict.fromkeys(name for site in SITES for name in curves[site])
    steps = {name: sorted({step for site in SITES for step, _ in curves[site].get(name, [])}) for name in names}
    mean = {
        name: [(at, fmean(dict(curves[s][name])[at] for s in SITES if name in curves[s])) for at in steps[name]]
        for name in names
    }
    return {**{site: dict(curves[site]) for site in SITES}, "mean": mean}


def test_tensorboard_shows_the_run_folder_and_there_the_curves_of_the_records(run: Path) -> None:
    pytest.importorskip("tensorboard", reason="not installed: tensorboard")

    shown, recorded = read_event_files(run), curves_of_records(run)

    assert sorted(shown) == [*(f"tracking/{site}" for site in SITES), "tracking/mean"]
    for name, curves in recorded.items():
        assert shown[f"tracking/{name}"] == {
            curve: [(step, pytest.approx(value)) for step, value in points] for curve, points in curves.items()
        }  # event files hold float32
    dice = {"val_mean_dice", "val_dice_tc", "val_dice_wt", "val_dice_et"}
    assert set(shown["tracking/hospital-1"]) == {"loss", "seconds", *dice}
    assert set(shown["tracking/hospital-4"]) == {"loss", "seconds"}, "a hospital without validation cases has no Dice"
