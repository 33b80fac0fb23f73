"""A real federation in FLARE's simulator: a server and five sites, each a process of its own, on tiny cases."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
import pytest
import torch
from tests.tiny_sites import corrupt, make_tiny_sites

from brats_fl.bundle import build_network
from brats_fl.cases.datalists import read_datalist
from brats_fl.constants import REGIONS, SITES
from brats_fl.errors import DataListError, FolderError
from brats_fl.ledger import LEDGER_FILE, read_ledger
from brats_fl.round_records import read_records
from brats_fl_tools.jobs.assembly import JobOptions
from brats_fl_tools.ledger.command import judge
from brats_fl_tools.ledger.replay import replay_run
from brats_fl_tools.model.evaluate import evaluate_sites
from brats_fl_tools.report import write_report
from brats_fl_tools.repository import BUNDLES
from brats_fl_tools.runs.simulate import run_simulation
from brats_fl_tools.runs.simulator import POLLING_SECONDS

JOB = "brats_unet_fedavg"
TINY = {"patch_size": [32, 32, 32], "steps_per_epoch": 2, "batch_size": 1}
# Unequal on purpose: an average that forgets the weights is then another model.
CASES = {
    "hospital-1": (3, 1, 1),
    "hospital-2": (1, 1, 1),
    "hospital-3": (2, 1, 1),
    "hospital-4": (1, 0, 1),
    "hospital-5": (1, 1, 1),
}


def options(rounds: int) -> JobOptions:
    """A job small enough for a test."""
    return JobOptions("small", rounds, TINY, polling_seconds=POLLING_SECONDS)


def load(path: Path) -> dict[str, np.ndarray]:
    """Parameters of a checkpoint as arrays."""
    return {name: value.numpy() for name, value in torch.load(path, weights_only=True)["model"].items()}


def local_models(run: Path) -> dict[str, dict[str, np.ndarray]]:
    """What each site had trained when the run ended; it stays in the site's own folder."""
    return {path.parents[1].name: load(path) for path in run.glob("state/*/*/local_model.pt")}


def test_global_model_is_the_mean_of_the_local_models_weighted_by_cases(run: Path) -> None:
    local = local_models(run)
    final = load(run / "final_model.pt")

    assert sorted(local) == sorted(SITES)
    total = sum(CASES[site][0] for site in SITES)  # 3 + 1 + 2 + 1 + 1 = 8
    assert total == 8
    for name, value in final.items():
        mean = sum(local[site][name].astype(np.float64) * CASES[site][0] for site in SITES) / total
        np.testing.assert_allclose(value, mean, rtol=0, atol=1e-6)


def test_every_site_started_from_the_servers_random_weights_and_moved(run: Path) -> None:
    start = {k: v.numpy() for k, v in build_network(BUNDLES / "brats_unet", "small", seed=0).state_dict().items()}

    for site, model in local_models(run).items():
        moved = max(float(np.abs(model[name] - start[name]).max()) for name in start)
        # Two AdamW steps at 1e-3 move a parameter by about 2e-3, whatever its gradient.
        assert 1e-4 < moved < 5e-3, site


def test_records_hold_a_line_per_round_and_site_and_the_last_evaluation(run: Path) -> None:
    records = read_records(run / "rounds.jsonl")

    train = {record["site"]: record for record in records if record["phase"] == "train"}
    final = {record["site"]: record for record in records if record["phase"] == "final"}
    assert sorted(train) == sorted(final) == sorted(SITES)
    assert {site: record["cases"] for site, record in train.items()} == {site: CASES[site][0] for site in SITES}
    parameters = json.loads((run / "run.json").read_text(encoding="utf-8"))["parameters"]
    assert all(record["bytes_up"] == record["bytes_down"] == 4 * parameters for record in train.values())
    assert set(final["hospital-1"]["metrics"]) == {"val_mean_dice", *(f"val_dice_{region}" for region in REGIONS)}
    assert final["hospital-4"]["metrics"] == {}, "a site without validation cases reports none"


def test_ledger_of_a_simulated_run_holds_and_says_that_it_is_not_signed(run: Path) -> None:
    verdict = judge(run)

    assert verdict.problems == ()
    assert verdict.notes[0] == "1 rounds, 5 updates, 0 of them with a receipt that their site signed"


def test_model_of_a_simulated_run_comes_out_again_from_the_updates_that_were_kept(run: Path) -> None:
    lines = read_ledger(run / LEDGER_FILE)

    assert list(replay_run(run, lines)) == [f"round 0: 5 updates give the model {lines[1].model[:16]}"]


def test_run_evaluates_and_reports(run: Path) -> None:
    sites = Path(json.loads((run / "run.json").read_text(encoding="utf-8"))["sites_dir"])

    table = evaluate_sites(BUNDLES / "brats_unet", run / "global_model.pt", sites, run, "small", masks=True)
    write_report(run)

    assert len(table) == len(SITES) * 1 * len(REGIONS)
    assert list(pd.read_csv(run / "evaluation.csv").columns) == list(table.columns)
    for site in SITES:
        case = read_datalist(sites / site / "datalist.json").testing[0].case
        assert (run / "masks" / site / f"{case}_seg.nii.gz").is_file()
    metrics = json.loads((run / "metrics.json").read_text(encoding="utf-8"))
    assert sorted(metrics["sites"]) == sorted(SITES)
    assert metrics["overall"]["dice"]["wt"] == pytest.approx(table[table.region == "wt"].dice.mean(), abs=1e-4)
    assert {site: found["part"] for site, found in metrics["participants"].items()} == dict.fromkeys(SITES, "trained")
    evaluation = json.loads((run / "evaluation.json").read_text(encoding="utf-8"))
    assert set(evaluation["reliability"]) == set(table["site"])
    assert (evaluation["seen_in_training"], evaluation["synthetic_cases"]) == ([], 0)
    page = (run / "report.html").read_text(encoding="utf-8")
    assert "that it never saw in training" in page
    assert "data:image/jpeg" in page
    assert "a 3D U-Net [1] with residual units [2]" in page  # from the bundle that the job brought


def test_finished_run_is_kept_without_force(run: Path) -> None:
    sites = Path(json.loads((run / "run.json").read_text(encoding="utf-8"))["sites_dir"])

    with pytest.raises(FolderError, match="it holds a run; choose another --out or add --force"):
        run_simulation(JOB, sites, run, options(rounds=1))


def test_site_without_a_data_list_is_named_and_nothing_starts(tmp_path: Path) -> None:
    sites = make_tiny_sites(tmp_path / "sites", {"hospital-1": (1, 0, 0)})
    two = replace(options(rounds=1), sites=("hospital-1", "hospital-5"))

    with pytest.raises(DataListError, match=r"hospital-5/datalist\.json: no such data list"):
        run_simulation(JOB, sites, tmp_path / "run", two)

    assert not (tmp_path / "run").exists()


def test_run_folder_whose_path_flare_would_split_is_refused_and_nothing_starts(run: Path, tmp_path: Path) -> None:
    with pytest.raises(FolderError, match="the path of the run folder holds a space"):
        run_simulation(JOB, run.parent / "sites", tmp_path / "my run", options(rounds=1))

    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_one_hospital_alone_takes_the_same_way(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sites = make_tiny_sites(tmp_path / "sites", {"Praxis_Nord": (1, 1, 0)})

    job = run_simulation(JOB, sites, tmp_path / "run", options(rounds=1))

    assert f"1 hospital of {sites} takes part in place of the job's five: Praxis_Nord\n" in capsys.readouterr().out
    assert (job.sites, job.variables["min_clients"]) == (("Praxis_Nord",), 1)
    local, final = local_models(tmp_path / "run")["Praxis_Nord"], load(tmp_path / "run" / "final_model.pt")
    for name, value in final.items():
        np.testing.assert_allclose(value, local[name], rtol=0, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("count", [3, 7])
def test_as_many_hospitals_run_as_the_folder_has(count: int, tmp_path: Path) -> None:
    names = [f"hospital-{number}" for number in range(1, count + 1)]
    sites = make_tiny_sites(tmp_path / "sites", dict.fromkeys(names, (1, 1, 0)))

    job = run_simulation(JOB, sites, tmp_path / "run", options(rounds=1))

    records = read_records(tmp_path / "run" / "rounds.jsonl")
    assert sorted((r["phase"], r["site"], r["status"]) for r in records) == [
        *(("final", name, "ok") for name in names),
        *(("train", name, "ok") for name in names),
    ]
    assert job.variables["min_clients"] == count - 1
    assert sorted(json.loads((tmp_path / "run" / "run.json").read_text())["sites"]) == names


@pytest.mark.slow  # the drill has it, too
def test_four_sites_finish_when_a_case_of_the_fifth_is_corrupt(tmp_path: Path) -> None:
    sites = make_tiny_sites(tmp_path / "sites", dict.fromkeys(SITES, (1, 1, 0)))
    scan = Path(read_datalist(sites / "hospital-3" / "datalist.json").training[0].image[2])
    corrupt(scan)

    run_simulation(JOB, sites, tmp_path / "run", options(rounds=2))

    records = read_records(tmp_path / "run" / "rounds.jsonl")
    assert {r["status"] for r in records if r["site"] == "hospital-3" and r["phase"] == "train"} == {"CASE_ERROR"}
    honest = [r for r in records if r["site"] != "hospital-3" and r["phase"] == "train"]
    assert [r["status"] for r in honest] == ["ok"] * 8  # four sites, two rounds
    assert scan.name not in (tmp_path / "run" / "rounds.jsonl").read_text(encoding="utf-8")
    left = [p for p in psutil.process_iter(["cmdline"]) if str(tmp_path) in " ".join(p.info["cmdline"] or [])]
    assert left == []
    shutil.rmtree(tmp_path / "run")
