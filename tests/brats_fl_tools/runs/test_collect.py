"""From what a server kept to a run folder."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from brats_fl.round_records import read_records
from brats_fl_tools.jobs.assembly import JobOptions
from brats_fl_tools.jobs.built import BuiltJob
from brats_fl_tools.runs.collect import Best, choose_best, collect, collect_interrupted, is_finished
from brats_fl_tools.runs.submission import Part, Submission, state_run


def record(phase: str, round_index: int, site: str, dice: float | None = None, status: str = "ok") -> dict[str, Any]:
    metrics = {} if dice is None else {"val_mean_dice": dice}
    return {"phase": phase, "round": round_index, "site": site, "status": status, "cases": 2, "metrics": metrics}


def job(start_round: int, num_rounds: int) -> BuiltJob:
    variables = {"start_round": start_round, "num_rounds": num_rounds, "profile": "small", "local_epochs": 1, "seed": 0}
    return BuiltJob(Path("job"), "brats_unet_fedavg", "brats_unet", ("hospital-1",), variables, "0123")


def model(value: float) -> dict[str, Any]:
    return {"model": {"w": torch.full((2, 3), value)}}


def test_best_model_is_the_one_with_the_highest_mean_and_random_weights_are_none():
    records = [record("train", r, s, dice) for r, dice in ((0, 0.9), (1, 0.5), (2, 0.7), (3, 0.6)) for s in ("a", "b")]

    assert choose_best([], [*records, record("final", 4, "a", 0.65)]) == Best("later", 2)
    assert choose_best([], [*records, record("final", 4, "a", 0.7)]) == Best("final", 4)  # among equals the latest
    assert choose_best([], [record("train", 0, "a")]) == Best("final", -1)  # no validation case


def test_given_start_that_training_made_worse_is_the_best_model():
    records = [record("train", 0, "a", 0.7), record("train", 1, "a", 0.5), record("final", 2, "a", 0.6)]

    assert choose_best([], records, start_given=True) == Best("later", 0)
    assert choose_best(records[:1], records[1:], start_given=True) == Best("earlier", 0)
    assert choose_best([], [*records, record("final", 2, "b", 0.9)], start_given=True) == Best("final", 2)


def test_best_model_of_a_resumed_run_may_be_from_before_it():
    earlier = [record("train", 1, "a", 0.8)]
    later = [record("train", 2, "a", 0.9), record("train", 3, "a", 0.7), record("final", 4, "a", 0.6)]

    assert choose_best(earlier, later) == Best("later", 2)  # round 2 began the second job, with a trained model
    assert choose_best(earlier, later[1:]) == Best("earlier", 1)


def test_site_that_failed_has_no_say_in_the_best_model():
    records = [record("train", 1, "a", 0.5), record("train", 1, "b", 0.9, "CASE_ERROR"), record("final", 2, "a", 0.6)]

    assert choose_best([], records) == Best("final", 2)


def write_records(folder: Path, *records: dict[str, Any]) -> Path:
    (folder / "rounds.jsonl").write_text("".join(json.dumps(line) + "\n" for line in records), encoding="utf-8")
    return folder


def test_run_is_finished_when_a_record_of_its_last_round_is_there(tmp_path: Path):
    folder = write_records(tmp_path, record("train", 4, "a"))

    assert is_finished(job(0, 5), folder)
    assert is_finished(job(3, 2), folder)
    assert not is_finished(job(0, 6), folder)
    assert not is_finished(job(0, 5), write_records(tmp_path, record("final", 5, "a")))


def test_job_that_trains_nothing_is_finished_when_its_result_is_there(tmp_path: Path):
    counting = replace(job(0, 5), bundle=None, result="statistics.json")

    assert not is_finished(counting, write_records(tmp_path, record("train", 4, "a")))
    (tmp_path / "statistics.json").write_text("{}", encoding="utf-8")
    assert is_finished(counting, tmp_path)


def test_resumed_run_keeps_the_records_and_the_best_model_from_before_it(tmp_path):
    run, server = tmp_path / "run", tmp_path / "server"
    (run / "earlier").mkdir(parents=True)
    (server / "app_server").mkdir(parents=True)
    earlier = [record("train", r, "a", dice) for r, dice in ((0, 0.1), (1, 0.8), (2, 0.2))]  # round 2 was done again
    lines = [record("train", 2, "a", 0.3), record("train", 3, "a", 0.4), record("final", 4, "a", 0.5)]
    (run / "earlier" / "rounds.jsonl").write_text("".join(json.dumps(r) + "\n" for r in earlier), encoding="utf-8")
    (server / "rounds.jsonl").write_text("".join(json.dumps(r) + "\n" for r in lines), encoding="utf-8")
    torch.save(model(1), run / "earlier" / "best_FL_global_model.pt")
    torch.save(model(2), server / "app_server" / "best_FL_global_model.pt")
    torch.save(model(3), server / "app_server" / "FL_global_model.pt")

    options = JobOptions(values={"start_round": 2})
    earlier = (Part("2026-11-24T20:00:00+00:00", 100.0, 0, "0f7a"),)
    later = Submission(
        "unet", "unet", "2026-11-24T21:00:00+00:00", options, {"mode": "federation"}, "kit", "1b2c", earlier
    )
    collect(run, server, job(2, 2), later, 50.0, {"status": "FINISHED:COMPLETED"})

    assert [r["round"] for r in read_records(run / "rounds.jsonl")] == [0, 1, 2, 3, 4]
    assert torch.load(run / "global_model.pt")["model"]["w"][0, 0] == 1
    assert torch.load(run / "final_model.pt")["model"]["w"][0, 0] == 3
    facts = json.loads((run / "run.json").read_text(encoding="utf-8"))
    assert (facts["rounds"], facts["best_round"], facts["parameters"]) == (4, 1, 6)
    assert (facts["started"], facts["seconds"], facts["state"]) == ("2026-11-24T20:00:00+00:00", 150.0, "finished")
    assert facts["parts"] == [
        {"started": "2026-11-24T20:00:00+00:00", "seconds": 100.0, "first_round": 0, "job_id": "0f7a"},
        {"started": "2026-11-24T21:00:00+00:00", "seconds": 50.0, "first_round": 2, "job_id": "1b2c"},
    ]


def test_interrupted_run_keeps_the_rounds_that_were_done_and_says_so(tmp_path: Path):
    run, server = tmp_path / "run", tmp_path / "server"
    run.mkdir()
    (server / "app_server").mkdir(parents=True)
    write_records(server, record("train", 0, "a"), record("train", 1, "a", 0.4), record("train", 2, "a", 0.6))
    torch.save({**model(2), "rounds_done": 2}, server / "app_server" / "FL_global_model.pt")

    done = collect_interrupted(run, server, job(0, 5), Submission("unet", "unet", "2026-11-24T20:00:00+00:00"), 30.0)

    assert done == 2
    assert [r["round"] for r in read_records(run / "rounds.jsonl")] == [0, 1]
    assert torch.load(run / "final_model.pt")["model"]["w"][0, 0] == 2
    facts = json.loads((run / "run.json").read_text(encoding="utf-8"))
    assert (facts["state"], facts["rounds_done"], facts["rounds"], facts["seconds"]) == ("interrupted", 2, 5, 30.0)


def test_run_that_is_interrupted_before_a_round_is_done_keeps_nothing_but_that(tmp_path: Path):
    done = collect_interrupted(tmp_path, tmp_path / "server", job(0, 5), Submission("unet", "unet", ""), 3.0)

    assert done == 0
    assert [path.name for path in tmp_path.iterdir()] == ["run.json"]
    assert json.loads((tmp_path / "run.json").read_text(encoding="utf-8"))["state"] == "interrupted"


def test_run_tells_the_servers_machine_and_the_commit_that_its_job_was_built_at(tmp_path: Path):
    (server := tmp_path / "server").mkdir()
    submission = replace(Submission("unet", "unet", "2026-11-24T20:00:00+00:00"), commit="0123abcd")
    state_run(tmp_path, job(0, 5), submission, "running", 0.0, {})
    assert "machine" not in json.loads((tmp_path / "run.json").read_text())  # the command's own is not the server's

    (server / "machine.json").write_text('{"processor": "Some CPU", "gpus": []}')
    state_run(tmp_path, job(0, 5), submission, "finished", 9.0, {})

    facts = json.loads((tmp_path / "run.json").read_text())
    assert facts["machine"] == {"processor": "Some CPU", "gpus": []}
    assert facts["commit"] == "0123abcd"
