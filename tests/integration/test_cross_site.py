"""Cross-site evaluation in FLARE's simulator: three hospitals train, then each one's model is scored at each."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from tests.integration.test_federation import local_models, options
from tests.tiny_sites import make_tiny_sites

from brats_fl.round_records import read_records
from brats_fl.sharing.cross_site import CROSS_SITE_FILE, RULES_FILE, CrossSite, read_cross_site
from brats_fl.sharing.site_statistics import MIN_CASES_VARIABLE
from brats_fl_tools.jobs.assembly import JobOptions
from brats_fl_tools.runs.simulate import run_simulation
from brats_fl_tools.runs.simulator import POLLING_SECONDS

pytestmark = pytest.mark.slow

CASES = {"hospital-1": (2, 1, 2), "hospital-2": (1, 2, 1), "hospital-3": (1, 1, 0)}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The hospitals, and a training of theirs; hospital-3 keeps its model, hospital-1 allows test cases."""
    root = tmp_path_factory.mktemp("cross-site")
    sites = make_tiny_sites(root / "sites", CASES)
    (sites / "hospital-1" / RULES_FILE).write_text(json.dumps({"score_test_cases": True}))
    (sites / "hospital-3" / RULES_FILE).write_text(json.dumps({"send_local_model": False}))
    run_simulation("brats_unet_fedavg", sites, root / "trained", replace(options(rounds=1), sites=tuple(CASES)))
    return sites, root / "trained"


def evaluate(folders: tuple[Path, Path], run: Path, **values: str) -> CrossSite:
    sites, trained = folders
    asked = JobOptions(values=values, sites=tuple(CASES), polling_seconds=POLLING_SECONDS, of_run=trained)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(MIN_CASES_VARIABLE, "2")
        run_simulation("brats_cross_site", sites, run, asked)
    return read_cross_site(run / CROSS_SITE_FILE)


def test_each_model_is_scored_at_each_hospital_but_the_one_that_its_hospital_keeps(folders, tmp_path: Path) -> None:
    _, trained = folders

    matrix = evaluate(folders, tmp_path / "run")

    # one round: the best model is the final one, as the only one that is not random
    assert [(row.kind, row.model, row.status) for row in matrix.rows] == [
        ("global", "final", "ok"),
        ("local", "hospital-1", "ok"),
        ("local", "hospital-2", "ok"),
        ("local", "hospital-3", "NOT_SHARED"),
    ]
    scored = [row for row in matrix.rows if row.status == "ok"]
    cells = {(row.model, site): cell for row in scored for site, cell in row.cells.items()}
    assert len(cells) == 3 * 3
    assert {site: cell.scores.cases for (_, site), cell in cells.items() if cell.scores} == {
        site: counts[1] for site, counts in CASES.items()
    }
    final = {r["site"]: r["metrics"] for r in read_records(trained / "rounds.jsonl") if r["phase"] == "final"}
    for site in CASES:
        scores = cells["final", site].scores
        assert scores is not None
        assert scores.dice == {region: final[site][f"val_dice_{region}"] for region in scores.dice}, (
            "the training's own"
        )
    told = read_records(tmp_path / "run" / "rounds.jsonl")
    assert sum(line["phase"] == "score_model" and line["status"] == "ok" for line in told) == 3 * 3
    assert sorted(local_models(trained)) == sorted(CASES), "each has one, hospital-3, too"


def test_test_cases_are_scored_where_the_hospital_allows_it_and_nowhere_else(folders, tmp_path: Path) -> None:
    matrix = evaluate(folders, tmp_path / "run", split="testing")

    cells = matrix.rows[0].cells
    assert matrix.split == "testing"
    assert {site: cell.status for site, cell in cells.items()} == {
        "hospital-1": "ok",
        "hospital-2": "NOT_SHARED",
        "hospital-3": "NOT_SHARED",
    }
    assert cells["hospital-1"].scores is not None
    assert cells["hospital-1"].scores.cases == CASES["hospital-1"][2]
