from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from nvflare.fuel.flare_api.api_spec import AuthorizationError, InternalError, JobNotRunning

from brats_fl.errors import RunError
from brats_fl_tools.runs import session
from brats_fl_tools.runs.progress import Progress


class Server:
    """A session whose server gives these answers, one after the other; an error is raised."""

    def __init__(self, *answers: str | Exception) -> None:
        self.answers = list(answers)
        self.jobs = ["0f7a"]
        self.asked: list[tuple[str, dict[str, int]]] = []
        self.records: list[dict[str, Any]] = [{"phase": "train", "round": 0, "site": "hospital-1", "status": "missing"}]

    def get_job_meta(self, job_id: str) -> dict[str, str]:
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return {"status": answer}

    def get_system_info(self) -> SimpleNamespace:
        return SimpleNamespace(job_info=[SimpleNamespace(job_id=name) for name in self.jobs])

    def do_app_command(self, job_id: str, topic: str, data: dict[str, int]) -> dict[str, Any]:
        """The records from a number on, while the next answer is that the job runs."""
        if self.answers[0] != "RUNNING" or job_id not in self.jobs:
            raise JobNotRunning(job_id)
        self.asked.append((topic, data))
        if len(self.answers) > 1:
            self.answers.pop(0)
        return {"records": self.records[data["from"] :]}


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "POLL_SECONDS", 0.01)
    monkeypatch.setattr(session, "PATIENCE_SECONDS", 0.2)
    monkeypatch.setattr(session, "LOST_SECONDS", 0.1)
    monkeypatch.setattr(session, "SETTLE_SECONDS", 0.0)


def test_server_that_does_not_answer_for_a_moment_does_not_end_the_watching():
    said: list[str] = []
    server = Server("RUNNING", InternalError("no space left"), InternalError("busy"), "RUNNING", "FINISHED:COMPLETED")

    assert session.follow(server, "0f7a", Progress(said.append)) == "FINISHED:COMPLETED"
    assert said == ["round=0 site=hospital-1 status=missing"]


def test_it_is_told_once_that_the_job_has_begun():
    begun: list[str] = []
    server = Server("SUBMITTED", "RUNNING", "RUNNING", "FINISHED:COMPLETED")

    session.follow(server, "0f7a", Progress(lambda line: None), lambda: begun.append("begun"))

    assert begun == ["begun"]


def test_server_that_stays_away_does():
    with pytest.raises(RunError, match=r"status of job 0f7a: the server did not carry it out \(gone\)"):
        session.follow(Server("RUNNING", InternalError("gone")), "0f7a", Progress(lambda line: None))


def test_job_that_a_restarted_server_does_not_know_is_lost():
    server = Server(InternalError("gone"), "RUNNING")
    server.jobs = []

    with pytest.raises(RunError, match=r"job 0f7a: the server was away .* go on .* with `brats-fl resume RUN`"):
        session.follow(server, "0f7a", Progress(lambda line: None))


def test_job_without_a_process_that_is_being_put_away_is_not_lost():
    server = Server(*["RUNNING"] * 30, "FINISHED:COMPLETED")
    server.jobs = []

    assert session.follow(server, "0f7a", Progress(lambda line: None)) == "FINISHED:COMPLETED"


def test_server_is_asked_for_what_is_new_only():
    server = Server(*["RUNNING"] * 4, "FINISHED:COMPLETED")

    session.follow(server, "0f7a", Progress(lambda line: None))

    assert server.asked == [("brats_fl_rounds", {"from": 0}), *[("brats_fl_rounds", {"from": 1})] * 2]


def test_server_is_asked_less_often_the_longer_nothing_has_come(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(session, "POLL_SECONDS", 1.0)

    assert [session.pause(silence) for silence in (0, 10, 40, 3600)] == [1, 1, 4, 10]


def test_admin_who_may_not_have_the_rounds_is_told_why_once_and_waits_for_the_end():
    said: list[str] = []
    server = Server(*["RUNNING"] * 4, "FINISHED:COMPLETED")

    def refuse(*_: object) -> None:
        raise AuthorizationError("user 'lead' is not authorized for 'app_command'")

    server.do_app_command = refuse  # type: ignore[method-assign]

    assert session.follow(server, "0f7a", Progress(said.append)) == "FINISHED:COMPLETED"
    assert len(said) == 1
    assert "only the lead who submitted a job may follow its rounds" in said[0]


@pytest.mark.parametrize("answer", [[], {"records": "none"}, {"records": [{"round": 0}]}])
def test_answer_that_is_no_list_of_records_is_refused(answer: Any):
    server = SimpleNamespace(do_app_command=lambda *_: answer)

    with pytest.raises(RunError, match="the server's records of job 0f7a"):
        session.new_records(server, "0f7a", 0)


@pytest.mark.parametrize(("duration", "seconds"), [("0:00:16.630641", 17.065334), ("1 day, 2:00:00", 93600.434693)])
def test_job_took_from_its_submission_to_its_end_by_the_servers_clock(duration: str, seconds: float):
    # Submitted at 18:21:00.790912 UTC, started .434693 s later.
    meta = {"submit_time": 1795890060.790912, "start_time": "2026-11-28T18:21:01.225605+00:00", "duration": duration}

    assert session.job_seconds(SimpleNamespace(get_job_meta=lambda _: meta), "0f7a") == pytest.approx(seconds, abs=1e-4)


@pytest.mark.parametrize("lost", [{"start_time": "", "duration": "N/A"}, {"start_time": "2026-11-28T18:21:01+00:00"}])
def test_time_of_a_job_that_the_server_lost_is_not_known(lost: dict[str, str]):
    assert session.job_seconds(SimpleNamespace(get_job_meta=lambda _: {"submit_time": 0.0, **lost}), "0f7a") is None


def test_what_a_site_says_of_a_job_stays_one_short_line_on_the_leads_screen(capsys: pytest.CaptureFixture[str]):
    said = "not enough sites (1 of 2); hospital-2: \x1b[2J\nerror: hospital-3 has failed" + 2000 * "!"
    server = SimpleNamespace(get_job_meta=lambda _: {"job_deploy_detail": ["server: OK", said], "schedule_history": []})

    (line,) = session.deployment(server, "0f7a")
    session.tell_why_it_waits(server, "0f7a", "")

    assert line.startswith(r"not enough sites (1 of 2); hospital-2: \x1b[2J\nerror: hospital-3 has failed!")
    assert len(line) == 1000
    shown = capsys.readouterr().out
    assert shown == f"the job waits: {line}\n"
