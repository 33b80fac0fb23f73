"""``brats-fl watch`` on a run folder that grows, by its own process and a real browser's requests."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.run_folders import train, write_run
from tests.tiny_kits import make_tiny_kits
from typer.testing import CliRunner

from brats_fl.errors import RunError
from brats_fl_tools.cli import app
from brats_fl_tools.watch.server import serving
from brats_fl_tools.watch.sources import look_into, source_at


def get(url: str, method: str = "GET", **headers: str) -> tuple[int, str, dict[str, str]]:
    """Status, text and headers of an answer."""
    request = urllib.request.Request(url, method=method, headers=headers)
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=120) as answer:
            return answer.status, answer.read().decode(), dict(answer.headers)
    except urllib.error.HTTPError as error:
        return error.code, "", dict(error.headers)


@pytest.fixture
def running(tmp_path: Path) -> Path:
    return write_run(tmp_path / "run", rounds=4, state="running", invited=["hospital-1", "hospital-2"])


@pytest.fixture
def port() -> Iterator[int]:
    with serving(0, {"/": lambda: ("text/html; charset=utf-8", "<p>here</p>")}) as opened:
        yield opened


def test_run_is_followed_to_its_end_on_the_page_in_lines_and_in_a_file_of_gauges(running: Path, tmp_path: Path):
    command = [sys.executable, "-m", "brats_fl_tools", "watch", str(running), "--gauges", str(tmp_path / "run.prom")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        try:
            assert process.stdout is not None
            first = process.stdout.readline()
            found = re.fullmatch(r"watching: (http://127\.0\.0\.1:\d+/)\n", first)
            assert found, first
            status, page, headers = get(found[1])
            with (running / "rounds.jsonl").open("a") as file:
                file.write(json.dumps(train(4, "hospital-1", loss=0.125)) + "\n")
            line = ""
            while "loss=0.125" not in line:
                line = process.stdout.readline()
                assert line, "the watching ended before the run did"
            after = get(found[1])[1]
            info = json.loads((running / "run.json").read_text()) | {"state": "finished"}
            (running / "run.json").write_text(json.dumps(info))
            rest = process.stdout.read()
        finally:
            process.kill()

    assert (status, headers["Cache-Control"], headers["X-Frame-Options"]) == (200, "no-store", "DENY")
    assert "Set-Cookie" not in headers
    assert '<meta http-equiv="refresh" content="5">' in page
    assert "<script" not in page
    assert "0.125" in after
    assert rest.splitlines()[-1].startswith("brats_unet_fedavg: finished, 4 of 4 rounds done")
    assert process.returncode == 0
    assert "brats_fl_running 0\n" in (tmp_path / "run.prom").read_text()


def test_page_is_answered_to_this_machine_s_own_names_only(port: int):
    assert get(f"http://127.0.0.1:{port}/")[:2] == (200, "<p>here</p>")
    assert get(f"http://localhost:{port}/")[0] == 200
    assert get(f"http://127.0.0.1:{port}/", Host=f"attacker.example:{port}")[0] == 403  # DNS rebinding
    assert get(f"http://127.0.0.1:{port}/", Host="127.0.0.1.attacker.example:80")[0] == 403


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
def test_page_is_read_only(port: int, method: str):
    assert get(f"http://127.0.0.1:{port}/", method)[0] == 501


@pytest.mark.parametrize("path", ["/run.json", "/../run.json", "/%2e%2e/etc/passwd", "/metrics/x"])
def test_no_file_is_served(port: int, path: str):
    assert get(f"http://127.0.0.1:{port}{path}")[0] == 404


def test_head_has_the_headers_and_no_text(port: int):
    status, text, headers = get(f"http://127.0.0.1:{port}/?x=1", "HEAD")

    assert (status, text, headers["Content-Length"]) == (200, "", "11")


def test_port_that_is_taken_is_named(port: int):
    with (
        pytest.raises(RunError, match=rf"port {port} cannot be opened .*; give another with --port, or 0"),
        serving(port, {}),
    ):
        pass


def test_run_without_a_round_is_seen_as_it_is(running: Path):
    (running / "rounds.jsonl").write_text("")

    assert look_into(running).run.records == ()


def test_finished_run_is_shown_once(running: Path):
    info = json.loads((running / "run.json").read_text()) | {"state": "finished"}
    (running / "run.json").write_text(json.dumps(info))
    begin = time.monotonic()

    result = CliRunner().invoke(app, ["watch", str(running)], catch_exceptions=False)

    assert result.exit_code == 0
    assert "brats_unet_fedavg: finished, 4 of 4 rounds done, mean Dice 0.500" in result.output
    assert time.monotonic() - begin < 30


@pytest.mark.parametrize("arguments", [[], ["run", "--kit", "kit"]])
def test_either_a_run_or_a_kit_is_watched(arguments: list[str]):
    result = CliRunner().invoke(app, ["watch", *arguments])

    assert result.exit_code == 2
    assert "give RUN, or --kit KIT in its place" in result.output


def test_folder_that_is_no_run_is_named(tmp_path: Path):
    with pytest.raises(RunError, match="no such run folder"):
        look_into(tmp_path / "nowhere")


def test_file_of_gauges_in_no_folder_is_named_before_anything_is_watched(running: Path, tmp_path: Path):
    with pytest.raises(RunError, match=r"there is no folder .*nowhere; make it, or give --gauges another file"):
        CliRunner().invoke(
            app, ["watch", str(running), "--gauges", str(tmp_path / "nowhere" / "run.prom")], catch_exceptions=False
        )


def test_kit_of_a_hospital_cannot_watch_a_federation(tmp_path: Path):
    hospital = make_tiny_kits(tmp_path / "kits").hospital

    with pytest.raises(RunError, match=r"is the kit of a hospital; give an admin's"), source_at(hospital):
        pass
