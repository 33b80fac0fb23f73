"""Folders of a study as ``brats-fl study`` leaves them, made by hand: nothing is trained, every figure is given."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.run_folders import Row, write_rows, write_run
from tests.study_files import a_case

from brats_fl.cases.datalists import DATALIST_FILE, DataList, write_datalist
from brats_fl_tools.study.record import RunRecord, StatedThresholds, StudyRecord, write_record
from brats_fl_tools.study.thresholds import Thresholds

Dice = Mapping[str, Sequence[float]]
"""Hospital -> Dice of each test case, of every region."""


def even(level: float, cases: int = 6, spread: float = 0.02) -> list[float]:
    """So many figures around a level, alternately above and below."""
    return [round(level + (spread if number % 2 else -spread), 5) for number in range(cases)]


GOOD: Dice = {"hospital-1": even(0.8), "hospital-2": even(0.7)}


def rows_of(dice: Dice) -> list[Row]:
    """HD95 is 10 mm for each tenth that Dice lacks."""
    return [
        (f"{site}-{number}", site, "testing", (value,) * 3, (round(100 * (1 - value), 3),) * 3)
        for site, values in dice.items()
        for number, value in enumerate(values)
    ]


def write_study_folder(
    out: Path,
    federated: Sequence[Dice] = (GOOD,),
    local: Dice | None = None,
    central: Dice | None = None,
    without: Mapping[str, Dice] | None = None,
    thresholds: Thresholds | None = None,
    replaced: tuple[str, ...] = (),
    patients: Mapping[str, str] | None = None,
    **changes: Any,
) -> Path:
    """A study of one job with one federated run a seed, and the baselines that are given, of seed 0.

    Args:
        out: Folder to write.
        federated: Figures of each seed.
        local: Of each hospital's own model.
        central: Of the pooled model.
        without: Hospital -> figures of all cases under the model trained without it.
        thresholds: That were there before the first run.
        replaced: Digests of thresholds that those took the place of.
        patients: Case -> patient, where it is not its own.
        changes: Of the record.
    """
    sites = out.parent / "sites"
    lists = write_lists(sites, federated[0], patients or {})
    runs = [write_federated(out, sites, dice, seed, lists) for seed, dice in enumerate(federated)]
    if local is not None:
        runs.append(write_baseline(out, sites, "local", local, {site: {site: local[site]} for site in local}, lists))
    if central is not None:
        runs.append(write_baseline(out, sites, "central", central, {"pooled": central}, lists))
    if without is not None:
        parts = {f"without-{site}": dice for site, dice in without.items()}
        own = {site: dice[site] for site, dice in without.items()}
        runs.append(write_baseline(out, sites, "leave-one-out", own, parts, lists))
    told = ("thresholds.toml", "5e" * 32, "2026-01-01T00:00:00")
    stated = StatedThresholds(*told, thresholds, replaced) if thresholds else None
    record = {
        "name": "a study", "file": "study.toml", "sha256": "ab" * 32, "text": 'name = "a study"\n',
        "started": "2026-01-01T00:00:00", "runs": tuple(runs), "thresholds": stated,
        "versions": {"monai": "1.6.1"}, "machine": {"processor": "a CPU", "cores": 2},
    }  # fmt: skip
    write_record(out, StudyRecord(**{**record, **changes}))
    return out


def write_lists(sites: Path, dice: Dice, patients: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """Lists with the test cases; what ``run.json`` says of them."""
    for site, values in dice.items():
        names = [f"{site}-{number}" for number in range(len(values))]
        testing = tuple(a_case(name, patients.get(name, "")) for name in names)
        write_datalist(sites / site / DATALIST_FILE, DataList(site, (a_case(f"{site}-train"),), (), testing))
    return {site: {"training": f"{site} a", "validation": f"{site} b", "testing": f"{site} c"} for site in dice}


def a_run(sites: Path, kind: str, hospitals: Sequence[str], seed: int = 0, **changes: Any) -> RunRecord:
    """A finished run."""
    what = "unet" if kind == "federated" else f"brats_unet-{kind}"
    facts: dict[str, Any] = {
        "name": f"sites-{what}-seed{seed}", "kind": kind, "label": "unet", "job": "brats_unet_fedavg",
        "bundle": "brats_unet", "profile": "small", "rounds": 3, "seed": seed, "partition": "sites", "fold": None,
        "sites_dir": sites, "hospitals": tuple(hospitals), "values": {"seed": seed}, "steps": 60,
        "recipe_sha256": "00", "state": "finished", "seconds": 120.0,
    }  # fmt: skip
    return RunRecord(**{**facts, **changes})


def write_federated(out: Path, sites: Path, dice: Dice, seed: int, lists: Any) -> RunRecord:
    """The folder of a federated run, its word in the record."""
    run = a_run(sites, "federated", tuple(dice), seed)
    write_run(out / run.folder, rows_of(dice), lists=lists, sites_dir=str(sites), seed=seed, **_counts(dice))
    write_evaluation(out / run.folder)
    return run


def write_baseline(out: Path, sites: Path, kind: str, own: Dice, parts: Mapping[str, Dice], lists: Any) -> RunRecord:
    """The folder of a baseline with a run folder for each part, its word in the record."""
    run = a_run(sites, kind, tuple(own))
    for name, dice in parts.items():
        write_run(out / run.folder / name, rows_of(dice), **_counts(dice))
        write_evaluation(out / run.folder / name)
    (out / run.folder / "baseline.json").write_text(json.dumps({"lists": lists}), encoding="utf-8")
    write_rows(out / run.folder, rows_of(own))
    write_evaluation(out / run.folder)
    return run


def write_evaluation(run: Path, **changes: Any) -> None:
    """``evaluation.json`` of a folder."""
    facts = {"bundle": "brats_unet", "profile": "small", "seen_in_training": [], "synthetic_cases": 0}
    (run / "evaluation.json").write_text(json.dumps({**facts, **changes}), encoding="utf-8")


def _counts(dice: Dice) -> dict[str, Any]:
    return {"sites": {site: {"training": 4, "validation": 1, "testing": len(values)} for site, values in dice.items()}}
