"""A run's record leaves as an RO-Crate that describes each of its files, can be checked, and tells of no case."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.signed_run import make_signed_run
from typer.testing import CliRunner

from brats_fl.errors import FolderError, LedgerError
from brats_fl.provenance import hash_file
from brats_fl_tools.cli import app
from brats_fl_tools.ledger.command import judge
from brats_fl_tools.ledger.crate import write_crate
from brats_fl_tools.report import PAGE_IN_3D, REPORT_FILE


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = make_signed_run(tmp_path_factory.mktemp("made"), None)
    facts = json.loads((run / "run.json").read_text())
    facts |= {"sites_dir": "/secret/place", "sites": {"hospital-1": {"training": 3, "validation": 1, "testing": 1}}}
    (run / "run.json").write_text(json.dumps(facts))
    (run / "metrics.json").write_text(
        json.dumps({"overall": {"dice": {"tc": 0.7, "wt": 0.8, "et": None, "mean": 0.75}}})
    )
    (run / "evaluation.csv").write_text("case,site\nPatient-007,hospital-1\n")
    (run / "report.html").write_text("Patient-007")
    (run / "submission.json").write_text('{"kit": "/secret/place"}')
    return run


@pytest.fixture
def crate(run: Path, tmp_path: Path) -> Path:
    return write_crate(run, tmp_path / "crate", "CC-BY-4.0", "A consortium").parent


def entities(crate: Path) -> dict[str, dict[str, Any]]:
    graph = json.loads((crate / "ro-crate-metadata.json").read_text())["@graph"]
    found = {entity["@id"]: entity for entity in graph}
    assert len(found) == len(graph)
    return found


def referenced(value: Any) -> Iterator[str]:
    """Every ``@id`` within an entity but its own."""
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        if isinstance(inner, dict) and set(inner) == {"@id"}:
            yield inner["@id"]
        else:
            yield from referenced(inner)


def test_everything_that_is_referred_to_is_described(crate: Path):
    found = entities(crate)

    outside = {key for key in referenced(list(found.values())) if key not in found}
    assert outside == {"https://w3id.org/ro/crate/1.2"}


def test_files_are_named_with_their_hashes(crate: Path):
    files = {key: entity for key, entity in entities(crate).items() if entity["@type"] == "File"}

    assert {key: entity["sha256"] for key, entity in files.items()} == {key: hash_file(crate / key) for key in files}
    assert {"ledger.jsonl", "rounds.jsonl", "run.json", "global_model.pt", "final_model.pt", "metrics.json"} < set(
        files
    )
    assert all(entity["description"] for entity in files.values())


def test_action_goes_from_the_hospitals_cases_and_the_job_to_models_and_figures(crate: Path):
    found = entities(crate)
    action = found["#training"]

    assert found["./"]["mainEntity"] == {"@id": "final_model.pt"}
    objects, results = ({one["@id"] for one in action[name]} for name in ("object", "result"))
    assert {"#cases-of-hospital-1", "#cases-of-hospital-2", "job/brats_unet_fedavg/"} < objects
    assert {"final_model.pt", "ledger.jsonl", "#dice-wt", "#dice-mean"} < results
    assert "#dice-et" not in found
    assert found["#dice-wt"]["value"] == 0.8
    assert found["#cases-of-hospital-1"]["description"].startswith(
        "Four MRI scans and a segmentation a case; 3 training"
    )
    assert "number not told" in found["#cases-of-hospital-2"]["description"]
    assert found["https://github.com/NVIDIA/NVFlare"]["version"] == "2.9.0"
    assert (action["startTime"], action["endTime"]) == ("2026-02-01T10:00:00+00:00", "2026-02-01T10:00:01+00:00")
    assert found["./"]["license"] == {"@id": "https://spdx.org/licenses/CC-BY-4.0"}


def test_crate_is_checked_as_a_run_is(crate: Path):
    verdict = judge(crate)

    assert [why for why in verdict.problems if "sites" not in why] == []


def test_neither_cases_nor_paths_of_the_machine_are_in_it(crate: Path):
    for path in (path for path in crate.rglob("*") if path.is_file()):
        content = path.read_bytes()
        assert b"Patient-007" not in content, path
        assert b"/secret/place" not in content, path


def test_no_page_of_the_run_is_in_it(run: Path, tmp_path: Path):
    shutil.copytree(run, own := tmp_path / "run")
    for name in (REPORT_FILE, PAGE_IN_3D):
        (own / name).write_text("scans")

    crate = write_crate(own, tmp_path / "crate", "CC-BY-4.0").parent

    assert not list(crate.rglob("*.html"))


def test_licence_is_chosen_and_written_as_an_address(run: Path, tmp_path: Path):
    done = CliRunner().invoke(app, ["ledger", "crate", str(run), "--out", str(tmp_path / "a")])
    assert (done.exit_code, "--license" in done.output) == (2, True)

    with pytest.raises(LedgerError, match="--license must be an SPDX identifier such as"):
        write_crate(run, tmp_path / "b", "do what you like")
    assert not (tmp_path / "b").exists()
    write_crate(run, tmp_path / "c", "https://consortium.example/licence")
    assert entities(tmp_path / "c")["./"]["license"] == {"@id": "https://consortium.example/licence"}


def test_folder_of_another_is_not_replaced(run: Path, tmp_path: Path):
    (tmp_path / "notes.txt").write_text("mine")

    with pytest.raises(FolderError, match="is not empty and no crate of brats-fl's"):
        write_crate(run, tmp_path, "CC-BY-4.0", force=True)


def test_run_without_a_ledger_is_told_to_be_collected(tmp_path: Path):
    with pytest.raises(LedgerError, match=r"ledger\.jsonl: no such file; collect the run first"):
        write_crate(tmp_path, tmp_path / "crate", "CC-BY-4.0")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda run: (run / "run.json").write_text("{}"), r"run\.json: has no job; collect the run again"),
        (lambda run: shutil.rmtree(run / "job"), r"job: no such folder, where what was run lies; collect the run"),
    ],
)
def test_run_that_has_lost_what_was_run_is_refused_and_an_earlier_crate_stays(
    run: Path, crate: Path, tmp_path: Path, spoil: Callable[[Path], object], message: str
):
    spoilt = Path(shutil.copytree(run, tmp_path / "spoilt"))
    spoil(spoilt)
    before = sorted(crate.rglob("*"))

    with pytest.raises(LedgerError, match=message):
        write_crate(spoilt, crate, "CC-BY-4.0", force=True)

    assert sorted(crate.rglob("*")) == before


def test_crate_within_the_job_that_it_copies_is_refused(run: Path):
    with pytest.raises(FolderError, match="of which the crate has a copy; choose another --out"):
        write_crate(run, run / "job" / "crate", "CC-BY-4.0")
