from __future__ import annotations

from typing import Any

import pytest
from nvflare.fuel.flare_api.api_spec import InternalError

from brats_fl.errors import RunError
from brats_fl_tools import session
from brats_fl_tools.runs import Progress


class Server:
    """A session whose server gives these answers, one after the other; an error is raised."""

    def __init__(self, *answers: str | Exception) -> None:
        self.answers = list(answers)

    def get_job_meta(self, job_id: str) -> dict[str, str]:
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return {"status": answer}

    def show_stats(self, job_id: str, target: str) -> dict[str, Any]:
        records = [{"phase": "train", "round": 0, "site": "hospital-1", "status": "missing"}]
        return {"server": {"RoundRecords": {session.STATISTIC: records}}}


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "POLL_SECONDS", 0.01)
    monkeypatch.setattr(session, "PATIENCE_SECONDS", 0.2)


def test_server_that_does_not_answer_for_a_moment_does_not_end_the_watching():
    said: list[str] = []
    server = Server("RUNNING", InternalError("no space left"), InternalError("busy"), "RUNNING", "FINISHED:COMPLETED")

    assert session.follow(server, "0f7a", Progress(said.append)) == "FINISHED:COMPLETED"
    assert said == ["round=0 site=hospital-1 status=missing"]


def test_server_that_stays_away_does():
    with pytest.raises(RunError, match=r"status of job 0f7a: the server did not carry it out \(gone\)"):
        session.follow(Server("RUNNING", InternalError("gone")), "0f7a", Progress(lambda line: None))
