"""The report of what ``brats-fl evaluate`` wrote, without a run: what it shows, and what it says it cannot know."""

from __future__ import annotations

import html
import json
import re
from pathlib import Path
from typing import Any

import pytest
from tests.run_folders import ROWS, Row, write_rows, write_run, write_scans

from brats_fl.errors import RunError
from brats_fl_tools.report import page as page_module
from brats_fl_tools.report import write_report

MACHINE = {"system": "Linux", "processor": "Some CPU", "cores": 8, "memory_gib": 31.2, "gpus": ["A GPU, 40 GiB"] * 2}


@pytest.fixture(autouse=True)
def _no_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the diagrams out, 0.2 s each."""
    monkeypatch.setattr(page_module, "case_strips", lambda run: [])


def write_evaluation(folder: Path, rows: tuple[Row, ...] = ROWS[:4], **facts: Any) -> Path:
    """What ``brats-fl evaluate`` leaves, without masks."""
    folder.mkdir(parents=True)
    content = {"bundle": "brats_unet", "model": "model.pt", "model_sha256": "0123", "profile": "small"}
    content |= {"split": "testing", "cases": len(rows), "machine": MACHINE} | facts
    (folder / "evaluation.json").write_text(json.dumps(content))
    write_rows(folder, rows)
    return folder


def words(page: Path) -> str:
    """A page's text without tags, one space between words."""
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", page.read_text(encoding="utf-8"))).split())


def test_evaluation_alone_has_a_report_that_says_what_it_does_not_know(tmp_path: Path) -> None:
    files = write_report(write_evaluation(tmp_path / "eval"))

    text = words(files.page)
    assert "This is an evaluation, not a run: by whom, on what, how and for how long the model was trained" in text
    assert "On 4 test cases (whether it saw them in training was not checked), the model reaches a mean Dice" in text
    for section in ("Learning curves", "Time and bytes", "Who took part", "trained one model together"):
        assert section not in text
    metrics = json.loads(files.metrics.read_text())
    assert metrics["overall"]["dice"]["mean"] == pytest.approx((0.9 + 0.7 + 0.6 + 0.3) / 4)
    assert (metrics["job"], metrics["rounds"], metrics["split"]) == (None, None, "testing")
    assert "participants" not in metrics


@pytest.mark.parametrize(
    ("engine", "said"),
    [("openvino 2026.4.1", "computed in float32 by OpenVINO 2026.4.1 on the CPU."), ("torch 2.13.0", ""), (7, "")],
)
def test_engine_that_is_not_torch_is_told(tmp_path: Path, engine: object, said: str) -> None:
    text = words(write_report(write_evaluation(tmp_path / "eval", engine=engine)).page)

    assert ("The masks were computed" in text) == bool(said)
    assert said in text


def test_evaluation_tells_its_machine(tmp_path: Path) -> None:
    text = words(write_report(write_evaluation(tmp_path / "eval")).page)

    assert "Machine Some CPU, 8 cores, 31.2 GiB of memory, 2 x A GPU, 40 GiB " in text


def test_cases_of_a_list_without_a_test_split_are_not_called_test_cases(tmp_path: Path) -> None:
    rows = tuple((case, site, "training", dice, hd95_mm) for case, site, _, dice, hd95_mm in ROWS[:4])
    files = write_report(write_evaluation(tmp_path / "eval", rows, split="training"))

    text = words(files.page)
    assert "On 4 cases (whether it saw" in text
    assert "The cases stand under training in their data list: if the model was trained or chosen on them" in text
    assert "test case" not in text.split("How to read this")[0]
    assert json.loads(files.metrics.read_text())["sites"]["hospital-1"]["cases"] == 3


def test_metrics_that_a_hospital_may_send_name_no_case_no_path_and_no_machine(tmp_path: Path) -> None:
    folder = write_evaluation(tmp_path / "eval", sites_dir=str(tmp_path / "sites"))

    text = write_report(folder).metrics.read_text()

    for secret in (*(f'"{row[0]}"' for row in ROWS), str(tmp_path), MACHINE["processor"]):
        assert secret not in text


def test_pictures_of_an_evaluation_are_found_by_its_own_word_on_the_data_lists(tmp_path: Path) -> None:
    folder = write_evaluation(tmp_path / "eval", ROWS[:1], sites_dir=str(tmp_path / "sites"))
    write_scans(tmp_path / "sites", folder, ROWS[:1])

    files = write_report(folder)

    assert files.notes == ()
    assert "data:image/jpeg" in files.page.read_text()


def test_data_lists_that_were_moved_are_named_by_the_caller(tmp_path: Path) -> None:
    folder = write_evaluation(tmp_path / "eval", ROWS[:1], sites_dir=str(tmp_path / "gone"))
    write_scans(tmp_path / "sites", folder, ROWS[:1])

    note = write_report(folder).notes[0]
    assert note.startswith("a1 of hospital-1 is not shown: no data list of hospital-1 in ")
    assert "give --sites SITES" in note

    files = write_report(folder, force=True, sites=tmp_path / "sites")
    assert files.notes == ()
    assert "data:image/jpeg" in files.page.read_text()


def test_two_evaluations_of_the_same_cases_are_compared_in_pairs(tmp_path: Path) -> None:
    other = tuple((case, site, split, (0.5,) * 3, hd95_mm) for case, site, split, _, hd95_mm in ROWS[:4])

    text = words(write_report(write_evaluation(tmp_path / "eval"), [write_evaluation(tmp_path / "other", other)]).page)

    assert "Against other (an evaluation alone; model evaluated: model.pt, SHA-256 0123)" in text
    assert "Both runs were tested on the same 4 cases" in text


def test_evaluation_is_compared_with_a_run_too(tmp_path: Path) -> None:
    text = words(write_report(write_evaluation(tmp_path / "eval"), [write_run(tmp_path / "run")]).page)

    assert "Against run (brats_unet_fedavg, 3 rounds; " in text


def test_folder_of_neither_a_run_nor_an_evaluation_has_no_report(tmp_path: Path) -> None:
    write_rows(tmp_path, ROWS)

    with pytest.raises(RunError, match=r"run.json: no such file"):
        write_report(tmp_path)
