"""The ledger of a run that was lost and went on."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

from nvflare.apis.event_type import EventType
from nvflare.apis.fl_constant import FLContextKey
from tests.flare import Engine
from tests.signed_run import SITES, ServerOfTwo
from tests.tiny_kits import make_tiny_kits

from brats_fl.components.executor import failure
from brats_fl.ledger import LEDGER_FILE, read_ledger
from brats_fl.own_ledger import read_receipts
from brats_fl_tools.jobs.assembly import JobOptions, build_job
from brats_fl_tools.jobs.built import BuiltJob
from brats_fl_tools.kit.kits import Kit
from brats_fl_tools.ledger.command import judge
from brats_fl_tools.ledger.receipts import compare_with_own
from brats_fl_tools.ledger.replay import replay_run
from brats_fl_tools.runs.collect import collect, collect_interrupted, keep_earlier_part
from brats_fl_tools.runs.folder import EARLIER, JOB_FOLDER
from brats_fl_tools.runs.seal import head_of
from brats_fl_tools.runs.submission import Submission

JOBS = ("0f7a3c52-8d14-4f0b-9c6e-2b1d5a9e7f30", "5b8e1d90-1c2f-4d3a-8e6b-7a9c0d1e2f34")
"""FLARE's ids of the two parts."""


def submission_of(job: BuiltJob, start_round: int) -> Submission:
    options = JobOptions("small", values={"start_round": start_round})
    return Submission(job.name, job.name, "2026-02-01T10:00:00+00:00", options)


def lose_after_a_round(folder: Path, run: Path, kits: Mapping[str, Kit] = {}) -> Path:
    """What the server left that died in the round after the first; a failure came in between the two."""
    job = build_job("brats_unet_fedavg", run / JOB_FOLDER, JobOptions("small", 2, sites=SITES))
    server = ServerOfTwo(Engine(folder / "server", "server", SITES, JOBS[0]), job, kits, keep_updates=True)
    server.begin(1.0)
    server.round(0, 1.0)
    failed = {FLContextKey.TASK_NAME: "train", FLContextKey.TASK_RESULT: failure("CASE_ERROR")}
    server.tell(EventType.BEFORE_PROCESS_SUBMISSION, SITES[1], **failed)
    server.round(1, 3.5)
    server.end(3.5, 1)  # the second round was done, and its model not yet kept
    collect_interrupted(run, server.files, job, submission_of(job, 0), 1.0)
    return server.files


def go_on(folder: Path, run: Path, head: str, kits: Mapping[str, Kit] = {}) -> None:
    values = {"start_round": 1}
    options = JobOptions("small", 1, values, sites=SITES, ledger_head=head)
    job = build_job("brats_unet_fedavg", run / JOB_FOLDER, options, force=True)
    server = ServerOfTwo(Engine(folder / "later", "server", SITES, JOBS[1]), job, kits, head, keep_updates=True)
    server.begin(3.5, 1)
    server.round(1, 3.5)
    server.end(6.0, 2)
    collect(run, server.files, job, submission_of(job, 1), 1.0, {})


def test_ledger_of_an_interrupted_run_ends_with_the_rounds_that_were_done(tmp_path: Path) -> None:
    lose_after_a_round(tmp_path, tmp_path / "run")

    verdict = judge(tmp_path / "run")

    assert verdict.problems == ()
    assert [line.kind for line in read_ledger(tmp_path / "run" / LEDGER_FILE)] == ["start", "round", "seal"]


def test_ledger_of_a_run_that_went_on_is_one_chain_over_both_parts(tmp_path: Path) -> None:
    run = tmp_path / "run"
    files = lose_after_a_round(tmp_path, run)
    keep_earlier_part(run, files)
    keep_earlier_part(run, files)  # asked twice

    go_on(tmp_path, run, head_of(run / EARLIER))

    lines = read_ledger(run / LEDGER_FILE)
    assert [line.kind for line in lines] == ["start", "round", "start", "round", "end", "seal"]
    assert judge(run).problems == ()
    assert len(list(replay_run(run, lines))) == 2


def test_run_goes_on_where_its_server_ended_in_the_middle_of_a_line(tmp_path: Path) -> None:
    run = tmp_path / "run"
    files = lose_after_a_round(tmp_path, run)
    start, first, second, _ = (files / LEDGER_FILE).read_bytes().splitlines(keepends=True)
    (files / LEDGER_FILE).write_bytes(start + first + second[:-20])

    keep_earlier_part(run, files)
    go_on(tmp_path, run, head_of(run / EARLIER))

    assert [line.kind for line in read_ledger(run / LEDGER_FILE)] == ["start", "round", "start", "round", "end", "seal"]
    assert judge(run).problems == ()


def test_update_of_a_round_that_was_lost_with_its_part_is_no_finding_and_is_told(tmp_path: Path) -> None:
    run, kits = tmp_path / "run", make_tiny_kits(tmp_path / "kits").federation.clients
    folders = [kit.folder for kit in kits]
    files = lose_after_a_round(tmp_path, run, {kit.name: kit for kit in kits})
    lost = judge(run, kits=folders)
    keep_earlier_part(run, files)

    go_on(tmp_path, run, head_of(run / EARLIER), {kit.name: kit for kit in kits})

    went_on = judge(run, kits=folders)
    assert lost.problems == went_on.problems == ()
    note = "round 1 was lost with its part of the run: an update that hospital-1 sent then is in no model"
    assert note in lost.notes
    assert note in went_on.notes


def test_round_that_is_missing_from_the_end_of_a_run_that_finished_is_found(tmp_path: Path) -> None:
    run, kits = tmp_path / "run", make_tiny_kits(tmp_path / "kits").federation.clients
    by_name = {kit.name: kit for kit in kits}
    keep_earlier_part(run, lose_after_a_round(tmp_path, run, by_name))
    go_on(tmp_path, run, head_of(run / EARLIER), by_name)
    lines = [line for line in read_ledger(run / LEDGER_FILE) if (line.kind, line.round) != ("round", 1)]

    found = list(compare_with_own(lines, read_receipts(kits[0].folder / "local" / LEDGER_FILE), "hospital-1"))

    assert found == ["round 1: the hospital's own ledger has an update of hospital-1 that this one has not"]


def test_part_that_was_taken_out_of_the_ledger_is_missed(tmp_path: Path) -> None:
    run = tmp_path / "run"
    keep_earlier_part(run, lose_after_a_round(tmp_path, run))
    go_on(tmp_path, run, head_of(run / EARLIER))
    text = (run / LEDGER_FILE).read_text().splitlines(keepends=True)
    (run / LEDGER_FILE).write_text("".join(text[2:]))

    problems = judge(run).problems

    assert problems[0] == "line 1: previous must be empty: what was before it is missing"
    assert "line 1: settings: start_round is 1, 0 rounds are in front of it" in problems


def test_run_of_a_server_without_a_ledger_is_collected_all_the_same(tmp_path: Path) -> None:
    run = tmp_path / "run"
    files = lose_after_a_round(tmp_path, run)
    (files / LEDGER_FILE).unlink()
    shutil.rmtree(run)
    job = build_job("brats_unet_fedavg", run / JOB_FOLDER, JobOptions("small", 2, sites=SITES))

    collect(run, files, job, submission_of(job, 0), 1.0, {})

    assert json.loads((run / "run.json").read_text())["state"] == "finished"
    assert not (run / LEDGER_FILE).exists()
