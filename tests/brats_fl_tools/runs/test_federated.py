from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from brats_fl.errors import RunError
from brats_fl_tools.jobs.built import BuiltJob
from brats_fl_tools.runs import federated
from brats_fl_tools.runs.folder import read_state
from brats_fl_tools.runs.processes import Interrupted
from brats_fl_tools.runs.submission import Submission

JOB = BuiltJob(Path("job"), "unet", "brats_unet", ("north",), {}, "0123")


@pytest.mark.parametrize("end", [KeyboardInterrupt(), SystemExit(143)])
@pytest.mark.parametrize(
    ("mode", "words", "aborted"),
    [
        ("federation", "job 0f7a goes on at the hospitals; see it again with `brats-fl collect /runs/a`", []),
        ("poc", "job 0f7a has been aborted; go on after its last round with `brats-fl resume /runs/a`", ["0f7a"]),
    ],
)
def test_interrupted_command_says_what_becomes_of_the_job(
    mode: str, words: str, aborted: list[str], end: BaseException, monkeypatch: pytest.MonkeyPatch
):
    def follow(*_: Any) -> str:
        raise end

    told: list[str] = []
    monkeypatch.setattr(federated, "follow", follow)
    submission = Submission("unet", "unet", "2026-11-24T20:00:00+00:00", facts={"mode": mode}, job_id="0f7a")

    with pytest.raises(Interrupted) as interrupted:
        federated.watch(SimpleNamespace(abort_job=told.append), Path("/runs/a"), JOB, submission)

    assert (interrupted.value.words, told) == (words, aborted)


def test_run_whose_job_was_refused_is_not_running_any_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def download(*_: Any) -> Path:
        raise RunError("the server keeps no files")

    meta = {"job_deploy_detail": ["server: BYOC not permitted", "north: OK"]}
    monkeypatch.setattr(federated, "follow", lambda *_: "FINISHED:FAILED_TO_RUN")
    monkeypatch.setattr(federated, "download", download)
    submission = Submission("unet", "unet", "2026-11-24T20:00:00+00:00", facts={"mode": "federation"}, job_id="0f7a")

    with pytest.raises(RunError, match="unet ended as FINISHED:FAILED_TO_RUN: server: BYOC not permitted"):
        federated.watch(SimpleNamespace(get_job_meta=lambda _: meta), tmp_path, JOB, submission)

    assert read_state(tmp_path) == "interrupted"
