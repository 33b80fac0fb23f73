"""Rounds of secure aggregation between the real controller, aggregator and executors, in one process.

The channel stands in for FLARE's transport, and the trainer for training: what it returns is known. The keys are signed
with certificates, as in a federation; the simulator's run is in tests/integration.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from nvflare.apis.dxo import DXO, DataKind, from_shareable
from nvflare.apis.fl_constant import FLContextKey
from nvflare.apis.shareable import Shareable
from nvflare.apis.signal import Signal
from nvflare.app_common.abstract.model import make_model_learnable
from nvflare.app_common.app_constant import AppConstants
from tests.flare import JOB, Engine, as_sent
from tests.tiny_authority import Authority

from brats_fl.cases.datalists import DATALIST_FILE, Case, DataList, write_datalist
from brats_fl.components import secure_aggregation
from brats_fl.components.aggregator import MEAN, REJECTION
from brats_fl.components.executor import ERROR_HEADER, TASKS
from brats_fl.components.records import RoundRecords
from brats_fl.components.secure_aggregation import SecureAggregator, SecureScatterAndGather
from brats_fl.components.secure_executor import CONTENT, SEALED, SecureExecutor, message
from brats_fl.errors import ModelError
from brats_fl.exchange import MASKED, WEIGHTS
from brats_fl.privacy.messages import STEPS
from brats_fl.privacy.secret_sharing import SHARE_BYTES
from brats_fl.round_records import RECORDS_FILE, read_records
from brats_fl.site_state import find_state_dir, was_masked
from brats_fl.tasks import TaskFailure, TaskResult

MODEL = {"conv.weight": np.full((2, 2), 10.0, np.float32), "conv.bias": np.zeros(2, np.float32)}
CASES = {"hospital-1": 1, "hospital-2": 2, "hospital-3": 1, "hospital-4": 1}
UPDATES = {"hospital-1": 0.5, "hospital-2": -0.25, "hospital-3": 1.0, "hospital-4": 0.25}
ALL = sorted(CASES)

Tamper = Callable[[str, str, Shareable], Shareable]


class Trainer:
    """Returns the site's update without training."""

    settings = object()

    def __init__(self, site: str) -> None:
        self.site, self.value, self.cases, self.fails = site, UPDATES[site], CASES[site], False
        self.payloads = {WEIGHTS: {name: np.full_like(array, self.value) for name, array in MODEL.items()}}

    def run(self, task: Any, aborted: Any) -> TaskResult | TaskFailure:
        if self.fails:
            return TaskFailure("CASE_ERROR", "why")
        statistics = {"cases": self.cases, "steps": 4, "loss": 0.5, "seconds": 1.0}
        return TaskResult({}, statistics, self.payloads)


class Federation:
    """A server and four hospitals, of which three make a round.

    ``tamper`` sees each answer on its way, ``down`` each task.
    """

    def __init__(self, folder: Path, authority: Authority) -> None:
        self.executors: dict[str, SecureExecutor] = {}
        self.engines: dict[str, Engine] = {}
        self.sent: list[tuple[str, str, Shareable]] = []
        self.tamper: Tamper = lambda task, site, answer: answer
        self.down: Tamper = lambda task, site, data: data
        self.lost: set[str] = set()
        for site, count in CASES.items():
            self.engines[site] = Engine(authority.startup(site).parent, site)
            cases = tuple(case(folder, f"{site}-{number}") for number in range(count))
            write_datalist(authority.folder / site / "local" / DATALIST_FILE, DataList(site, cases, (), ()))
            self.executors[site] = executor = SecureExecutor(3, 1.0, 10.0, "brats_unet", "tiny", 1, 0)
            executor.trainer = Trainer(site)  # type: ignore[assignment]
        self.server = Engine(authority.startup("server").parent, "server", tuple(CASES))
        self.server.components.append(RoundRecords())
        self.aggregator = SecureAggregator(3, 10.0, patience_rounds=2)
        self.controller = SecureScatterAndGather(
            answer_timeout=1,
            min_clients=3,
            num_rounds=1,
            start_round=0,
            wait_time_after_min_received=0,
            train_timeout=1,
            task_check_period=0.1,
            aggregator_id="aggregator",
            persistor_id="persistor",
            shareable_generator_id="generator",
            train_task_name="train",
            ignore_result_error=True,
            snapshot_every_n_rounds=0,
        )
        self.controller.aggregator = self.aggregator
        self.controller._engine = self.server
        self.controller.communicator = self
        self.contexts = self.server.new_context()
        self.contexts.set_prop(AppConstants.GLOBAL_MODEL, make_model_learnable(dict(MODEL), {}), True, True)

    def broadcast_and_wait(self, task: Any, fl_ctx: Any, targets: Iterable[str], *_: Any) -> None:
        """FLARE's transport: each site's answer to the task, as bytes and back."""
        for site in targets:
            if site in self.lost:
                continue
            given = self.down(task.name, site, task.data)
            as_sent(given)
            answer = self.executors[site].execute(task.name, given, self.engines[site].new_context(), Signal())
            as_sent(answer)
            answer = self.tamper(task.name, site, answer)
            self.sent.append((task.name, site, answer))
            done = SimpleNamespace(client=SimpleNamespace(name=site), result=answer, task=task)
            task.result_received_cb(done, self.server.new_context(peer=site))

    def round(self, index: int = 0) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """The change of the model, and what the records say of it."""
        self.contexts.set_prop(AppConstants.CURRENT_ROUND, index, True, True)
        data = DXO(DataKind.WEIGHTS, data=dict(MODEL)).to_shareable()
        data.set_header(AppConstants.CURRENT_ROUND, index)
        data.set_header(AppConstants.NUM_ROUNDS, 2)

        def accept(client_task: Any, fl_ctx: Any) -> None:
            client_task.result.add_cookie(AppConstants.CONTRIBUTION_ROUND, index)
            if not client_task.result.get_header(ERROR_HEADER):
                self.aggregator.accept(client_task.result, fl_ctx)

        task = SimpleNamespace(name="train", data=data, result_received_cb=accept)
        fl_ctx = self.server.new_context()
        self.controller.broadcast_and_wait(task, fl_ctx, None, 3, 0, Signal())
        update = from_shareable(self.aggregator.aggregate(fl_ctx)).data
        self.aggregator.reset(fl_ctx)
        return update, fl_ctx.get_prop(MEAN)

    def refused(self) -> list[tuple[str, str]]:
        """Task and site of each answer that the server refused."""
        lines = read_records(Path(self.server.get_workspace().get_run_dir(JOB)) / RECORDS_FILE)
        return [(line["phase"], line["site"]) for line in lines if line["status"] == "MASKING_ERROR"]


def case(folder: Path, name: str) -> Case:
    return Case(name, name, tuple(str(folder / f"{name}-{number}.nii.gz") for number in range(4)), str(folder / name))


@pytest.fixture
def federation(tmp_path: Path) -> Federation:
    return Federation(tmp_path, Authority(tmp_path / "kits"))


def values(update: dict[str, np.ndarray]) -> float:
    """The one value that all parameters changed by."""
    (found,) = {float(value) for array in update.values() for value in array.ravel().round(6)}
    return found


def test_server_gets_the_weighted_mean_and_nothing_that_looks_like_an_update(federation: Federation) -> None:
    update, mean = federation.round()

    assert values(update) == 0.25  # (1 x .5 + 2 x -.25 + 1 x 1 + 1 x .25) / 5
    assert update["conv.weight"].shape == (2, 2)
    assert mean["status"] == "ok"
    assert mean["shares"] == {"hospital-1": 0.2, "hospital-2": 0.4, "hospital-3": 0.2, "hospital-4": 0.2}
    assert mean["secure_aggregation"] == {
        "threshold": 3,
        "took_part": ALL,
        "dropped_out": [],
        "false_shares": [],
        "keys_signed": True,
        "max_update_ratio_checked_by_sites": 10.0,
    }
    trained = [from_shareable(answer) for task, _, answer in federation.sent if task == "train"]
    assert [(dxo.data_kind, set(dxo.data), dxo.data[MASKED].dtype) for dxo in trained] == [
        (DataKind.APP_DEFINED, {MASKED}, np.uint32)
    ] * 4
    assert len({dxo.data[MASKED].tobytes() for dxo in trained}) == 4
    for site, engine in federation.engines.items():
        assert was_masked(find_state_dir(site, "", Path(engine.get_workspace().get_root_dir())))
    # All six values of a site are the same, and none of its words.
    assert all(len(set(dxo.data[MASKED].tolist())) == 6 for dxo in trained)


def test_every_message_says_its_round_so_that_a_sites_own_records_count_it_there(federation: Federation) -> None:
    said: set[tuple[str, int]] = set()

    def note(task: str, site: str, data: Shareable) -> Shareable:
        said.add((task, data.get_header(AppConstants.CURRENT_ROUND)))
        return data

    federation.down = note
    federation.round(1)

    assert said == {(task, 1) for task in ("train", *STEPS)}


@pytest.mark.parametrize("lost", ["hospital-1", "hospital-4"])
def test_site_that_fails_in_training_is_left_out_of_the_sum_and_back_in_the_next_round(
    lost: str, federation: Federation
) -> None:
    federation.executors[lost].trainer.fails = True  # type: ignore[union-attr]
    first, mean = federation.round(0)
    federation.executors[lost].trainer.fails = False  # type: ignore[union-attr]
    second, _ = federation.round(1)

    others = [site for site in CASES if site != lost]
    wanted = sum(CASES[site] * UPDATES[site] for site in others) / sum(CASES[site] for site in others)
    assert values(first) == pytest.approx(wanted, abs=1e-6)
    assert mean["secure_aggregation"]["dropped_out"] == [lost]
    assert values(second) == 0.25


def test_site_that_cannot_be_reached_is_not_asked_to_train(federation: Federation) -> None:
    federation.lost = {"hospital-2"}

    update, mean = federation.round()

    assert values(update) == pytest.approx(1.75 / 3, abs=1e-6)  # (.5 + 1 + .25) / 3
    assert mean["secure_aggregation"]["took_part"] == ["hospital-1", "hospital-3", "hospital-4"]


def test_round_of_two_sites_is_none_and_the_model_stays(federation: Federation) -> None:
    federation.lost = {"hospital-2", "hospital-3"}

    update, mean = federation.round()

    assert values(update) == 0
    assert mean["status"] == "TOO_FEW_UPDATES"
    assert {task for task, _, _ in federation.sent} == {"secure_keys", "secure_shares"}


def test_false_shares_cost_the_round_and_the_next_one_is_good(federation: Federation) -> None:
    def lie(task: str, site: str, answer: Shareable) -> Shareable:
        if task == "secure_reveal" and site != "hospital-1":
            return message(dict.fromkeys(CASES, "00" * SHARE_BYTES))
        return answer

    federation.tamper = lie
    first, mean = federation.round(0)
    federation.tamper = lambda task, site, answer: answer
    second, _ = federation.round(1)

    assert values(first) == 0
    assert mean["status"] == "NOT_UNMASKED"
    assert values(second) == 0.25


def test_one_liar_among_four_is_named_and_costs_nothing(federation: Federation) -> None:
    def lie(task: str, site: str, answer: Shareable) -> Shareable:
        false = message(dict.fromkeys(CASES, "00" * SHARE_BYTES))
        return false if (task, site) == ("secure_reveal", "hospital-3") else answer

    federation.tamper = lie
    update, mean = federation.round()

    assert values(update) == 0.25
    assert mean["secure_aggregation"]["false_shares"] == ["hospital-3"]


@pytest.mark.parametrize("task", ["secure_keys", "secure_shares", "secure_confirm", "secure_reveal"])
def test_what_is_no_message_costs_nobody_but_who_sent_it(task: str, federation: Federation) -> None:
    odd = [None, 3, "x", [1], {"a": 1}, {"hospital-1": "zz"}]
    asked = lambda name, site: (name, site) == (task, "hospital-3")  # noqa: E731
    given = iter(odd)
    federation.tamper = lambda name, site, answer: message(next(given)) if asked(name, site) else answer

    rounds = [federation.round(index) for index in range(len(odd))]

    # (.5 - 2 x .25 + .25) / 4 where the third takes no part
    in_sum = {"secure_keys": 0.0625, "secure_shares": 0.0625}.get(task, 0.25)
    assert [values(update) for update, _ in rounds] == [in_sum] * len(odd)
    assert {mean["status"] for _, mean in rounds} == {"ok"}
    assert federation.refused() == ([] if task == "secure_reveal" else [(task, "hospital-3")] * len(odd))


def test_server_that_plays_a_hospital_gets_no_shares(federation: Federation) -> None:
    """The server puts another key in the place of a hospital's."""

    def swap(task: str, site: str, data: Shareable) -> Shareable:
        if task != "secure_shares" or site == "hospital-3":
            return data
        roster = dict(from_shareable(data).data[CONTENT])
        roster["hospital-3"] = {**roster["hospital-3"], "masking_key": roster["hospital-3"]["sealing_key"]}
        return message(roster)

    federation.down = swap
    update, mean = federation.round()

    refusals = [answer.get_header(ERROR_HEADER) for task, _, answer in federation.sent if task == "secure_shares"]
    assert refusals == ["MASKING_ERROR", "MASKING_ERROR", None, "MASKING_ERROR"]
    assert values(update) == 0
    assert mean["status"] == "TOO_FEW_UPDATES"


def test_server_that_gives_one_hospital_another_model_gets_no_sum(federation: Federation) -> None:
    def swap(task: str, site: str, data: Shareable) -> Shareable:
        if (task, site) != ("train", "hospital-1"):
            return data
        other = DXO(DataKind.WEIGHTS, data={name: array + 1 for name, array in MODEL.items()}).to_shareable()
        other["__headers__"] = data["__headers__"]
        return other

    federation.down = swap
    # The model's norm is 20, the mean's .6; of six values anywhere within 16 it is under 2 once in a million times.
    federation.aggregator.max_update_ratio = 0.1
    update, mean = federation.round()

    assert values(update) == 0
    assert mean["status"] == "NOT_UNMASKED"


def test_site_does_not_train_or_answer_out_of_turn(federation: Federation) -> None:
    executor, engine = federation.executors["hospital-1"], federation.engines["hospital-1"]
    data = DXO(DataKind.WEIGHTS, data=dict(MODEL)).to_shareable()
    data.set_header(SEALED, {})

    for task, given in (("train", data), ("secure_shares", message({})), ("secure_reveal", message({}))):
        answer = executor.execute(task, given, engine.new_context(), Signal())
        assert answer.get_header(ERROR_HEADER) == "MASKING_ERROR", task


@pytest.mark.parametrize("value", [16.1, -17.0, np.nan])
def test_update_that_does_not_fit_the_sum_does_not_leave_the_site(value: float, federation: Federation) -> None:
    trainer = federation.executors["hospital-2"].trainer
    trainer.payloads = {WEIGHTS: {name: np.full_like(a, value) for name, a in MODEL.items()}}  # type: ignore[union-attr]

    update, mean = federation.round()

    assert values(update) == pytest.approx(1.75 / 3, abs=1e-6)
    assert mean["secure_aggregation"]["dropped_out"] == ["hospital-2"]


def test_update_that_is_too_long_does_not_leave_the_site(federation: Federation) -> None:
    federation.executors["hospital-2"].max_update_ratio = 0.01  # the model's norm is 20, the update's .61

    _, mean = federation.round()

    answers = {(task, site): answer for task, site, answer in federation.sent}
    code = answers["train", "hospital-2"].get_header(ERROR_HEADER)
    assert code == "MODEL_ERROR"
    assert mean["secure_aggregation"]["dropped_out"] == ["hospital-2"]


def test_payloads_beside_the_update_do_not_leave_unmasked(federation: Federation) -> None:
    trainer = federation.executors["hospital-2"].trainer
    trainer.payloads = {**trainer.payloads, "control": trainer.payloads[WEIGHTS]}  # type: ignore[union-attr]

    _, mean = federation.round()

    assert mean["secure_aggregation"]["dropped_out"] == ["hospital-2"]


def test_plain_update_is_not_added_to_a_masked_sum(federation: Federation) -> None:
    plain = DXO(DataKind.WEIGHT_DIFF, data={k: np.ones_like(v) for k, v in MODEL.items()}).to_shareable()
    plain.add_cookie(AppConstants.CONTRIBUTION_ROUND, 0)
    federation.contexts.set_prop(AppConstants.CURRENT_ROUND, 0, True, True)
    fl_ctx = federation.server.new_context(peer="hospital-1")

    assert not federation.aggregator.accept(plain, fl_ctx)
    assert fl_ctx.get_prop(REJECTION) == "MODEL_ERROR"


def test_algorithm_that_looks_at_each_update_is_refused_at_the_server_too(federation: Federation) -> None:
    federation.contexts.set_prop(AppConstants.CURRENT_ROUND, 0, True, True)

    with pytest.raises(ModelError, match="coordinate_median needs each hospital's update"):
        SecureAggregator(3, 10.0, "coordinate_median").begin("job/0", federation.server.new_context())


def test_kit_without_its_private_key_takes_no_part(federation: Federation) -> None:
    startup = Path(federation.engines["hospital-2"].get_workspace().get_startup_kit_dir())
    (startup / "client.key").unlink()

    _, mean = federation.round()

    assert mean["secure_aggregation"]["took_part"] == ["hospital-1", "hospital-3", "hospital-4"]


def test_simulation_goes_without_certificates_and_says_so(federation: Federation) -> None:
    for engine in (federation.server, *federation.engines.values()):
        with engine.new_context() as fl_ctx:
            fl_ctx.set_prop(FLContextKey.SECURE_MODE, False, True, True)

    update, mean = federation.round()

    assert values(update) == 0.25
    assert mean["secure_aggregation"]["keys_signed"] is False


@pytest.mark.parametrize(
    ("argument", "value"),
    [("threshold", 0), ("max_share", 0.0), ("max_share", 1.5), ("max_update_ratio", 0.0), ("max_update_ratio", np.nan)],
)
def test_setting_that_guards_nothing_is_refused(argument: str, value: float) -> None:
    good: dict[str, Any] = {"threshold": 2, "max_share": 0.5, "max_update_ratio": 10.0}

    with pytest.raises(ValueError, match=argument):
        SecureExecutor(**{**good, argument: value}, bundle="brats_unet", profile="tiny", local_epochs=1, seed=0)


def test_executor_trains_and_validates_as_the_plain_one_does() -> None:
    assert SecureExecutor.tasks == TASKS
    assert SecureExecutor.messages.isdisjoint(TASKS)
    assert secure_aggregation.TASK_KEYS in SecureExecutor.messages
