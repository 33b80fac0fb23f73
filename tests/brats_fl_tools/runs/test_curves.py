from __future__ import annotations

from pathlib import Path

from brats_fl_tools.runs.curves import keep_curves, take_curves


def written(server: Path, text: str) -> Path:
    """The server's folder of a job with a curve."""
    (server / "tracking" / "hospital-1").mkdir(parents=True)
    (server / "tracking" / "hospital-1" / "events").write_text(text, encoding="utf-8")
    return server


def texts(run: Path) -> dict[str, str]:
    """Path -> content, of what lies in a run folder."""
    return {p.relative_to(run).as_posix(): p.read_text("utf-8") for p in run.rglob("*") if p.is_file()}


def test_curves_are_in_one_place_of_a_run_and_those_of_the_last_collection(tmp_path: Path):
    run = tmp_path / "run"

    for text in ("first", "second"):
        take_curves(written(run / "server", text), run)

        assert texts(run) == {"tracking/hospital-1/events": text}


def test_run_without_curves_has_no_folder_of_them(tmp_path: Path):
    (tmp_path / "server").mkdir()

    take_curves(tmp_path / "server", tmp_path / "run")
    keep_curves(tmp_path / "server", tmp_path / "run", 2)

    assert not (tmp_path / "run").exists()


def test_curves_before_a_resumption_stay_beside_those_after_it(tmp_path: Path):
    run = tmp_path / "run"
    keep_curves(written(tmp_path / "lost", "rounds 0 and 1"), run / "earlier", 2)
    keep_curves(written(tmp_path / "lost-again", "round 2"), run / "earlier", 3)

    take_curves(written(run / "server", "the rest"), run)

    assert texts(run) == {
        "earlier/tracking-0002/hospital-1/events": "rounds 0 and 1",
        "earlier/tracking-0003/hospital-1/events": "round 2",
        "tracking/hospital-1/events": "the rest",
    }
