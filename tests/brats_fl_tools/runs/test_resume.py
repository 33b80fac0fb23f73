"""Going on with a lost job, as far as it needs no server; the drill does it with one."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from brats_fl.errors import ModelError, RunError
from brats_fl.round_records import read_records
from brats_fl_tools.jobs.assembly import JobOptions, build_job
from brats_fl_tools.jobs.built import BuiltJob, describe_job
from brats_fl_tools.runs import resume
from brats_fl_tools.runs.collect import keep_earlier_part
from brats_fl_tools.runs.resume import find_server_files
from brats_fl_tools.runs.submission import Part, Submission, begin, read_submission, seconds_until_lost
from brats_fl_tools.runs.submit import collect_run


def line(round_index: int, dice: float, phase: str = "train") -> dict[str, Any]:
    metrics = {"val_mean_dice": dice}
    return {"phase": phase, "round": round_index, "site": "a", "status": "ok", "metrics": metrics}


def lost_job(folder: Path, rounds_done: int, lines: list[dict[str, Any]], best: float | None = None) -> Path:
    """What a server kept of a job; weights are the number of rounds, so that they can be told apart."""
    app = folder / "app_server"
    app.mkdir(parents=True)
    model = {"model": {"w": torch.tensor([float(rounds_done)])}, "rounds_done": rounds_done}
    torch.save(model, app / "FL_global_model.pt")
    if best is not None:
        torch.save({"model": {"w": torch.tensor([best])}}, app / "best_FL_global_model.pt")
    (folder / "rounds.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in lines), encoding="utf-8")
    return folder


def weight(path: Path) -> float:
    return float(torch.load(path)["model"]["w"])


def submission(kit: Path) -> Submission:
    options = JobOptions("small", 4, {"steps_per_epoch": 2}, preinstalled=True, checkpoint=Path("/x/model.pt"))
    return Submission(
        job="brats_unet_fedavg",
        source="brats_unet_fedavg",
        started="2026-11-24T20:00:00+00:00",
        options=options,
        facts={"mode": "federation"},
        kit=str(kit),
        job_id="0f7a",
        earlier=(Part("2026-11-23T20:00:00+00:00", 70.5, 0, "9854"),),
    )


def built_job() -> BuiltJob:
    return BuiltJob(Path("job"), "brats_unet_fedavg", None, ("a",), {}, "0123")


def test_submission_reads_back_as_it_was_written(tmp_path):
    begin(tmp_path, built_job(), submission(tmp_path / "kit"))

    assert read_submission(tmp_path) == submission(tmp_path / "kit")


def test_folder_without_a_submission_and_a_damaged_one_are_named(tmp_path):
    with pytest.raises(RunError, match=r"submission\.json: not there; give the run folder of a job that was started"):
        read_submission(tmp_path)
    (tmp_path / "submission.json").write_text("{}", encoding="utf-8")
    with pytest.raises(RunError, match=r"submission\.json: has no 'job'; it is damaged"):
        read_submission(tmp_path)


def test_rounds_that_were_done_are_kept_and_the_one_that_was_lost_is_not(tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    files = lost_job(tmp_path / "server", 2, [line(0, 0.1), line(1, 0.2), line(2, 0.3)], best=1.0)

    assert keep_earlier_part(run, files) == 2

    assert [entry["round"] for entry in read_records(run / "earlier" / "rounds.jsonl")] == [0, 1]
    assert weight(run / "earlier" / "last_model.pt") == 2
    assert weight(run / "earlier" / "best_FL_global_model.pt") == 1


@pytest.mark.parametrize(("digest", "kept"), [("0123", True), (None, False)], ids=["given", "random"])
def test_first_model_of_a_lost_job_is_kept_as_the_best_only_where_it_was_given(digest, kept, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    (run / "run.json").write_text(json.dumps({"start_sha256": digest} if digest else {}), encoding="utf-8")

    keep_earlier_part(run, lost_job(tmp_path / "server", 1, [line(0, 0.9), line(1, 0.2)], best=1.0))

    assert (run / "earlier" / "best_FL_global_model.pt").is_file() == kept


def test_job_that_was_lost_twice_keeps_all_rounds_and_the_better_of_the_two_best_models(tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    keep_earlier_part(run, lost_job(tmp_path / "first", 2, [line(0, 0.1), line(1, 0.9), line(2, 0.3)], best=10.0))

    done = keep_earlier_part(
        run, lost_job(tmp_path / "second", 4, [line(2, 0.3), line(3, 0.4), line(4, 0.5)], best=20.0)
    )

    assert done == 4
    assert [entry["round"] for entry in read_records(run / "earlier" / "rounds.jsonl")] == [0, 1, 2, 3]
    assert weight(run / "earlier" / "best_FL_global_model.pt") == 10  # 0.9 in round 1 of the first
    assert weight(run / "earlier" / "last_model.pt") == 4


def test_damaged_model_is_refused(tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    files = lost_job(tmp_path / "server", 2, [line(0, 0.1)])
    (files / "app_server" / "FL_global_model.pt").write_bytes(b"half a file")

    with pytest.raises(ModelError, match=r"FL_global_model\.pt: damaged, or not of this release"):
        keep_earlier_part(run, files)


def test_server_s_files_are_found_beside_the_lead_s_kit_or_where_they_are_given(tmp_path):
    kits = tmp_path / "kits"
    (kits / "server" / "startup").mkdir(parents=True)
    (kits / "server" / "startup" / "fed_server.json").write_text("{}", encoding="utf-8")
    lost = submission(kits / "lead")
    with pytest.raises(RunError, match="copy SERVER_KIT/0f7a from the server's machine and give it as --server-files"):
        find_server_files(tmp_path / "run", lost, None)

    beside = lost_job(kits / "server" / "0f7a", 1, [line(0, 0.1)])
    given = lost_job(tmp_path / "copy", 1, [line(0, 0.1)])

    assert find_server_files(tmp_path / "run", lost, None) == beside
    assert find_server_files(tmp_path / "run", lost, given) == given


def test_part_of_a_run_that_nobody_saw_end_went_on_until_its_last_record(tmp_path):
    lost = lost_job(tmp_path, 1, [line(0, 0.1)])
    os.utime(lost / "rounds.jsonl", (0, 1795550400 + 90))  # 2026-11-24 20:00 UTC, and a minute and a half

    assert seconds_until_lost(submission(tmp_path), lost) == 90
    assert seconds_until_lost(submission(tmp_path), tmp_path / "nothing") == 0


SMALL = JobOptions("small", 5, {"steps_per_epoch": 2}, sites=("north", "south"))


def killed_simulation(run: Path, rounds_done: int, options: JobOptions = SMALL) -> Submission:
    """A run folder as ``kill -9`` of ``simulate`` in a round leaves it: the job, what was remembered, FLARE's files."""
    run.mkdir()
    job = build_job("brats_unet_fedavg", run / "job", options)
    facts = {"mode": "simulator", "sites_dir": "/sites", "gpu": "0,1"}
    started = Submission(job.name, job.name, "2026-11-24T20:00:00+00:00", options, facts)
    begin(run, job, started)
    if rounds_done:
        lines = [line(number, 0.1) for number in range(rounds_done + 1)]
        lost = lost_job(run / "workspace/server/simulate_job", rounds_done, lines)
        os.utime(lost / "rounds.jsonl", (0, 1795550400 + 90))
    return started


def test_simulation_that_was_killed_goes_on_with_the_same_options_after_its_last_round(tmp_path, monkeypatch):
    run, got = tmp_path / "run", []
    started = killed_simulation(run, rounds_done=3)
    monkeypatch.setattr(resume.simulator, "carry_out", lambda *arguments: got.append(arguments))

    resume.resume_run(run)

    [(folder, job, later)] = got
    assert (folder, job.folder, job.sites) == (run, run / "job" / "brats_unet_fedavg", ("north", "south"))
    assert (job.variables["start_round"], job.variables["num_rounds"], job.variables["steps_per_epoch"]) == (3, 2, 2)
    assert weight(job.folder / "app_server" / "start_from.pt") == 3
    assert (later.facts, later.first_round) == (started.facts, 3)
    assert later.earlier == (Part("2026-11-24T20:00:00+00:00", 90.0, 0, ""),)


def test_run_that_started_from_a_model_goes_on_with_its_own_and_still_names_the_start(tmp_path, monkeypatch):
    run, got, start = tmp_path / "run", [], tmp_path / "start.pt"
    start.write_bytes(b"weights")
    killed_simulation(run, 3, replace(SMALL, checkpoint=start, start_sha256="5ee1"))
    start.unlink()  # nobody keeps it for this
    monkeypatch.setattr(resume.simulator, "carry_out", lambda *arguments: got.append(arguments))

    resume.resume_run(run)

    [(_, job, later)] = got
    assert weight(job.folder / "app_server" / "start_from.pt") == 3
    assert (job.start_sha256, later.options.start_sha256) == ("5ee1", "5ee1")


def test_simulation_that_was_killed_in_its_first_round_has_nothing_to_go_on_with(tmp_path):
    killed_simulation(tmp_path / "run", rounds_done=0)

    with pytest.raises(RunError, match="no round was done; simulate it again with --force"):
        resume.resume_run(tmp_path / "run")


def test_simulation_that_was_lost_again_at_once_goes_on_from_where_it_had_gone_on(tmp_path, monkeypatch):
    run, got = tmp_path / "run", []
    killed_simulation(run, rounds_done=3)
    monkeypatch.setattr(resume.simulator, "carry_out", lambda run, job, later: begin(run, job, later))
    resume.resume_run(run)
    shutil.rmtree(run / "workspace")  # as the simulator does when it starts
    monkeypatch.setattr(resume.simulator, "carry_out", lambda *arguments: got.append(arguments))

    resume.resume_run(run)

    [(_, job, later)] = got
    assert (job.variables["start_round"], job.variables["num_rounds"]) == (3, 2)
    assert [part.first_round for part in later.earlier] == [0, 3]


def test_run_whose_job_has_changed_since_is_not_resumed(tmp_path):
    run = tmp_path / "run"
    started = killed_simulation(run, rounds_done=3)
    changed = replace(started.options, values={"steps_per_epoch": 3})
    begin(run, describe_job(run / "job" / started.job), replace(started, options=changed))

    with pytest.raises(RunError, match="a variable of brats_unet_fedavg has changed since the run began"):
        resume.resume_run(run)


def test_simulated_run_is_not_collected(tmp_path):
    killed_simulation(tmp_path / "run", rounds_done=1)

    with pytest.raises(RunError, match="was run by the simulator, on this machine; go on with it with"):
        collect_run(tmp_path / "run")
