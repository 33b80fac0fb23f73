"""What is compared with a peer, without it: how costs are told from times, and what is said where it is missing."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from brats_fl_tools.bench import peers
from brats_fl_tools.bench.peers import Costs, costs, describe, memory_of, watching


def test_start_and_rounds_are_told_without_the_slowest_site_s_own_work():
    # Begun at 100; rounds began at 110, 130, 136 and 143, and the slowest site worked 15, 4, 5 and 5 s.
    found = costs(100.0, [110.0, 130.0, 136.0, 143.0], [15.0, 4.0, 5.0, 5.0], (19, 20), 700.0)

    assert found == Costs(10 + 5, (2 + 2) / 2, (6 + 7) / 2, 19, 20, 700.0)


def test_ratios_are_the_peer_s_to_ours():
    ours = Costs(10.0, 2.0, 10.0, 19_000_000, 19_000_000, 1000.0)
    flower = Costs(15.0, 1.0, 12.0, 19_000_000, 19_000_000, 2500.0)

    assert describe({"ours": ours, "flower": flower})[-1] == (
        "Flower's to ours: start 1.50, round 1.20, what it has beside the sites' work 0.50, memory 2.50"
    )


def test_peer_that_cannot_be_installed_is_skipped_with_the_reason(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "environment").write_text("a file, where an environment was to be")

    peers.main(tmp_path / "environment")

    said = capsys.readouterr().out
    assert said.startswith("bench-peers skipped: Flower could not be installed: ")
    assert str(tmp_path / "environment") in said


def test_memory_is_that_of_a_process_and_its_descendants(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(peers, "SAMPLING_SECONDS", 0.05)
    holds_50_mb = "import time; held = bytes(range(250)) * 200_000; time.sleep(60)"
    inner = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {holds_50_mb!r}])"
    with subprocess.Popen([sys.executable, "-c", inner], start_new_session=True) as process:
        try:
            with watching(process.pid) as sampled:
                while not any(50 < value < 150 for value in sampled):
                    assert process.poll() is None
        finally:
            os.killpg(process.pid, 9)

    assert memory_of(process.pid) == 0.0  # it is gone
