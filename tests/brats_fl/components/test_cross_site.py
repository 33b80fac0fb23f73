"""Cross-site evaluation: what the server makes of what sites send, and what a site sends at all."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from nvflare.apis.client import Client
from nvflare.apis.dxo import DXO, DataKind, from_shareable
from nvflare.apis.event_type import EventType
from nvflare.apis.fl_constant import FLContextKey, ReturnCode
from nvflare.apis.impl.wf_comm_server import WFCommServer
from nvflare.apis.shareable import Shareable
from nvflare.apis.signal import Signal
from tests.flare import JOB, Engine, as_sent
from tests.tiny_network import tiny_model
from tests.tiny_sites import make_tiny_sites

from brats_fl.aggregation import checked_model
from brats_fl.components.cross_site import (
    TASK_LOCAL_MODEL,
    TASK_SCORE,
    CrossSiteEvaluation,
    CrossSiteExecutor,
)
from brats_fl.components.executor import ERROR_HEADER, failure
from brats_fl.components.records import RoundRecords
from brats_fl.constants import REGIONS
from brats_fl.errors import ModelError
from brats_fl.round_records import read_records
from brats_fl.sharing.cross_site import CROSS_SITE_FILE, RULES_FILE, CrossSite, read_cross_site
from brats_fl.site_state import find_state_dir, note_masked
from brats_fl.tasks import TaskResult

MODEL = tiny_model()
NAME = next(iter(MODEL))
SITES = ("hospital-1", "hospital-2")
SETTINGS: dict[str, Any] = {"bundle": "brats_unet", "profile": "tiny", "local_epochs": 1, "seed": 0}


def model(weights: dict[str, Any] | None = None) -> Shareable:
    return DXO(DataKind.WEIGHTS, data=MODEL if weights is None else weights).to_shareable()


def scores(dice: float = 0.5, **others: Any) -> Shareable:
    return DXO(DataKind.COLLECTION, {"cases": 3, "dice": dict.fromkeys(REGIONS, dice)} | others).to_shareable()


# --- The server ---


class Evaluating:
    """A controller at work, FLARE's own server side beneath it, and sites that ask and answer as FLARE's clients do."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.engine = Engine(folder, "server", SITES)
        torch.save({"model": {k: torch.tensor(v) for k, v in MODEL.items()}}, folder / JOB / "app_server" / "final.pt")
        self.records = RoundRecords()
        self.controller = CrossSiteEvaluation(
            bundle="brats_unet",
            profile="tiny",
            models={"final": "final.pt"},
            split="validation",
            min_clients=2,
            wait_time_after_min_received=1,
            validation_timeout=60,
            task_check_period=0.05,
        )
        self.communicator = WFCommServer()
        self.controller.set_communicator(self.communicator)
        self.engine.components = [self.records]
        self.fl_ctx = self.engine.new_context()
        self.communicator.initialize_run(self.fl_ctx)
        self.controller.initialize(self.fl_ctx)
        self.abort = Signal()
        self.thread = threading.Thread(target=self.controller.control_flow, args=(self.abort, self.fl_ctx))
        self.thread.start()

    def ask(self, site: str) -> tuple[str, Shareable | None]:
        """The task for a site; None where there is none at the moment."""
        name, self.task_id, data = self.communicator.process_task_request(self.client(site), self.context(site))
        return name, data

    def answer(self, site: str, name: str, reply: Shareable) -> None:
        fl_ctx = self.context(site)
        fl_ctx.set_prop(FLContextKey.TASK_RESULT, reply, private=True, sticky=False)
        fl_ctx.set_prop(FLContextKey.TASK_NAME, name, private=True, sticky=False)
        self.engine.fire_event(EventType.BEFORE_PROCESS_SUBMISSION, fl_ctx)
        self.communicator.process_submission(self.client(site), name, self.task_id, reply, fl_ctx)

    def client(self, site: str) -> Client:
        return Client(site, f"token of {site}")

    def context(self, site: str) -> Any:
        return self.engine.new_context(peer=site)

    def end(self) -> None:
        self.abort.trigger("end of the test")
        self.communicator.finalize_run(self.fl_ctx)
        self.thread.join(10)
        assert not self.thread.is_alive()


@pytest.fixture
def evaluating(tmp_path: Path) -> Iterator[Evaluating]:
    evaluating = Evaluating(tmp_path)
    yield evaluating
    evaluating.end()


def carry_out(evaluating: Evaluating, replies: Mapping[str, Sequence[Shareable]]) -> CrossSite:
    """The matrix, once each site has given its answers in turn: its model, then the scores of each model."""
    turns, end = Counter[str](), time.monotonic() + 30
    while evaluating.thread.is_alive() and time.monotonic() < end:
        for site in SITES:
            name, data = evaluating.ask(site)
            if data is not None and turns[site] < len(replies[site]):
                evaluating.answer(site, name, replies[site][turns[site]])
                turns[site] += 1
        time.sleep(0.01)
    return read_cross_site(evaluating.folder / JOB / CROSS_SITE_FILE)


def statuses(matrix: CrossSite) -> dict[str, str | dict[str, str]]:
    """Of each model, and of each cell where there is one."""
    return {
        row.model: {site: cell.status for site, cell in row.cells.items()} if row.cells else row.status
        for row in matrix.rows
    }


def test_each_model_goes_to_each_site_and_its_scores_come_back(evaluating: Evaluating) -> None:
    first = {name: value + 1 for name, value in MODEL.items()}
    sent = [model(first), scores(0.1), scores(0.2), scores(0.3)]

    matrix = carry_out(evaluating, {"hospital-1": sent, "hospital-2": [model(), *sent[1:]]})

    found = {
        (row.kind, row.model): {s: c.scores and c.scores.mean for s, c in row.cells.items()} for row in matrix.rows
    }
    assert found == {
        ("global", "final"): dict.fromkeys(SITES, pytest.approx(0.1)),
        ("local", "hospital-1"): dict.fromkeys(SITES, pytest.approx(0.2)),
        ("local", "hospital-2"): dict.fromkeys(SITES, pytest.approx(0.3)),
    }
    lines = read_records(evaluating.folder / JOB / "rounds.jsonl")
    assert [line["status"] for line in lines] == ["ok"] * (2 + 3 * 2)
    assert sum(line["phase"] == TASK_SCORE and line["cases"] == 3 for line in lines) == 3 * 2


def test_site_that_sends_nonsense_costs_its_own_row_and_column_and_nothing_else(evaluating: Evaluating) -> None:
    nonsense = [model({NAME: MODEL[NAME]}), scores(1.5), scores(cases="many")]

    matrix = carry_out(evaluating, {"hospital-1": [model(), scores(), scores()], "hospital-2": nonsense})

    assert statuses(matrix) == {
        "final": {"hospital-1": "ok", "hospital-2": "BAD_RESULT"},
        "hospital-1": {"hospital-1": "ok", "hospital-2": "BAD_RESULT"},
        "hospital-2": "BAD_MODEL",
    }
    lines = read_records(evaluating.folder / JOB / "rounds.jsonl")
    assert [line["status"] for line in lines if line["site"] == "hospital-2"] == ["BAD_MODEL"] + ["BAD_RESULT"] * 2


def test_site_that_fails_is_there_with_its_code(evaluating: Evaluating) -> None:
    odd = failure("CASE_ERROR")
    odd.set_header(ERROR_HEADER, "a\nhospital-1: ok")

    matrix = carry_out(
        evaluating, {"hospital-1": [model(), scores(), scores()], "hospital-2": [failure("NOT_SHARED"), odd, odd]}
    )

    assert statuses(matrix) == {
        "final": {"hospital-1": "ok", "hospital-2": "UNKNOWN_ERROR"},
        "hospital-1": {"hospital-1": "ok", "hospital-2": "UNKNOWN_ERROR"},
        "hospital-2": "NOT_SHARED",
    }


@pytest.mark.parametrize(
    "arrays",
    [
        {name: MODEL[name] for name in list(MODEL)[1:]},
        MODEL | {"other": np.ones(1, np.float32)},
        MODEL | {NAME: np.ones((1, 2), np.float32)},
        MODEL | {NAME: np.full_like(MODEL[NAME], np.nan)},
        MODEL | {NAME: np.full(MODEL[NAME].shape, 1e300)},
        MODEL | {NAME: MODEL[NAME].astype(object)},
        MODEL | {NAME: MODEL[NAME].astype(complex)},
        MODEL | {NAME: "weights"},
        {},
    ],
    ids=["lacks one", "has another", "shape", "nan", "too large for float32", "objects", "complex", "text", "nothing"],
)
def test_what_is_no_model_of_the_network_goes_to_nobody(arrays: dict[str, Any]) -> None:
    with pytest.raises(ModelError):
        checked_model(arrays, MODEL)


def test_model_of_doubles_goes_on_as_float32() -> None:
    taken = checked_model({name: value.astype(np.float64) for name, value in MODEL.items()}, MODEL)

    assert all(value.dtype == np.float32 and np.array_equal(value, MODEL[name]) for name, value in taken.items())


def test_job_without_a_model_ends_before_a_site_is_asked(tmp_path: Path) -> None:
    engine = Engine(tmp_path, "server", SITES)
    controller = CrossSiteEvaluation("brats_unet", "tiny", {}, "validation", 2, 1, 60)

    controller.initialize(engine.new_context())

    assert EventType.FATAL_SYSTEM_ERROR in dict(engine.events)


# --- A site ---


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Engine:
    """hospital-1, with four labelled cases, one of them for validation and one for testing."""
    sites = make_tiny_sites(tmp_path / "sites", {"hospital-1": (2, 1, 1)})
    monkeypatch.setenv("BRATS_FL_DATALIST", str(sites / "hospital-1" / "datalist.json"))
    return Engine(tmp_path / "kit", "hospital-1")


def code_of(executor: CrossSiteExecutor, engine: Engine, task: str, data: Shareable) -> Any:
    return executor.execute(task, data, engine.new_context(), Signal()).get_header(ERROR_HEADER)


def test_site_sends_codes_where_its_rules_or_its_numbers_forbid_more(
    site: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No trainer is started for any of it."""
    rules = tmp_path / "kit" / "local" / RULES_FILE
    tested, validated = (CrossSiteExecutor(split, **SETTINGS) for split in ("testing", "validation"))
    monkeypatch.setenv("BRATS_FL_STATISTICS_MIN_CASES", "5")

    assert code_of(tested, site, TASK_SCORE, model()) == "NOT_SHARED"
    assert code_of(validated, site, TASK_SCORE, model()) == "TOO_FEW_CASES"
    rules.write_text(json.dumps({"send_local_model": False, "score_test_cases": True}))
    assert code_of(tested, site, TASK_SCORE, model()) == "TOO_FEW_CASES"
    assert code_of(validated, site, TASK_LOCAL_MODEL, Shareable()) == "NOT_SHARED"
    rules.write_text("{")
    assert code_of(validated, site, TASK_LOCAL_MODEL, Shareable()) == "PRIVACY_ERROR"
    assert code_of(CrossSiteExecutor("training", **SETTINGS), site, TASK_SCORE, model()) == "PRIVACY_ERROR"
    rules.unlink()
    assert code_of(CrossSiteExecutor("training", **SETTINGS), site, TASK_SCORE, model()) == "JOB_ERROR"
    assert tested.trainer is None
    assert validated.trainer is None


def test_model_of_a_study_with_masked_updates_stays_at_the_site(site: Engine, tmp_path: Path) -> None:
    """Less the global model, which the server has, it is the update that the server is not to see."""
    study = "0123456789abcdef"
    note_masked(find_state_dir("hospital-1", study, tmp_path / "kit"))
    executor = CrossSiteExecutor("validation", **SETTINGS, study=study)

    assert code_of(executor, site, TASK_LOCAL_MODEL, Shareable()) == "NOT_SHARED"
    assert executor.trainer is None


def test_models_of_a_private_study_are_scored_nowhere(site: Engine) -> None:
    """How a model does on the cases is computed on scans, and has no noise in it."""
    executor = CrossSiteExecutor("validation", **SETTINGS, algorithm="dp")

    assert code_of(executor, site, TASK_SCORE, model()) == "NOT_SHARED"
    assert executor.trainer is None


def test_site_is_asked_for_training_by_no_such_job(site: Engine) -> None:
    executor = CrossSiteExecutor("validation", **SETTINGS)

    reply = executor.execute("train", model(), site.new_context(), Signal())

    assert reply.get_return_code() == ReturnCode.TASK_UNKNOWN


def test_scores_that_leave_are_three_means_and_a_number_of_cases(site: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BRATS_FL_STATISTICS_MIN_CASES", "2")
    executor, fl_ctx = CrossSiteExecutor("validation", **SETTINGS), site.new_context()
    metrics = {"val_mean_dice": 0.2, **{f"val_dice_{region}": 0.2 for region in REGIONS}, "case-7": 0.1}

    task = executor._task(TASK_SCORE, model(), fl_ctx)
    reply = executor._reply(task, TaskResult(metrics, {"cases": 2, "name": "case-7"}), fl_ctx)

    assert from_shareable(reply).data == {"cases": 1, "dice": {"tc": 0.2, "wt": 0.2, "et": 0.2}}
    assert b"case-7" not in as_sent(reply)
